"""Notices when a model's samples lose their variety, and stops the training before it is lost for good.

A generative model that is trained on samples of generative models, its own above all, loses diversity or
quality from generation to generation unless enough fresh real data is mixed in: Alemohammad et al.,
"Self-consuming generative models go MAD", 2023, arXiv 2307.01850. The loss does not show it: it is small on data
that is itself narrow. So fresh samples are compared with the data. May import numpy and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotwave.errors import BreakerError

MEASUREMENTS = 2
"""So many measurements running must be low: one may be an accident of few samples."""


class CollapseError(BreakerError):
    """The training was stopped because its samples collapsed; the message names the last good weights."""


@dataclass(frozen=True)
class DiversityVerdict:
    """What a measurement showed.

    Attributes:
        shares: Each measure's diversity of the samples over that of the data.
        lowest: Name of the smallest of them; empty if nothing could be measured.
        low: Whether it is below the limit although the monitor is armed.
        text: One line, e.g. ``"tanimoto distance 0.21 against 0.90 of the data"``.
    """

    shares: Mapping[str, float]
    lowest: str
    low: bool
    text: str


class CollapseMonitor:
    """Compares the diversity of fresh samples with that of the data, measurement by measurement.

    Args:
        data: Diversity of the data by name, each larger for more variety, measured on about as many examples as
            the samples will be. Measures that are zero for the data are left out.
        limit: Share of the data's diversity that samples must keep; 0 switches the monitor off.
        armed: Whether the model should be varied already. A new model is not: its monitor waits for a first
            measurement that is not low, since what was never there cannot be lost.
    """

    def __init__(self, data: Mapping[str, float], limit: float, armed: bool = True) -> None:
        if not 0.0 <= limit <= 1.0:
            raise ValueError(f"expected a limit from 0 to 1, got {limit}")
        self.data = {name: float(value) for name, value in data.items() if value > 0}
        self.limit = limit
        self.armed = armed
        self.low_running = 0

    def observe(self, samples: Mapping[str, float] | None) -> DiversityVerdict:
        """Judges a measurement.

        Args:
            samples: Diversity by the same names; None if there were too few samples to tell, which neither
                counts as low nor as good.
        """
        if samples is None or not self.data:
            return DiversityVerdict({}, "", False, "")
        shares = {name: samples[name] / value for name, value in self.data.items()}
        lowest = min(shares, key=lambda name: shares[name])
        below = shares[lowest] < self.limit
        self.armed = self.armed or not below
        low = below and self.armed
        self.low_running = self.low_running + 1 if low else 0
        text = f"{lowest.replace('_', ' ')} {samples[lowest]:.2f} against {self.data[lowest]:.2f} of the data"
        return DiversityVerdict(shares, lowest, low, text)

    def state(self) -> dict[str, int]:
        """Returns what was seen so far, for a checkpoint."""
        return {"low_running": self.low_running, "armed": int(self.armed)}

    def restore(self, state: Mapping[str, int]) -> None:
        """Takes what :meth:`state` returned."""
        self.low_running, self.armed = int(state["low_running"]), bool(state["armed"])

    @property
    def collapsed(self) -> bool:
        """Whether enough measurements running were low."""
        return self.low_running >= MEASUREMENTS

    def error(self, verdict: DiversityVerdict, good_weights: str | None, remedy: str) -> CollapseError:
        """Returns what to raise when :attr:`collapsed`.

        Args:
            verdict: The last one.
            good_weights: Names those of the last measurement that was not low, or None if there was none.
            remedy: What to do about it, e.g. ``"raise real_share"``.
        """
        kept = f"the last good weights are {good_weights}" if good_weights else "no good weights were written yet"
        return CollapseError(
            f"the samples collapsed: {verdict.text}, below {self.limit:g} of it on {self.low_running} measurements "
            f"running; {kept}; {remedy}"
        )


def mean_pairwise_distance(vectors: npt.NDArray[Any]) -> float:
    """Returns the mean root-mean-square difference over all pairs; 0 for fewer than two.

    Args:
        vectors: Shape (count, ...), e.g. pictures; each is flattened.
    """
    count = len(vectors)
    if count < 2:
        return 0.0
    flat = np.asarray(vectors, dtype=np.float64).reshape(count, -1)
    total = 0.0
    for row in range(count - 1):
        total += float(np.sqrt(np.square(flat[row + 1 :] - flat[row]).mean(axis=1)).sum())
    return total / (count * (count - 1) / 2)


__all__ = ["MEASUREMENTS", "CollapseError", "CollapseMonitor", "DiversityVerdict", "mean_pairwise_distance"]
