"""A timeline in the trace-event format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

A process each for drivers, generators and evaluators, with a thread per track; slices for what lasted, arrows from
the generation of a candidate to its evaluation and from an attempt to its repetition, counters for what waits.
Times are microseconds since the first driver was launched. The format is described in "Trace Event Format" of the
Chromium project. May import :mod:`pilotwave.report`.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from pilotwave.errors import StorageError
from pilotwave.report.log_lines import proposal_of, rfc3339
from pilotwave.report.timeline import Attempt, Moment, Timeline

MOST_COUNTS = 20_000
"""A counter of a long run has so many points; in between the last one of each stretch is taken."""
_DRIVERS, _GENERATORS, _EVALUATORS, _COUNTERS = 1, 2, 3, 4
_COLOURS = {
    "ok": "thread_state_running",
    "failed": "terrible",
    "timed_out": "bad",
    "infeasible": "grey",
    "cancelled": "grey",
    "lost": "black",
}
"""Names that chrome://tracing knows; Perfetto chooses by the name of the slice."""

TraceEvent = dict[str, Any]


def trace_events(timeline: Timeline) -> Iterator[TraceEvent]:
    """Yields the events of a trace, the names of processes and threads first."""
    generators = {track: number for number, track in enumerate(timeline.generator_tracks(), 1)}
    evaluators = {track: number for number, track in enumerate(timeline.evaluator_tracks(), 1)}
    yield from _names(_DRIVERS, "drivers", {"driver": 1, "commands": 2})
    yield from _names(_GENERATORS, "generators", generators)
    yield from _names(_EVALUATORS, "evaluators", evaluators)
    yield from _names(_COUNTERS, "queue", {})
    yield from _drivers(timeline)
    yield from _generations(timeline, generators)
    yield from _attempts(timeline, evaluators)
    yield from _arrows(timeline, generators, evaluators)
    yield from _counters(timeline)


def write_trace(timeline: Timeline, path: Path) -> int:
    """Writes a trace; one that ends in ``.gz`` is compressed, which Perfetto opens as well.

    Returns:
        How many events it has.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".gz":
            with gzip.open(path, "wt", encoding="utf-8", compresslevel=5) as file:
                return _write(timeline, file)
        with path.open("w", encoding="utf-8") as file:
            return _write(timeline, file)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}; choose another file") from error


def _write(timeline: Timeline, file: IO[str]) -> int:
    about = {"campaign": timeline.name, "begin": rfc3339(timeline.begin), "unit": timeline.unit}
    file.write(f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(about)}, "traceEvents": [\n')
    count = 0
    for event in trace_events(timeline):
        file.write(f"{',' if count else ' '}{json.dumps(event, ensure_ascii=False)}\n")
        count += 1
    file.write("]}\n")
    return count


def _names(process: int, name: str, threads: dict[str, int]) -> Iterator[TraceEvent]:
    same = {"ph": "M", "pid": process, "ts": 0}
    yield {**same, "name": "process_name", "tid": 0, "args": {"name": name}}
    yield {**same, "name": "process_sort_index", "tid": 0, "args": {"sort_index": process}}
    for thread, number in threads.items():
        yield {**same, "name": "thread_name", "tid": number, "args": {"name": thread}}
        yield {**same, "name": "thread_sort_index", "tid": number, "args": {"sort_index": number}}


def _drivers(timeline: Timeline) -> Iterator[TraceEvent]:
    asked = sorted(item.start for item in timeline.attempts)
    for driver in timeline.drivers:
        yield _slice(timeline, driver.name, "driver", driver.start, driver.end, _DRIVERS, 1, dict(driver.details))
        first = next((start for start in asked if driver.start <= start <= driver.end), None)
        if first is not None:
            yield _slice(timeline, "starting", "phase", driver.start, first, _DRIVERS, 1, {})
        ended = driver.details.get("ended")
        if ended not in (None, "at work"):
            yield _instant(timeline, f"driver ended: {ended}", driver.end, 1)
    for pause in timeline.pauses:
        yield _slice(timeline, pause.name, "phase", pause.start, pause.end, _DRIVERS, 2, {})
    for command in timeline.commands:
        yield _instant(timeline, command.name, command.start, 2)


def _generations(timeline: Timeline, threads: dict[str, int]) -> Iterator[TraceEvent]:
    for item in timeline.generations:
        details = {"proposal": item.proposal, "made": item.made, "feasible": len(item.feasible)}
        thread = threads[item.track]
        name = f"proposal {item.proposal}"
        yield _slice(timeline, name, "generation", item.start, item.end, _GENERATORS, thread, details)


def _attempts(timeline: Timeline, threads: dict[str, int]) -> Iterator[TraceEvent]:
    for item in timeline.attempts:
        details: dict[str, Any] = {
            "query": item.query_id,
            "proposal": proposal_of(item.query_id),
            "attempt": item.attempt,
            "status": item.status,
            "value": item.value,
            "unit": timeline.unit or None,
            "cost": item.cost,
            "failure": item.failure or None,
            "tried again": item.repeated or None,
        }
        details = {name: value for name, value in details.items() if value is not None}
        name = item.query_id if item.status == "ok" else f"{item.query_id} {item.status.replace('_', ' ')}"
        event = _slice(timeline, name, item.status, item.start, item.end, _EVALUATORS, threads[item.track], details)
        yield {**event, "cname": _COLOURS.get(item.status, "generic_work")}


def _arrows(timeline: Timeline, generators: dict[str, int], evaluators: dict[str, int]) -> Iterator[TraceEvent]:
    """From a generation to each first attempt, from each attempt to the next one at the same question."""
    made = {query_id: item for item in timeline.generations for query_id in item.feasible}
    earlier: dict[str, Attempt] = {}
    numbers = itertools.count(1)
    for item in sorted(timeline.attempts, key=lambda one: one.start):
        before = earlier.get(item.query_id)
        earlier[item.query_id] = item
        if before is not None:
            source = before.end, _EVALUATORS, evaluators[before.track]
        elif item.query_id in made:
            generation = made[item.query_id]
            source = generation.end, _GENERATORS, generators[generation.track]
        else:
            continue
        moment, process, thread = source
        # An arrow belongs to the slice in which it begins: a moment before its end, and never after it arrives.
        leaves = min(_microseconds(timeline, moment) - 1.0, _microseconds(timeline, item.start))
        same = {
            "name": "candidate" if before is None else "tried again",
            "cat": "flow",
            "id": next(numbers),
        }
        yield {**same, "ph": "s", "ts": max(0.0, leaves), "pid": process, "tid": thread}
        arrives = _microseconds(timeline, item.start)
        yield {**same, "ph": "f", "bp": "e", "ts": arrives, "pid": _EVALUATORS, "tid": evaluators[item.track]}


def _counters(timeline: Timeline) -> Iterator[TraceEvent]:
    for moment in _thinned(timeline.moments):
        same = {"ph": "C", "pid": _COUNTERS, "tid": 0, "ts": _microseconds(timeline, moment.time)}
        yield {**same, "name": "in flight", "args": {"questions": moment.in_flight}}
        yield {**same, "name": "ready", "args": {"candidates": moment.ready}}
        if moment.best is not None:
            yield {**same, "name": "best", "args": {"value": moment.best}}


def _thinned(moments: Sequence[Moment]) -> Sequence[Moment]:
    step = max(1, -(-len(moments) // MOST_COUNTS))
    return moments if step == 1 else [*moments[step - 1 :: step], *moments[-1:]]


def _slice(
    timeline: Timeline,
    name: str,
    category: str,
    start: float,
    end: float,
    process: int,
    thread: int,
    details: dict[str, Any],
) -> TraceEvent:
    begins = _microseconds(timeline, start)
    lasts = max(0.0, round((end - start) * 1e6, 3))
    kept = {key: value for key, value in details.items() if value is not None}
    same = {"name": name, "cat": category, "ph": "X", "ts": begins, "dur": lasts}
    return {**same, "pid": process, "tid": thread, "args": kept}


def _instant(timeline: Timeline, name: str, when: float, thread: int) -> TraceEvent:
    ts = _microseconds(timeline, when)
    return {"name": name, "cat": "driver", "ph": "i", "s": "p", "ts": ts, "pid": _DRIVERS, "tid": thread}


def _microseconds(timeline: Timeline, moment: float) -> float:
    return max(0.0, round((moment - timeline.begin) * 1e6, 3))


__all__ = ["trace_events", "write_trace"]
