"""The curve of a training run and what it cost: kept in the checkpoint, so that a resumed run has all of it.

May import the standard library and the progress reports beside it.
"""

from __future__ import annotations

import math
import time as clock
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pilotwave.training.progress import TrainingProgress

ROWS_IN_A_TABLE = 24


@dataclass(frozen=True)
class HistoryPoint:
    """One report of the past.

    Attributes:
        seen: Training examples seen, repetitions counted.
        loss: Mean training loss since the point before.
        held_out_loss: Of the averaged weights, or None if it was not measured.
        quality: Further measures by name; empty where only the losses were reported.
    """

    seen: int
    loss: float
    held_out_loss: float | None
    quality: Mapping[str, float] = field(default_factory=dict)


class TrainingHistory:
    """All reports of a run, in order.

    Args:
        state: What :meth:`state` returned before, or nothing for a new run.
    """

    def __init__(self, state: Iterable[Mapping[str, Any]] = ()) -> None:
        self.points: list[HistoryPoint] = [HistoryPoint(**point) for point in state]

    def add(self, progress: TrainingProgress) -> None:
        """Adds a report; it replaces one of the same place, and keeps its loss if it has none of its own."""
        quality = {name: float(value) for name, value in progress.quality.items()}
        loss = progress.loss
        if self.points and self.points[-1].seen == progress.seen:
            before = self.points.pop()
            loss = before.loss if math.isnan(loss) else loss
        self.points.append(HistoryPoint(progress.seen, loss, progress.held_out_loss, quality))

    def state(self) -> list[dict[str, Any]]:
        """Returns plain values, for a checkpoint."""
        return [asdict(point) for point in self.points]

    def table(self, examples: str, rows: int = ROWS_IN_A_TABLE) -> list[str]:
        """Returns a Markdown table of losses and measures against examples seen.

        Args:
            examples: What was seen, e.g. ``"molecules"``.
            rows: At most so many (two at least); measured points go first, the last one is always there.
        """
        points = _thinned(self.points, rows)
        names = list(dict.fromkeys(name for point in points for name in point.quality))
        heads = [f"{examples} seen", "loss", "held-out loss", *(name.replace("_", " ") for name in names)]
        lines = [_row(heads), "|" + "---|" * len(heads)]
        for point in points:
            held_out = "" if point.held_out_loss is None else f"{point.held_out_loss:.4f}"
            measures = [f"{point.quality[name]:.3f}" if name in point.quality else "" for name in names]
            lines.append(_row([f"{point.seen:,}", f"{point.loss:.4f}", held_out, *measures]))
        return lines


@dataclass
class _Part:
    where: str
    seconds: float = 0.0
    processor_seconds: float = 0.0


class ComputeLog:
    """Where a run was trained and for how long, summed over the parts it was resumed in.

    Args:
        state: What :meth:`state` returned before, or nothing for a new run.
    """

    def __init__(self, state: Iterable[Mapping[str, Any]] = ()) -> None:
        self._parts = [_Part(**part) for part in state]
        self._running: _Part | None = None
        self._looked = (0.0, 0.0)

    def begin(self, where: str) -> None:
        """Starts the clock of this process.

        Args:
            where: Device and threads, see :func:`pilotwave.training.device.describe_device`.
        """
        known = [part for part in self._parts if part.where == where]
        self._running = known[0] if known else _Part(where)
        if not known:
            self._parts.append(self._running)
        self._looked = (clock.monotonic(), clock.process_time())

    def state(self) -> list[dict[str, Any]]:
        """Returns plain values up to now, for a checkpoint."""
        if self._running is not None:
            now = (clock.monotonic(), clock.process_time())
            self._running.seconds += now[0] - self._looked[0]
            self._running.processor_seconds += now[1] - self._looked[1]
            self._looked = now
        return [asdict(part) for part in self._parts]

    def lines(self) -> list[str]:
        """Returns one line per machine, and what the parts make together."""
        parts = self.state()
        lines = [
            f"{part['where']}: {_hours(part['seconds'])} on the clock, "
            f"{_hours(part['processor_seconds'])} of processor time in the first process"
            for part in parts
        ]
        if len(parts) > 1:
            lines.append(f"together {_hours(sum(part['seconds'] for part in parts))} on the clock")
        return lines


def _thinned(points: Sequence[HistoryPoint], rows: int) -> list[HistoryPoint]:
    """Keeps the measured points, then as many of the others as fit, evenly; never loses the last."""
    if len(points) <= rows:
        return list(points)
    measured = [index for index, point in enumerate(points) if point.quality]
    others = [index for index, point in enumerate(points) if not point.quality]
    room = max(rows - 1 - len(measured), 0)
    kept = {*_evenly(measured, rows - 1), *_evenly(others, room), len(points) - 1}
    return [points[index] for index in sorted(kept)]


def _evenly(items: Sequence[int], count: int) -> list[int]:
    if len(items) <= count:
        return list(items)
    return [items[number * len(items) // count] for number in range(count)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 360 else f"{seconds / 60:.1f} min"


__all__ = ["ComputeLog", "HistoryPoint", "TrainingHistory"]
