"""How a training run says how far it is. Imports only the standard library, so that a command line is fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
    """

    seen: int
    total: int
    loss: float
    held_out_loss: float | None
    per_second: float
    seconds_left: float
    quality: Mapping[str, float] = field(default_factory=dict)

    @property
    def fraction(self) -> float:
        """How much is done, from 0 to 1."""
        return self.seen / self.total if self.total else 1.0


__all__ = ["TrainingProgress"]
