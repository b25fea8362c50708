"""What the tracked metrics of a run would be without some of its records: a pure function of its events.

A driver logs after each batch; the rows of one moment share their step and time. How many answers were in by then
is one of the rows, so each moment is found exactly, and only values that the records took part in change. May
import :mod:`pilotwave.archive`, :mod:`pilotwave.execution.accounting` and :mod:`pilotwave.tracking`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from pilotwave.archive.ledger import Event, EventKind
from pilotwave.execution.accounting import Interval
from pilotwave.tracking.mlflow_forgetting import MetricChange, MetricRow
from pilotwave.types import Evaluation, Status

Loss = Callable[[float], float]


@dataclass
class _History:
    """The events of a run in the order in which the metrics count them."""

    gone: Collection[str]
    valued: list[tuple[str, float, int]] = field(default_factory=list)
    failed: list[tuple[str, int]] = field(default_factory=list)
    infeasible: list[str] = field(default_factory=list)
    reused: list[tuple[str, float]] = field(default_factory=list)
    batches: list[tuple[str, ...]] = field(default_factory=list)
    value_of: dict[str, float] = field(default_factory=dict)
    work: list[tuple[int, str, Interval]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, events: Sequence[Event], gone: Collection[str]) -> _History:
        history = cls(gone)
        for event in events:
            history._take(event)
        return history

    def _take(self, event: Event) -> None:
        if event.kind is EventKind.STARTED:
            self.starts.append(event.sequence)
        elif event.kind is EventKind.GENERATED:
            feasible = event.record["feasible"]
            self.batches.append(tuple(feasible))
            asked = set(feasible)
            self.infeasible += [name for name in event.record["query_ids"] if name not in asked]
        elif event.kind in (EventKind.ATTEMPTED, EventKind.SETTLED):
            self._ended(event.evaluation(), event)

    def _ended(self, evaluation: Evaluation, event: Event) -> None:
        name = evaluation.query_id
        if evaluation.timings is not None:
            interval = (evaluation.timings.started, evaluation.timings.finished)
            self.work.append((event.sequence, name, interval))
        if event.kind is not EventKind.SETTLED:
            return
        if evaluation.reused_from is not None:
            self.reused.append((name, event.record.get("saved_cost", 0.0)))
        if evaluation.value is not None:
            self.valued.append((name, evaluation.value, event.sequence))
            self.value_of[name] = evaluation.value
        elif evaluation.status in (Status.FAILED, Status.TIMED_OUT):
            self.failed.append((name, event.sequence))


def changes_without(
    rows: Sequence[MetricRow], events: Sequence[Event], gone: Collection[str], loss: Loss
) -> list[MetricChange]:
    """Returns which logged values change, and to what, when records are forgotten.

    Args:
        rows: What was logged.
        events: Of the whole ledger, before anything is taken out.
        gone: The query ids that go.
        loss: Of a value, to be minimised.
    """
    history = _History.of(events, gone)
    changes: list[MetricChange] = []
    for (step, timestamp), group in groupby(sorted(rows, key=_moment), key=_moment):
        logged = {row.key: row.value for row in group}
        for key, value in _corrected(logged, history, loss).items():
            if key in logged and value != logged[key]:
                changes.append(MetricChange(key, step, timestamp, value))
    return changes


def _moment(row: MetricRow) -> tuple[int, int]:
    return row.step, row.timestamp


def _corrected(logged: Mapping[str, float], history: _History, loss: Loss) -> dict[str, float | None]:
    """The values of one moment that the records took part in, without them."""
    if "answered" not in logged:
        return {}
    valued = history.valued[: round(logged["answered"])]
    failed = history.failed[: round(logged.get("failed", 0))]
    infeasible = history.infeasible[: round(logged.get("infeasible", 0))]
    counts = {
        "answered": sum(name not in history.gone for name, _, _ in valued),
        "failed": sum(name not in history.gone for name, _ in failed),
        "infeasible": sum(name not in history.gone for name in infeasible),
    }
    found: dict[str, float | None] = {key: float(count) for key, count in counts.items() if key in logged}
    if "reused" in logged:
        reused = history.reused[: round(logged["reused"])]
        kept = [cost for name, cost in reused if name not in history.gone]
        if len(kept) < len(reused):
            found |= {"reused": float(len(kept)), "saved_cost": sum(kept)}
    if "best" in logged:
        found["best"] = _best(logged["best"], [(name, value) for name, value, _ in valued], history.gone, loss)
    found |= _of_batch(logged, history, {name for name, _, _ in valued}, loss)
    if "evaluator_utilisation" in logged:
        until = max([sequence for _, _, sequence in valued] + [sequence for _, sequence in failed], default=0)
        found["evaluator_utilisation"] = _utilisation(logged["evaluator_utilisation"], history, until)
    return found


def _best(logged: float, valued: Sequence[tuple[str, float]], gone: Collection[str], loss: Loss) -> float | None:
    holders = {name for name, value in valued if value == logged}
    if not holders & set(gone) or holders - set(gone):
        return logged
    left = [value for name, value in valued if name not in gone]
    return min(left, key=loss) if left else None


def _of_batch(
    logged: Mapping[str, float], history: _History, answered: set[str], loss: Loss
) -> dict[str, float | None]:
    """The batch's own values; which batch it was is told by them, the last one if several look alike."""
    keys = [key for key in ("batch_mean", "batch_best", "batch_standard_deviation") if key in logged]
    for batch in reversed(history.batches):
        known = [name for name in batch if name in history.value_of]
        if not known or not answered >= set(known):
            continue
        if any(_batch_values(known, history, loss)[key] != logged[key] for key in keys):
            continue
        left = [name for name in known if name not in history.gone]
        values = _batch_values(left, history, loss) if left else {}
        return {key: values.get(key) for key in keys}
    return {}


def _batch_values(names: Sequence[str], history: _History, loss: Loss) -> dict[str, float]:
    values = [history.value_of[name] for name in names]
    return {
        "batch_mean": statistics.fmean(values),
        "batch_best": min(values, key=loss),
        "batch_standard_deviation": statistics.pstdev(values),
    }


def _utilisation(logged: float, history: _History, until: int) -> float:
    """The share of the workers' time in use since the driver's start, in proportion to what is left of it."""
    since = max((sequence for sequence in history.starts if sequence <= until), default=0)
    work = [(name, interval) for sequence, name, interval in history.work if since < sequence <= until]
    kept = [interval for name, interval in work if name not in history.gone]
    if len(kept) == len(work):
        return logged
    before, after = _density([interval for _, interval in work]), _density(kept)
    return min(1.0, logged * after / before) if before > 0 else logged


def _density(intervals: list[Interval]) -> float:
    """How many workers were busy on average between the first and the last moment of work."""
    if not intervals:
        return 0.0
    span = max(end for _, end in intervals) - min(start for start, _ in intervals)
    used = sum(end - start for start, end in intervals)
    return used / span if span > 0 else 0.0


__all__ = ["changes_without"]
