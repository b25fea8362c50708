"""A timeline is what the ledger says, whatever happened: failures, pauses, kills, several at once, old runs."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.report.timeline import GENERATOR, LOST, Attempt, Moment, Span, Timeline
from pilotwave.report.timeline_picture import MOST_BARS, draw_timeline
from pilotwave.report.trace_events import MOST_COUNTS, trace_events, write_trace
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.small_campaign import campaign

BEGIN = 1_700_000_000.0


class Story:
    """A ledger in which events happen when we say."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, evaluators: int = 2) -> None:
        self.run = RunDirectory(folder)
        self.run.create(campaign(FaultyOracleConfig(), {"kind": "inline", "evaluators": evaluators}).config)
        self.now = BEGIN
        monkeypatch.setattr("pilotwave.archive.ledger.time.time", lambda: self.now)
        self.ledger = Ledger.open(self.run.ledger_file)

    def at(self, moment: float, kind: EventKind, /, **record: Any) -> None:
        self.now = BEGIN + moment
        self.ledger.append(kind, record)

    def start(self, seconds: float, launched: float, resumed: bool = False) -> None:
        facts = {"unit": "eV", "oracle": "faulty"}
        record = {"facts": facts, "host": "here", "pid": 1, "resumed": resumed, "queries": 24}
        self.at(seconds, EventKind.STARTED, **record, launched=BEGIN + launched)

    def made(self, seconds: float, proposal: int, slots: int, lasted: float = 0.5, **more: Any) -> None:
        ids = [f"p{proposal:04d}-{slot:02d}" for slot in range(slots)]
        self.at(seconds, EventKind.ASKED, proposal=proposal, count=slots)
        record = {"proposal": proposal, "query_ids": ids, "feasible": ids, "passes": 1, "seconds": lasted, **more}
        self.at(seconds, EventKind.GENERATED, **record)

    def asked(self, seconds: float, query_id: str, attempt: int = 1) -> None:
        self.at(seconds, EventKind.RESERVED, query_id=query_id, attempt=attempt)

    def ended(
        self,
        begin: float,
        end: float,
        query_id: str,
        worker: str,
        attempt: int = 1,
        status: str = "ok",
        **more: Any,
    ) -> None:
        again = more.pop("again", False)
        failed = status != "ok"
        record: dict[str, Any] = {
            "query_id": query_id,
            "status": status,
            "value": None if failed else 1.5,
            "attempt": attempt,
            "cost": 2.0,
            "fidelity": "standard",
            "timings": {"started": BEGIN + begin, "finished": BEGIN + end},
            "failure": {"stage": "scf", "message": "no convergence", "retryable": again} if failed else None,
            "properties": {},
            "worker": worker,
            "reused_from": None,
            **more,
        }
        self.at(end, EventKind.ATTEMPTED if again else EventKind.SETTLED, **record)


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Story:
    return Story(tmp_path / "run", monkeypatch)


def eventful(story: Story) -> Timeline:
    """Two drivers, the first of which was killed; a repetition, a pause, an answer from an archive."""
    story.start(5.0, launched=0.0)
    story.made(10.0, 0, 4)
    for slot in range(2):
        story.asked(10.0, f"p0000-0{slot}")
    story.ended(10.0, 20.0, "p0000-00", "evaluator-0")
    story.ended(10.0, 12.0, "p0000-01", "evaluator-1", status="failed", again=True)
    story.asked(20.0, "p0000-02")
    story.asked(21.0, "p0000-01", 2)
    story.ended(21.0, 30.0, "p0000-01", "evaluator-1", 2)
    story.start(1005.0, launched=1000.0, resumed=True)
    story.at(1006.0, EventKind.CONTROLLED, id="1", command="pause", argument=None, refused="")
    story.at(1010.0, EventKind.CONTROLLED, id="2", command="resume", argument=None, refused="")
    story.at(1010.0, EventKind.CONTROLLED, id="3", command="set", argument="x", refused="no such budget")
    story.asked(1010.0, "p0000-02", 2)
    story.ended(1010.0, 1020.0, "p0000-02", "evaluator-0", 2, status="timed_out")
    story.ended(1010.0, 1010.0, "p0000-03", "", timings=None, reused_from="p0000-00")
    story.at(1021.0, EventKind.STOPPED, reason="finished", ended_by="queries")
    story.ledger.close()
    return Timeline.read(story.run.path)


def test_it_says_what_happened(story: Story) -> None:
    read = eventful(story)
    assert [(item.query_id, item.attempt, item.status, item.track, item.repeated) for item in read.attempts] == [
        ("p0000-01", 1, "failed", "evaluator-1", True),
        ("p0000-00", 1, "ok", "evaluator-0", False),
        ("p0000-02", 1, "lost", LOST, False),
        ("p0000-01", 2, "ok", "evaluator-1", False),
        ("p0000-02", 2, "timed_out", "evaluator-0", False),
    ]
    assert [(item.track, item.end - item.start, item.feasible[0]) for item in read.generations] == [
        (GENERATOR, pytest.approx(0.5), "p0000-00")
    ]
    ended = [(item.start - BEGIN, item.end - BEGIN, item.details["ended"]) for item in read.drivers]
    assert ended == [(0.0, 30.0, "killed"), (1000.0, 1021.0, "finished")]
    assert [(item.start - BEGIN, item.end - BEGIN) for item in read.pauses] == [(1006.0, 1010.0)]
    assert [item.name for item in read.commands] == ["pause", "resume", "set x (refused: no such budget)"]
    assert [item.in_flight for item in read.moments][-1] == 0
    assert read.moments[-1].best == 1.5
    assert (read.evaluators, read.unit) == (2, "eV")
    # Of two evaluators' 20 seconds under the first driver 21, of their 10 under the second 10, after the pause.
    assert read.utilisation() == pytest.approx(31.0 / (2 * (20.0 + 10.0)), rel=1e-6)


def checked(events: list[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Holds events against the format as it is documented; returns them by phase."""
    by_phase: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        by_phase[event["ph"]].append(event)
        assert isinstance(event["name"], str)
        assert event["name"]
        assert event["ts"] >= 0
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
    assert set(by_phase) <= set("MXsfiC")
    named = {(event["pid"], event["tid"]) for event in by_phase["M"] if event["name"] == "thread_name"}
    slices = by_phase["X"]
    by_thread: dict[tuple[int, int], list[Mapping[str, Any]]] = defaultdict(list)
    for event in slices:
        assert event["dur"] >= 0
        assert (event["pid"], event["tid"]) in named
        by_thread[event["pid"], event["tid"]].append(event)
    for thread in by_thread.values():  # slices of one thread lie apart or within each other
        thread.sort(key=lambda event: (event["ts"], -event["dur"]))
        open_until: list[float] = []
        for event in thread:
            while open_until and open_until[-1] <= event["ts"] + 1e-3:
                open_until.pop()
            assert not open_until or event["ts"] + event["dur"] <= open_until[-1] + 1e-3
            open_until.append(event["ts"] + event["dur"])
    begun, arrived = ({event["id"]: event for event in by_phase[phase]} for phase in "sf")
    assert begun.keys() == arrived.keys()
    for number, start in begun.items():
        end = arrived[number]
        assert start["ts"] <= end["ts"]
        assert (start["name"], start["cat"], end["bp"]) == (end["name"], end["cat"], "e")
        for arrow in (start, end):  # each end is bound to the slice around it
            around = by_thread[arrow["pid"], arrow["tid"]]
            assert any(item["ts"] - 1e-3 <= arrow["ts"] <= item["ts"] + item["dur"] + 1e-3 for item in around)
    for event in by_phase["i"]:
        assert event["s"] in "gpt"
    for event in by_phase["C"]:
        assert all(isinstance(value, int | float) for value in event["args"].values())
    return by_phase


def test_the_trace_keeps_to_the_format_and_says_all(story: Story) -> None:
    read = eventful(story)
    phases = checked(list(trace_events(read)))
    threads = [event["args"]["name"] for event in phases["M"] if event["name"] == "thread_name"]
    assert threads == ["driver", "commands", GENERATOR, "evaluator-0", "evaluator-1", LOST]
    slices = {event["name"]: event for event in phases["X"]}
    failed = slices["p0000-01 failed"]
    assert failed["ts"] == 10_000_000
    assert failed["dur"] == 2_000_000
    assert failed["args"] == {
        "query": "p0000-01",
        "proposal": 0,
        "attempt": 1,
        "status": "failed",
        "unit": "eV",
        "cost": 2.0,
        "failure": "scf: no convergence",
        "tried again": True,
    }
    assert slices["p0000-00"]["args"]["value"] == 1.5
    assert {"proposal 0", "starting", "paused", "p0000-02 lost"} <= set(slices)
    arrows = [event["name"] for event in phases["s"]]
    assert sorted(arrows) == ["candidate", "candidate", "candidate", "tried again", "tried again"]
    assert {event["name"] for event in phases["i"]} == {
        "driver ended: killed",
        "driver ended: finished",
        "pause",
        "resume",
        "set x (refused: no such budget)",
    }


@pytest.mark.parametrize("name", ["timeline.json", "timeline.json.gz"])
def test_the_file_is_json_that_holds_every_event(story: Story, tmp_path: Path, name: str) -> None:
    read = eventful(story)
    path = tmp_path / "made" / name
    count = write_trace(read, path)
    text = gzip.decompress(path.read_bytes()).decode() if name.endswith(".gz") else path.read_text()
    trace = json.loads(text)
    assert len(trace["traceEvents"]) == count
    assert trace["traceEvents"] == list(trace_events(read))
    assert trace["otherData"] == {"campaign": "contract", "begin": "2023-11-14T22:13:20.000000Z", "unit": "eV"}


def test_questions_that_one_worker_is_asked_at_once_have_lanes(story: Story) -> None:
    story.start(0.0, launched=0.0)
    story.made(1.0, 0, 4, started=BEGIN + 0.5, worker="generator-1")
    for slot in range(4):
        story.asked(1.0, f"p0000-0{slot}")
    for slot in range(3):
        story.ended(1.0 + 0.1 * slot, 3.0, f"p0000-0{slot}", "evaluator-0")
    story.ended(3.0, 4.0, "p0000-03", "evaluator-0")
    story.ledger.close()
    read = Timeline.read(story.run.path)
    assert read.evaluator_tracks() == ["evaluator-0", "evaluator-0 (2)", "evaluator-0 (3)"]
    assert read.generator_tracks() == ["generator-1"]
    assert read.evaluators == 3
    assert [item.track for item in read.attempts if item.query_id == "p0000-03"] == ["evaluator-0"]
    checked(list(trace_events(read)))


def test_a_run_that_never_began_has_an_empty_timeline(story: Story, tmp_path: Path) -> None:
    story.ledger.close()
    read = Timeline.read(story.run.path)
    assert read.utilisation() == 0.0
    assert write_trace(read, tmp_path / "t.json") == 12
    assert draw_timeline(read).startswith(b"\x89PNG")


def test_an_interrupted_pause_and_a_driver_at_work_end_with_the_last_event(story: Story) -> None:
    story.start(0.0, launched=0.0)
    story.made(1.0, 0, 2)
    story.asked(1.0, "p0000-00")
    story.at(2.0, EventKind.CONTROLLED, id="1", command="pause", argument=None, refused="")
    story.ended(1.0, 4.0, "p0000-00", "evaluator-0")
    story.ledger.close()
    read = Timeline.read(story.run.path)
    assert [(item.start - BEGIN, item.end - BEGIN) for item in read.pauses] == [(2.0, 4.0)]
    assert [item.details["ended"] for item in read.drivers] == ["at work"]
    assert "lost" not in {item.status for item in read.attempts}


def test_pictures_of_few_and_of_many_attempts_show_what_happened(story: Story) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs the extra 'report'")
    few = eventful(story)
    blue, orange, red, black = (25, 113, 194), (240, 140, 0), (201, 42, 42), (31, 41, 51)
    assert {blue, orange, black} <= colours_of(draw_timeline(few))
    seconds = 10.0 * (MOST_BARS // 250 + 1)
    attempts = [
        Attempt(f"evaluator-{number}", begin, begin + 10.0, "p0000-00", 1, "failed" if number < 50 else "ok")
        for begin in range(0, int(seconds), 10)
        for number in range(250)
    ]
    driver = Span(0.0, seconds, "driver", {"ended": "finished"})
    many = replace(
        few, begin=0.0, end=seconds, evaluators=250, attempts=tuple(attempts), generations=(), drivers=(driver,)
    )
    many = replace(many, pauses=(), commands=(), moments=(Moment(0.0, 250, 0, None),))
    assert len(attempts) > MOST_BARS
    assert many.utilisation() == pytest.approx(1.0)
    assert {blue, red} <= colours_of(draw_timeline(many))


def test_counters_of_long_runs_are_thinned(story: Story) -> None:
    read = eventful(story)
    long = replace(read, moments=read.moments[-1:] * (3 * MOST_COUNTS + 1))
    counts = [event for event in trace_events(long) if event["ph"] == "C"]
    assert MOST_COUNTS / 2 < len(counts) / 3 <= MOST_COUNTS + 1


def colours_of(png: bytes) -> set[tuple[int, ...]]:
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    return {colour for count, colour in image.getcolors(1 << 24) or [] if count > 20 and isinstance(colour, tuple)}
