"""A turn's events are written together: what was done is on the disk, under any interleaving, kills included."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotwave.algorithms.random_search import RandomSearch
from pilotwave.archive.ledger import Event, EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.running_state import RunningState
from pilotwave.archive.state import CampaignState
from pilotwave.config.campaign import CampaignConfig
from pilotwave.errors import BreakerError
from pilotwave.execution.control import Command
from pilotwave.execution.coordinator import Coordinator
from pilotwave.execution.job import CampaignJob
from pilotwave.execution.receipts import read_receipts, write_receipt
from pilotwave.execution.workers import EvaluationRequest, WorkerEvent
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.small_campaign import campaign, state_of
from pilotwave.testing.virtual_workers import Attempt, VirtualWorkers
from pilotwave.types import Evaluation, Failure, Observation, Status

BEGIN = 1_000_000.0
COUNTS = ("spent", "answered", "failed", "infeasible", "reused", "learned", "attempted", "proposed", "spending")
BROKEN_LINE = Failure("network", "the line is broken", retryable=True)


def configured(
    queries: int, *, mode: str = "asynchronous", evaluators: int = 7, cost: float | None = None, **fields: Any
) -> CampaignConfig:
    oracle = FaultyOracleConfig(time_limit=3600.0, attempts=3, backoff_seconds=5.0)
    runtime = {"kind": "inline", "evaluators": evaluators, "mode": mode, "log_level": "none"}
    given_fields = {"algorithm": {"kind": "random"}, "failures": {"maximum_rate": 1.0}, **fields}
    chosen = campaign(oracle, runtime, queries=queries, batch_size=8, **given_fields).config
    return chosen.model_copy(update={"budget": chosen.budget.model_copy(update={"cost": cost})})


def slow_and_shaky(request: EvaluationRequest) -> Attempt:
    chance = random.Random(f"{request.query_id}/{request.attempt}")
    seconds = 10 * math.exp(chance.gauss(0, 1))
    return Attempt(seconds=seconds, failure=BROKEN_LINE if chance.random() < 0.1 else None)


def drive(run: RunDirectory, chosen: CampaignConfig, workers: VirtualWorkers) -> Coordinator:
    if not run.exists():
        run.create(chosen)
    job = CampaignJob(chosen, run.path, workers.now)
    coordinator = Coordinator(job, workers, lambda progress: None, threading.Event(), workers.clock)
    coordinator.run()
    return coordinator


def events_of(run: RunDirectory) -> list[Event]:
    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        return list(ledger.events())


class Watched(VirtualWorkers):
    """Leaves receipts like a real oracle's process, and records what it was asked and answered outside."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.run: RunDirectory
        self.steps = -1
        self.turns = 0

    def step(self) -> None:
        self.steps -= 1
        if self.steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, what: str, line: str) -> None:
        with (self.run.path.parent / what).open("a") as file:
            file.write(line + "\n")

    def evaluate(self, request: EvaluationRequest) -> None:
        self.step()
        self.note("asked", f"{request.query_id} {request.attempt}")
        super().evaluate(request)

    def wait(self, timeout: float) -> Sequence[WorkerEvent]:
        self.step()
        self.turns += 1
        events = super().wait(timeout)
        for event in events:
            if isinstance(event, Evaluation):
                write_receipt(self.run.receipts, event)
                self.note("asked", f"{event.query_id} {event.status}")
                self.step()
        return events


def watched(run: RunDirectory, chosen: CampaignConfig, *, lag: float, now: float, steps: int) -> Watched:
    workers = Watched(chosen, slow_and_shaky, now=now, lag=lag)
    workers.run, workers.steps = run, steps
    return workers


def drive_until_killed(run: RunDirectory, chosen: CampaignConfig, workers: Watched) -> bool:
    """Drives in a process of its own that kills itself at some step; returns whether it did."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            commit, tell = Ledger.commit, RandomSearch.tell

            def committing(ledger: Ledger) -> None:
                workers.step()
                commit(ledger)
                workers.step()

            def telling(algorithm: RandomSearch, observations: Sequence[Observation]) -> None:
                workers.note("told", "\n".join(item.candidate.query_id for item in observations))
                tell(algorithm, observations)
                workers.step()

            Ledger.commit, RandomSearch.tell = committing, telling  # type: ignore[method-assign]
            drive(run, chosen, workers)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def check_what_is_on_the_disk(run: RunDirectory) -> None:
    """Whatever was dispatched is reserved, whatever was told is settled, and no answer was paid for twice."""
    events = events_of(run)
    reserved = {
        (event.record["query_id"], str(event.record["attempt"]))
        for event in events
        if event.kind is EventKind.RESERVED
    }
    settled = {event.record["query_id"] for event in events if event.kind is EventKind.SETTLED}
    answered: set[str] = set()
    for query_id, what in lines(run.path.parent / "asked"):
        if what.isdecimal():
            assert (query_id, what) in reserved
            assert query_id not in answered, "paid for twice"
        elif what == Status.OK:
            answered.add(query_id)
    assert {query_id for (query_id,) in lines(run.path.parent / "told")} <= settled
    on_its_way = {item.query_id for item in read_receipts(run.receipts) if item.status is Status.OK}
    assert answered <= settled | on_its_way


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kills=st.lists(st.integers(1, 160), min_size=1, max_size=4),
    lag=st.sampled_from([0.0, 2.0, 10.0]),
    mode=st.sampled_from(["synchronous", "asynchronous"]),
    orders=st.lists(st.sampled_from(["add-queries 5", "pause", "set budget.queries=30"]), max_size=2),
)
def test_killed_at_any_step_nothing_is_lost_paid_twice_or_overspent(
    tmp_path_factory: pytest.TempPathFactory, kills: list[int], lag: float, mode: str, orders: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    run, chosen = RunDirectory(folder / "run"), configured(40, mode=mode, cost=60.0)
    run.create(chosen)
    now = BEGIN
    for place, steps in enumerate([*kills, -1]):
        now += 100_000.0
        workers = watched(run, chosen, lag=lag, now=now, steps=steps)
        if place < len(orders):
            verb, _, argument = orders[place].partition(" ")
            workers.at(
                now + 15.0, lambda verb=verb, argument=argument: Command.of(verb, argument or None).send(run)
            )  # type: ignore[misc]
            workers.at(now + 60.0, lambda: Command.of("resume", None).send(run))
        drive_until_killed(run, chosen, workers)
        check_what_is_on_the_disk(run)
    state = state_of(run.path)
    asked = [line for line in lines(folder / "asked") if line[1].isdecimal()]
    limits = state.limits.now
    assert limits is not None
    assert len({query_id for query_id, _ in asked}) == state.spent <= max(limits.queries, 40)
    assert len(asked) <= 60
    assert state.spending.committed <= 60.0
    assert state.spent == limits.queries or state.ended_by == "cost"
    assert not state.resting or state.ended_by == "cost"
    assert not list(run.receipts.glob("*.json"))


def test_a_turn_takes_two_commits_however_many_answers_it_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, chosen = RunDirectory(tmp_path / "run"), configured(200, evaluators=32)
    durable: list[int] = []
    commit = Ledger.commit

    def counted(ledger: Ledger) -> None:
        durable.append(ledger._last - ledger._durable)
        commit(ledger)

    monkeypatch.setattr(Ledger, "commit", counted)
    workers = watched(run, chosen, lag=20.0, now=BEGIN, steps=-1)
    drive(run, chosen, workers)
    written = [count for count in durable if count]
    assert sum(written) > 500
    assert len(written) <= 3 * workers.turns  # and one more for a checkpoint
    assert max(written) > 10


def test_what_is_wrong_with_one_answer_costs_none_of_the_others(tmp_path: Path) -> None:
    chosen = configured(60, evaluators=20, failures={"maximum_rate": 0.5, "window": 6})
    run = RunDirectory(tmp_path / "run")
    workers = Watched(
        chosen,
        lambda request: Attempt(failure=Failure("scf", "no") if request.query_id < "p0001" else None),
        lag=5.0,
    )
    workers.run = run
    with pytest.raises(BreakerError, match="of the last 6 evaluations failed"):
        drive(run, chosen, workers)
    state = state_of(run.path)
    assert len(state.settled) == 8  # all that came in that turn, though the sixth one ended it
    assert state.stopped == "breaker"
    assert not list(run.receipts.glob("*.json"))


@pytest.mark.parametrize(
    ("mode", "digest"), [("synchronous", "887d219e83d28fea"), ("asynchronous", "4bd1f81743d99f53")]
)
def test_every_event_is_the_one_that_was_written_when_each_was_written_alone(
    tmp_path: Path, mode: str, digest: str
) -> None:
    """The digests were taken with one commit an event and everything in memory; a resume in the middle."""
    run, about = RunDirectory(tmp_path / "run"), ("query_id", "query_ids", "proposal", "count", "attempt")
    for place, queries in enumerate((70, 150)):
        chosen = configured(queries, mode=mode)
        drive(run, chosen, VirtualWorkers(chosen, slow_and_shaky, now=BEGIN * (place + 1)))
    told = [
        [
            event.kind.value,
            [event.record.get(key) for key in about],
        ]
        for event in events_of(run)
    ]
    assert hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_what_a_driver_keeps_does_not_grow_with_its_queries(tmp_path: Path, mode: str) -> None:
    kept = []
    for queries in (100, 400):
        chosen = configured(queries, mode=mode)
        run = RunDirectory(tmp_path / f"{queries}")
        coordinator = drive(run, chosen, VirtualWorkers(chosen, slow_and_shaky, lag=1.0))
        memory, asking = coordinator._memory, coordinator._asking
        state = memory.state
        parts: dict[str, Any] = {**vars(memory), **vars(state), **vars(asking), **vars(state.spending)}
        parts |= vars(coordinator._generating)
        sizes = {name: len(part) for name, part in parts.items() if isinstance(part, dict | list | set | tuple)}
        assert sizes.keys() >= {
            "candidates",
            "settled",
            "reserved",
            "told",
            "proposals",
            "untold",
            "held",
            "_attempt",
        }
        assert max(sizes.values()) <= 8, sizes  # at the end nothing goes on, and nothing is remembered of it
        kept.append(sizes)
        whole = state_of(run.path)
        assert [getattr(state, name) for name in COUNTS] == [getattr(whole, name) for name in COUNTS]
        assert len(whole.settled) == len(memory.known) == queries
        intervals = coordinator._accounting.evaluating
        assert len(intervals._starts) <= 1024
    assert kept[0].keys() == kept[1].keys()


def test_a_state_that_let_go_counts_as_a_whole_one_at_every_event(tmp_path: Path) -> None:
    run, chosen = RunDirectory(tmp_path / "run"), configured(150)
    drive(run, chosen, VirtualWorkers(chosen, slow_and_shaky))
    events = events_of(run)
    whole = CampaignState()
    for place, event in enumerate(events):
        whole.apply(event)
        if place % 37 and place < len(events) - 1:
            continue
        running = RunningState.of(events[: place + 1])
        assert [getattr(running, name) for name in COUNTS] == [getattr(whole, name) for name in COUNTS]
        assert running.open_queries() == whole.open_queries()
        assert len(running.settled) <= 8 + sum(len(item.query_ids) for item in running.proposals.values())
        values = [item.value for item in whole.settled.values() if item.value is not None]
        if values:
            assert (running.lowest or (None,))[0] == min(values)
            assert (running.highest or (None,))[0] == max(values)
