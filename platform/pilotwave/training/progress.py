"""How a training run says how far it is. Imports only the standard library, so that a command line is fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilotwave.samples import Invalid, Sample


@dataclass(frozen=True)
class TrainingProgress:
    """One report of a running training.

    Attributes:
        seen: Training examples seen so far, repetitions counted.
        total: Training examples that will have been seen at the end.
        loss: Mean training loss since the last report.
        held_out_loss: Loss of the averaged weights on held-out data, when last measured, or None.
        per_second: Examples a second since the last report.
        seconds_left: Estimated from ``per_second``.
        quality: Further measures, by name.
        samples: The first draws of a measurement, none chosen; empty if this report measured none.
        note: One line for the user if something looks wrong, else empty.
    """

    seen: int
    total: int
    loss: float
    held_out_loss: float | None
    per_second: float
    seconds_left: float
    quality: Mapping[str, float] = field(default_factory=dict)
    samples: tuple[Sample | Invalid, ...] = ()
    note: str = ""

    @property
    def fraction(self) -> float:
        """How much is done, from 0 to 1."""
        return self.seen / self.total if self.total else 1.0


class TrainingWatcher:
    """What a trainer tells while it works, and asks; this one stays silent. A screen overrides what it shows.

    A trainer takes ``progress: Callable[[TrainingProgress], None]`` and turns it into a watcher with
    :func:`watcher_of`, so a plain function serves as well.
    """

    def __call__(self, progress: TrainingProgress) -> None:
        """Takes a report."""

    def announce(self, line: str, *, passing: bool = False) -> None:
        """Takes a line of text, such as how far the data is prepared.

        Args:
            line: Of text.
            passing: Whether it only matters until the next one.
        """

    def tick(self, seen: int, total: int, loss: float) -> None:
        """Takes the state after a step; called after every one, so it must be cheap."""

    def must_stop(self) -> bool:
        """Says whether the user wants the run to save and stop; asked after every step."""
        return False


class _Listener(TrainingWatcher):
    """A plain function as a watcher."""

    def __init__(self, listen: Callable[[TrainingProgress], None]) -> None:
        self._listen = listen

    def __call__(self, progress: TrainingProgress) -> None:
        self._listen(progress)


def watcher_of(progress: Callable[[TrainingProgress], None]) -> TrainingWatcher:
    """Returns a watcher as it is, and a plain function as one that only takes reports."""
    return progress if isinstance(progress, TrainingWatcher) else _Listener(progress)


__all__ = ["TrainingProgress", "TrainingWatcher", "watcher_of"]
