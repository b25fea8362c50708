"""How good a molecule model is: strict and decoded validity, uniqueness, novelty.

Validity here is chemistry, not only RDKit's consent: see `decoding`. Both figures are always reported: strict
(as sampled) and decoded (with hydrogen repair). Whether the bonds survive a quantum-chemical relaxation is
measured in ``benchmarks/molecule_quality.py``.

May import: torch and the modules beside it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from pilotwave.backbones.molecule.backbone import MoleculeBackbone
from pilotwave.samples import Invalid, MoleculeSample
from pilotwave.types import Draw


@dataclass(frozen=True)
class SampledMolecules:
    """What a number of draws decoded to.

    Attributes:
        molecules: The valid ones, in the order of their draws.
        reasons: Why each of the others is invalid.
    """

    molecules: tuple[MoleculeSample, ...]
    reasons: tuple[str, ...]

    @property
    def count(self) -> int:
        """All draws, valid or not."""
        return len(self.molecules) + len(self.reasons)

    @property
    def decoded(self) -> int:
        """Valid with hydrogen repair."""
        return len(self.molecules)

    @property
    def strict(self) -> int:
        """Valid as sampled."""
        return sum(molecule.strictly_valid for molecule in self.molecules)


def sample_molecules(backbone: MoleculeBackbone, seeds: Sequence[int], batch_size: int = 64) -> SampledMolecules:
    """Draws one unguided sample per seed and decodes it."""
    molecules, reasons = [], []
    for start in range(0, len(seeds), batch_size):
        draws = [Draw(f"quality-{seed}", seed) for seed in seeds[start : start + batch_size]]
        conditions = backbone.draw_conditions(draws)
        latents = backbone.sample(backbone.draw_noise(draws), conditions)
        for sample in backbone.decode(latents, conditions):
            if isinstance(sample, Invalid):
                reasons.append(sample.reason)
            elif isinstance(sample, MoleculeSample):
                molecules.append(sample)
    return SampledMolecules(tuple(molecules), tuple(reasons))


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Returns the Wilson score interval of a proportion; z = 1.96 is 95% confidence."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def uniqueness(smiles: Sequence[str]) -> float:
    """Distinct molecules over molecules; falls with the number of samples, so state it beside."""
    return len(set(smiles)) / max(len(smiles), 1)


def novelty(smiles: Sequence[str], known: Collection[str]) -> float:
    """Share of the distinct molecules that are not among the known ones."""
    distinct = set(smiles)
    return len(distinct.difference(known)) / max(len(distinct), 1)


def count_validity(backbone: MoleculeBackbone, seeds: Sequence[int]) -> torch.Tensor:
    """Returns (strictly valid, decoded, drawn) as float64, so that processes can add theirs up."""
    sampled = sample_molecules(backbone, seeds)
    return torch.tensor([sampled.strict, sampled.decoded, sampled.count], dtype=torch.float64)


__all__ = [
    "SampledMolecules",
    "count_validity",
    "novelty",
    "sample_molecules",
    "uniqueness",
    "wilson_interval",
]
