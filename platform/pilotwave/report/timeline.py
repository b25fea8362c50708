"""When everything in a run happened: a track for every evaluator and generator, read from the ledger alone.

So it works for any run that was ever made, and while one is made. May import :mod:`pilotwave.archive` and
:mod:`pilotwave.report`.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilotwave.archive.ledger import Event, EventKind, Ledger
from pilotwave.report.log_lines import proposal_of
from pilotwave.report.recorded_run import RecordedRun

LOST = "lost with its driver"
"""The track of attempts whose end nobody saw."""
GENERATOR = "generator"
"""The track of candidates of which the ledger does not say who made them."""


@dataclass(frozen=True)
class Attempt:
    """An attempt at the oracle.

    Attributes:
        track: Who asked, and if several at once, in which lane: ``"evaluator-3"``, ``"evaluator-3 (2)"``.
        start: Seconds since the epoch.
        end: Likewise.
        query_id: About what.
        attempt: 1 for the first.
        status: How it ended; ``"lost"`` if nobody knows.
        repeated: Whether another attempt followed.
        value: In the oracle's unit, or None.
        cost: What it cost.
        failure: Why there is no value, ``"stage: message"``, or empty.
    """

    track: str
    start: float
    end: float
    query_id: str
    attempt: int
    status: str
    repeated: bool = False
    value: float | None = None
    cost: float = 0.0
    failure: str = ""


@dataclass(frozen=True)
class Generation:
    """A proposal's candidates were made.

    Attributes:
        track: By whom.
        start: Seconds since the epoch.
        end: Likewise.
        proposal: Its number.
        made: How many.
        feasible: The query ids that an oracle may be asked about.
    """

    track: str
    start: float
    end: float
    proposal: int
    made: int
    feasible: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """Something that lasted, e.g. a driver.

    Attributes:
        start: Seconds since the epoch.
        end: Likewise.
        name: What it was.
        details: For people.
    """

    start: float
    end: float
    name: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """How much of something there was from a moment on."""

    time: float
    in_flight: int
    ready: int
    best: float | None


@dataclass(frozen=True)
class Timeline:
    """When everything in a run happened.

    Attributes:
        name: The campaign's.
        begin: Of the first driver, seconds since the epoch.
        end: Of the last event.
        evaluators: How many there are said to be; at least as many as were ever at work at once.
        attempts: In the order in which they ended.
        generations: Likewise.
        drivers: From the launch to the last word of each.
        pauses: In which nothing new was made or asked.
        commands: What was said to drivers, at one moment each.
        moments: One after each event that changed anything.
        unit: The oracle's.
    """

    name: str
    begin: float
    end: float
    evaluators: int
    attempts: tuple[Attempt, ...]
    generations: tuple[Generation, ...]
    drivers: tuple[Span, ...]
    pauses: tuple[Span, ...]
    commands: tuple[Span, ...]
    moments: tuple[Moment, ...]
    unit: str = ""

    @classmethod
    def read(cls, run_dir: Path) -> Timeline:
        """Reads a run; a campaign may be writing to it.

        Raises:
            RunDirectoryError: There is no run here, or its campaign file cannot be read.
            StorageError: The ledger cannot be read.
        """
        run = RecordedRun.read(run_dir)
        reader = _Reader(run)
        with Ledger.open(run.directory.ledger_file, read_only=True) as ledger:
            for event in ledger.events():
                reader.take(event)
        return reader.timeline()

    def evaluator_tracks(self) -> list[str]:
        """Returns who asked, in natural order, what was lost last."""
        return _in_order({item.track for item in self.attempts})

    def generator_tracks(self) -> list[str]:
        """Returns who made candidates, in natural order."""
        return _in_order({item.track for item in self.generations})

    def working_spans(self) -> list[tuple[float, float]]:
        """Returns when there was work, in order and apart: of each driver from its first to its last."""
        work = sorted([(item.start, item.end) for item in self.attempts] + self._generating())
        begins = [begin for begin, _ in work]
        spans: list[tuple[float, float]] = []
        for driver in sorted(self.drivers, key=lambda item: item.start):
            own = work[bisect_left(begins, driver.start) : bisect_right(begins, driver.end)]
            if own:
                spans.append((own[0][0], max(own[0][0], min(driver.end, max(end for _, end in own)))))
        return spans

    def _generating(self) -> list[tuple[float, float]]:
        return [(item.start, item.end) for item in self.generations]

    def utilisation(self) -> float:
        """Returns the share of the evaluators' time in use, from the first question to the last answer, 0 to 1.

        Pauses, times between drivers, and what a driver needs to start and to save are not counted.
        """
        known = [item for item in self.attempts if item.status != "lost"]
        if not known:
            return 0.0
        since, until = min(item.start for item in known), max(item.end for item in known)
        spans = [(max(start, since), min(end, until)) for start, end in self.working_spans()]
        available = sum(max(0.0, end - start) for start, end in spans)
        for pause in self.pauses:
            available -= sum(max(0.0, min(pause.end, end) - max(pause.start, start)) for start, end in spans)
        used = sum(item.end - item.start for item in known)
        return min(1.0, used / (available * self.evaluators)) if available > 0 else 0.0


class _Reader:
    """Takes a ledger's events in their order."""

    def __init__(self, run: RecordedRun) -> None:
        self._run = run
        self._attempts: list[Attempt] = []
        self._generations: list[Generation] = []
        self._drivers: list[Span] = []
        self._pauses: list[Span] = []
        self._commands: list[Span] = []
        self._moments: list[Moment] = []
        self._asked: dict[str, tuple[float, int]] = {}
        self._ready: set[str] = set()
        self._resting: set[str] = set()
        self._best: float | None = None
        self._paused: float | None = None
        self._driver: tuple[float, Mapping[str, Any]] | None = None
        self._last = 0.0

    def take(self, event: Event) -> None:
        """Takes the next event."""
        record, now = event.record, event.time
        match event.kind:
            case EventKind.STARTED:
                self._end_driver("killed", self._last)
                launched = record.get("launched")
                self._driver = (now if launched is None else min(now, max(float(launched), self._last)), record)
            case EventKind.STOPPED:
                self._end_driver(record["reason"], now)
            case EventKind.GENERATED:
                self._ready.update(record["feasible"])
                self._generated(record, now)
            case EventKind.RESERVED:
                self._ready.discard(record["query_id"])
                self._resting.discard(record["query_id"])
                self._asked[record["query_id"]] = now, record["attempt"]
            case EventKind.ATTEMPTED | EventKind.SETTLED:
                self._ended(event.kind, record)
            case EventKind.CONTROLLED:
                self._controlled(record, now)
            case _:
                pass
        self._last = now
        if event.kind not in (EventKind.TOLD, EventKind.ASKED, EventKind.REMEMBERED, EventKind.FORGOTTEN):
            self._moments.append(Moment(now, len(self._asked), len(self._ready), self._best))

    def timeline(self) -> Timeline:
        """Returns what it has read."""
        self._end_driver("at work", self._last)
        attempts = _in_lanes(self._attempts)
        tracks = {item.track for item in attempts if item.status != "lost"}
        begin = min((item.start for item in [*self._drivers, *attempts, *self._generations]), default=self._last)
        evaluators = max(self._run.evaluators, 1)
        return Timeline(
            name=self._run.name,
            begin=begin,
            end=self._last,
            evaluators=max(evaluators, _most_at_once(attempts)) if len(tracks) > evaluators else evaluators,
            attempts=tuple(attempts),
            generations=tuple(_in_lanes(self._generations)),
            drivers=tuple(self._drivers),
            pauses=tuple(self._pauses),
            commands=tuple(self._commands),
            moments=tuple(self._moments),
            unit=self._run.unit,
        )

    def _generated(self, record: Mapping[str, Any], now: float) -> None:
        start = float(record.get("started") or now - record["seconds"])
        self._generations.append(
            Generation(
                record.get("worker") or GENERATOR,
                start,
                start + record["seconds"],
                record["proposal"],
                len(record["query_ids"]),
                tuple(record["feasible"]),
            )
        )

    def _ended(self, kind: EventKind, record: Mapping[str, Any]) -> None:
        query_id, timings, failure = record["query_id"], record["timings"], record["failure"]
        self._asked.pop(query_id, None)
        self._ready.discard(query_id)
        if kind is EventKind.ATTEMPTED:
            self._resting.add(query_id)
        value = record["value"]
        if value is not None and self._run.objective.is_better(value, self._best):
            self._best = value
        if timings is None or record["reused_from"] is not None:
            return
        self._attempts.append(
            Attempt(
                track=record["worker"] or "evaluator",
                start=timings["started"],
                end=max(timings["started"], timings["finished"]),
                query_id=query_id,
                attempt=record["attempt"],
                status=record["status"],
                repeated=kind is EventKind.ATTEMPTED,
                value=value,
                cost=float(record["cost"]),
                failure="" if failure is None else f"{failure['stage']}: {failure['message']}",
            )
        )

    def _controlled(self, record: Mapping[str, Any], now: float) -> None:
        words = f"{record['command']} {record.get('argument') or ''}".strip()
        if record.get("refused"):
            words += f" (refused: {record['refused']})"
        elif record["command"] == "pause":
            self._paused = self._paused or now
        elif record["command"] in ("resume", "drain"):
            self._end_pause(now)
        self._commands.append(Span(now, now, words))

    def _end_pause(self, now: float) -> None:
        if self._paused is not None:
            self._pauses.append(Span(self._paused, now, "paused"))
            self._paused = None

    def _end_driver(self, reason: str, when: float) -> None:
        if self._driver is None:
            return
        start, record = self._driver
        self._driver = None
        self._end_pause(when)
        details = {"host": record.get("host"), "pid": record.get("pid"), "ended": reason}
        self._drivers.append(Span(start, when, f"driver on {record.get('host', '?')}", details))
        for query_id, (since, attempt) in self._asked.items():
            if reason != "at work":
                self._attempts.append(Attempt(LOST, since, max(since, when), query_id, attempt, "lost"))
        if reason != "at work":
            self._ready.update(self._asked)
            self._asked.clear()


def _in_lanes(items: Iterable[Any]) -> list[Any]:
    """Puts what overlaps on one track into lanes of its own, so that no two on a track overlap."""
    from dataclasses import replace

    lanes: dict[str, list[tuple[float, int]]] = {}
    placed = []
    for item in sorted(items, key=lambda one: (one.start, one.end)):
        free = lanes.setdefault(item.track, [])
        if free and free[0][0] <= item.start:
            _, lane = heapq.heappop(free)
        else:
            lane = len(free)
        heapq.heappush(free, (item.end, lane))
        placed.append(item if lane == 0 else replace(item, track=f"{item.track} ({lane + 1})"))
    return sorted(placed, key=lambda one: (one.end, one.start))


def _most_at_once(attempts: Sequence[Attempt]) -> int:
    changes = [(item.start, 1) for item in attempts] + [(item.end, -1) for item in attempts]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def _in_order(tracks: Iterable[str]) -> list[str]:
    """Sorts names by the numbers in them, what was lost last."""
    import re

    def key(track: str) -> tuple[bool, list[tuple[int, int | str]]]:
        parts = re.split(r"(\d+)", track)
        return track.startswith(LOST), [(0, int(part)) if part.isdigit() else (1, part) for part in parts]

    return sorted(tracks, key=key)


__all__ = ["GENERATOR", "LOST", "Attempt", "Generation", "Moment", "Span", "Timeline", "proposal_of"]
