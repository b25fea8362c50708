"""Samples that were made from what a campaign has learned, and what became of the draws behind them.

May import :mod:`pilotwave.types` and :mod:`pilotwave.samples`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilotwave.samples import MoleculeSample, Sample


@dataclass(frozen=True)
class GeneratedSample:
    """One sample; no oracle was asked about it.

    Attributes:
        index: Its place, from 0.
        seed: Of its draw.
        sample: Valid, vetoed by no constraint, and of no known identity.
        condition: What it was made under, e.g. the number of a class.
        predicted: The value that the algorithm's surrogate expects of the oracle, in its unit and sign; None if it
            has no surrogate, or expects nothing.
        properties: What constraints measured on it.
    """

    index: int
    seed: int
    sample: Sample
    condition: tuple[int, ...] = ()
    predicted: float | None = None
    properties: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """A short text of the sample, e.g. the SMILES."""
        return self.sample.label()

    def to_json(self) -> dict[str, Any]:
        """Returns it without the sample, for programs."""
        told: dict[str, Any] = {"index": self.index, "label": self.label, "seed": self.seed}
        told |= {
            "predicted": self.predicted,
            "condition": list(self.condition),
            "properties": dict(self.properties),
        }
        if isinstance(self.sample, MoleculeSample):
            told["strictly_valid"] = self.sample.strictly_valid
        return told


@dataclass(frozen=True)
class GeneratedSamples:
    """What was generated; a sequence of :class:`GeneratedSample`.

    Attributes:
        samples: In the order in which they were drawn.
        wanted: How many were asked for.
        drawn: How many were drawn for them.
        left_out: How many were not taken, by why: ``decode``, a constraint's name, ``repeat``, ``condition``.
        unit: Of predicted values.
        guided: Whether what was learned made a difference; if not, they are the model's own samples.
        notes: Lines that the user should see.
    """

    samples: tuple[GeneratedSample, ...]
    wanted: int
    drawn: int
    left_out: Mapping[str, int]
    unit: str
    guided: bool
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[GeneratedSample]:
        return iter(self.samples)

    def __len__(self) -> int:
        """Returns how many there are; fewer than wanted if the model hardly makes anything new."""
        return len(self.samples)

    def __getitem__(self, place: int) -> GeneratedSample:
        return self.samples[place]


__all__ = ["GeneratedSample", "GeneratedSamples"]
