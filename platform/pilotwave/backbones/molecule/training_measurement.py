"""What a training run measures now and then: fresh samples of the averaged weights, counted and compared.

May import torch, the modules beside it, :mod:`pilotwave.backbones.unguided` and :mod:`pilotwave.training`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import distributed

from pilotwave.backbones.molecule.backbone import MoleculeBackbone
from pilotwave.backbones.molecule.diversity import diversity
from pilotwave.backbones.molecule.quality import novelty, uniqueness
from pilotwave.backbones.unguided import sample_unguided
from pilotwave.samples import Invalid, MoleculeSample, Sample
from pilotwave.training.card import Measured
from pilotwave.training.proportions import wilson_interval
from pilotwave.types import Draw

SHOWN = 24
"""Samples that are shown and written down at each measurement."""


@dataclass(frozen=True)
class Measurement:
    """Fresh samples and what they show.

    Attributes:
        samples: One per draw, in order.
        novel: Share of the distinct molecules that are not in the training data; 0 if there are none.
        how: How they were drawn, e.g. ``"50 steps"``.
    """

    samples: tuple[Sample | Invalid, ...]
    novel: float
    how: str

    @property
    def molecules(self) -> list[MoleculeSample]:
        """The valid ones."""
        return [sample for sample in self.samples if isinstance(sample, MoleculeSample)]

    @property
    def smiles(self) -> list[str]:
        """Of the valid ones."""
        return [molecule.smiles for molecule in self.molecules]

    @property
    def strict(self) -> int:
        """How many are valid as sampled."""
        return sum(molecule.strictly_valid for molecule in self.molecules)

    def diversity(self) -> dict[str, float] | None:
        """Returns their variety, or None if too few are valid to tell."""
        return diversity(self.smiles)

    def quality(self) -> dict[str, float]:
        """Returns the figures of a report; those of valid molecules only if there are any."""
        drawn, valid = len(self.samples), len(self.molecules)
        figures = {"strict_validity": self.strict / drawn, "decoded_validity": valid / drawn}
        if valid:
            figures |= {"uniqueness": uniqueness(self.smiles), "novelty": self.novel}
        varied = self.diversity()
        return figures if varied is None else figures | {"tanimoto_distance": varied["tanimoto_distance"]}

    def measured(self) -> list[Measured]:
        """Returns the figures of a model card, shares with their Wilson intervals."""
        drawn, valid, distinct = len(self.samples), len(self.molecules), len(set(self.smiles))
        draws = f"{drawn:,} unguided draws of {self.how}"
        rows = [
            _share("strictly valid (neutral, one fragment, valences exact as sampled)", self.strict, drawn, draws),
            _share("decoded (the same after repairing hydrogens)", valid, drawn, draws),
        ]
        if valid:
            of_distinct = f"{distinct:,} distinct molecules"
            novel = round(self.novel * distinct)
            rows.append(_share("distinct", distinct, valid, f"{valid:,} valid molecules"))
            rows.append(_share("not in the training data", novel, distinct, of_distinct))
        varied = self.diversity()
        if varied is not None:
            distance = varied["tanimoto_distance"]
            rows.append(Measured("mean pairwise Tanimoto distance", distance, None, f"{valid:,} valid molecules"))
        return rows


def measure(
    backbone: MoleculeBackbone, seeds: range, known: Collection[str], rank: int = 0, world: int = 1
) -> Measurement:
    """Draws one sample per seed and looks at them; of several processes each draws its share, and all get all.

    Args:
        backbone: With the weights to measure.
        seeds: Of the draws.
        known: SMILES of the training data.
        rank: Of this process.
        world: How many processes there are.
    """
    share = -(-len(seeds) // world)
    mine = seeds[rank * share : (rank + 1) * share]
    draws = [Draw(f"quality-{seed}", seed) for seed in mine]
    samples = [sample for batch in sample_unguided(backbone, draws) for sample in batch]
    if world > 1:
        parts: list[list[Sample | Invalid]] = [[] for _ in range(world)]
        distributed.all_gather_object(parts, samples)
        samples = [sample for part in parts for sample in part]
    return Measurement(tuple(samples), novelty(_smiles(samples), known), f"{backbone.steps} steps")


def _smiles(samples: Sequence[Sample | Invalid]) -> list[str]:
    return [sample.smiles for sample in samples if isinstance(sample, MoleculeSample)]


def _share(name: str, successes: int, trials: int, of: str) -> Measured:
    return Measured(name, successes / max(trials, 1), wilson_interval(successes, trials), of)


__all__ = ["SHOWN", "Measurement", "measure"]
