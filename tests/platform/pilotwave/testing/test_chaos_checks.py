"""The judge of a chaos, given ledgers and records in which something is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.state import CampaignState
from pilotwave.testing.call_record import Call, RecordedScore, read_calls
from pilotwave.testing.chaos_checks import Kill, Verdict, judge
from pilotwave.types import Evaluation, Failure, Status


@dataclass
class Story:
    """A campaign of two queries: p0 is answered, then p1; p1 is lost with its evaluator once, and asked again."""

    run_dir: Path
    calls: list[Call] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    seen: dict[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.run_dir / "receipts").mkdir(parents=True)
        self.ledger = Ledger.create(self.run_dir / "ledger.sqlite", {"campaign": "x"})
        self.ledger.append(EventKind.STARTED, {"queries": 2})
        self.ledger.append(EventKind.ASKED, {"proposal": 0, "count": 2})
        generated = {
            "proposal": 0,
            "query_ids": ["p0", "p1"],
            "feasible": ["p0", "p1"],
            "passes": 1,
            "seconds": 0.0,
        }
        self.ledger.append(EventKind.GENERATED, generated)

    def asks(self, query_id: str, attempt: int = 1, actor: int = 1, value: float | None = None) -> None:
        self.ledger.append(EventKind.RESERVED, {"query_id": query_id, "attempt": attempt, "cost": 1.0})
        self.calls_oracle(query_id, attempt, actor, value)

    def calls_oracle(self, query_id: str, attempt: int, actor: int, value: float | None) -> None:
        answered = None if value is None else time.time()
        self.calls.append(Call(query_id, attempt, 10 * actor, actor, "", time.time(), answered, value))

    def settles(self, query_id: str, value: float, attempt: int = 1) -> None:
        self.ledger.settle(EventKind.SETTLED, Evaluation(query_id, Status.OK, value, attempt=attempt, cost=1.0))
        self.seen[query_id] = value

    def kills_evaluator(self, actor: int) -> None:
        self.kills.append(Kill("evaluator", "here", (actor,), "", time.time(), time.time(), 1, False))

    def loses(self, query_id: str, attempt: int = 1) -> None:
        failure = Failure("worker", "gone", True)
        lost = Evaluation(query_id, Status.FAILED, attempt=attempt, cost=1.0, failure=failure)
        self.ledger.settle(EventKind.ATTEMPTED, lost)

    def ends(self) -> None:
        self.ledger.append(EventKind.TOLD, {"query_ids": ["p0", "p1"]})
        self.ledger.append(EventKind.STOPPED, {"reason": "finished"})

    def judged(self) -> Verdict:
        return judge(self.run_dir, 2, self.calls, self.kills, self.seen)


def as_it_should_be(story: Story) -> None:
    story.asks("p0", value=1.0)
    story.settles("p0", 1.0)
    story.asks("p1", actor=2)
    story.kills_evaluator(2)
    story.loses("p1")
    story.asks("p1", attempt=2, actor=3, value=2.0)
    story.settles("p1", 2.0, attempt=2)
    story.ends()


def test_a_campaign_that_kept_its_promises(tmp_path: Path) -> None:
    story = Story(tmp_path)
    as_it_should_be(story)
    verdict = story.judged()
    assert verdict.broken == []
    assert (verdict.spent, verdict.calls, verdict.attempts) == (2, 3, 3)
    assert verdict.in_flight["evaluator"] == verdict.repeated["evaluator"] == verdict.kills["evaluator"] == 1


def test_an_answer_that_was_taken_for_lost_costs_once(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.asks("p0", value=1.0)
    story.loses("p0")
    story.settles("p0", 1.0)  # its receipt was found when the campaign was resumed
    story.asks("p1", actor=2, value=2.0)
    story.loses("p1")
    story.ledger.append(EventKind.RESERVED, {"query_id": "p1", "attempt": 2, "cost": 1.0})
    story.settles("p1", 2.0)  # its receipt was found when it was about to be asked again
    story.ends()
    verdict = story.judged()
    assert verdict.broken == []
    with Ledger.open(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        assert CampaignState.of(ledger.events()).spending.ended == 2.0


def repeated_without_a_kill(story: Story) -> None:
    as_it_should_be(story)
    story.kills.clear()


def repeated_for_another_s_kill(story: Story) -> None:
    as_it_should_be(story)
    story.kills = [replace(story.kills[0], victims=(7,))]


def repeated_for_a_kill_that_came_after(story: Story) -> None:
    as_it_should_be(story)
    story.kills = [replace(story.kills[0], began=time.time(), ended=time.time())]


def two_repetitions_for_one_kill(story: Story) -> None:
    as_it_should_be(story)
    again = story.calls[2]
    story.calls.append(replace(again, asked=again.asked + 1e-4))


def settled_twice(story: Story) -> None:
    as_it_should_be(story)
    story.settles("p1", 2.0)


def seen_and_gone(story: Story) -> None:
    as_it_should_be(story)
    story.seen["p2"] = 3.0


def seen_and_changed(story: Story) -> None:
    as_it_should_be(story)
    story.seen["p1"] = 2.5


def another_value_than_the_oracle_s(story: Story) -> None:
    as_it_should_be(story)
    story.calls[2] = replace(story.calls[2], value=2.5)


def asked_without_a_reservation(story: Story) -> None:
    as_it_should_be(story)
    story.calls_oracle("p2", 1, 1, 3.0)


def asked_before_the_reservation(story: Story) -> None:
    as_it_should_be(story)
    story.calls[0] = replace(story.calls[0], asked=story.calls[0].asked - 60.0)


def charged_for_one_more(story: Story) -> None:
    story.ledger.append(EventKind.RESERVED, {"query_id": "p2", "attempt": 1, "cost": 1.0})
    as_it_should_be(story)


def left_a_receipt(story: Story) -> None:
    as_it_should_be(story)
    (story.run_dir / "receipts" / "p1.1.json").write_text("{}")


def never_finished(story: Story) -> None:
    as_it_should_be(story)
    story.ledger.append(EventKind.STARTED, {"queries": 2})


def told_twice(story: Story) -> None:
    story.ledger.append(EventKind.TOLD, {"query_ids": ["p0"]})
    as_it_should_be(story)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (repeated_without_a_kill, "no kill explains it"),
        (repeated_for_another_s_kill, "no kill explains it"),
        (repeated_for_a_kill_that_came_after, "no kill explains it"),
        (two_repetitions_for_one_kill, "no kill explains it"),
        (settled_twice, "ended 2 times"),
        (seen_and_gone, "at an earlier look"),
        (seen_and_changed, "at an earlier look"),
        (another_value_than_the_oracle_s, "the oracle said 2.5"),
        (asked_without_a_reservation, "reserved 0 times"),
        (asked_before_the_reservation, "reserved 0 times"),
        (charged_for_one_more, "2 queries were to be spent, 3 were"),
        (left_a_receipt, "receipts were left"),
        (never_finished, "did not finish"),
        (told_twice, "was told 3 times"),
    ],
)
def test_what_is_wrong_is_noticed(tmp_path: Path, wrong: Callable[[Story], None], words: str) -> None:
    story = Story(tmp_path)
    wrong(story)
    assert any(words in line for line in story.judged().broken), story.judged().broken


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    import numpy as np

    from pilotwave.protocols import QueryContext
    from pilotwave.samples import ArraySample

    (tmp_path / "pace").write_text("0.01")
    ask = RecordedScore(tmp_path / "calls", tmp_path / "pace")
    assert ask(ArraySample(np.array([1.0, 2.0], dtype=np.float32)), QueryContext("p0", 2)) == 3.0
    with (tmp_path / "calls").open("a") as stream:  # one that never came back
        stream.write('{"query_id": "p1", "attempt": 1, "process": 5, "actor": 6, "node": "n", "asked": 9e12}\n')
    first, second = read_calls(tmp_path / "calls")
    assert (first.query_id, first.attempt, first.value) == ("p0", 2, 3.0)
    assert first.answered is not None
    assert first.answered >= first.asked
    assert (second.query_id, second.actor, second.node, second.answered) == ("p1", 6, "n", None)
