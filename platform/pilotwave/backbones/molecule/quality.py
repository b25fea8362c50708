"""How good a molecule model is: strict and decoded validity, uniqueness, novelty, drug-likeness.

Validity here is chemistry, not only RDKit's consent: see `decoding`. Both figures are always reported: strict
(as sampled) and decoded (with hydrogen repair). Whether the bonds survive a quantum-chemical relaxation is
measured by ``benchmarks/models.py``; whether samples are like the data is asked of `distributions`.

May import: torch, the modules beside it and :mod:`pilotwave.backbones.unguided`; RDKit inside functions.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pilotwave.backbones.molecule.backbone import MoleculeBackbone
from pilotwave.backbones.molecule.distributions import accessibility, drug_likeness
from pilotwave.backbones.unguided import sample_unguided
from pilotwave.samples import Invalid, MoleculeSample, Sample
from pilotwave.training.proportions import in_percent
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

    @classmethod
    def of(cls, samples: Sequence[Sample | Invalid]) -> SampledMolecules:
        """Sorts what a backbone decoded."""
        return cls(
            tuple(sample for sample in samples if isinstance(sample, MoleculeSample)),
            tuple(sample.reason for sample in samples if isinstance(sample, Invalid)),
        )

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

    @property
    def smiles(self) -> list[str]:
        """Of the valid ones, in the order of their draws."""
        return [molecule.smiles for molecule in self.molecules]


@dataclass(frozen=True)
class MoleculeQuality:
    """The quality of a number of unguided draws, as ``pilotwave sample`` tells it.

    Attributes:
        drawn: All of them.
        strict: Valid as sampled.
        decoded: Valid with hydrogen repair.
        distinct: Different molecules among the valid ones.
        reasons: Why others are invalid, and how many each time.
        drug_likeness: Mean QED of the valid ones, or None if there are none.
        accessibility: Their mean synthetic accessibility, 1 (easy) to 10 (hard), or None.
    """

    drawn: int
    strict: int
    decoded: int
    distinct: int
    reasons: Mapping[str, int]
    drug_likeness: float | None
    accessibility: float | None

    def lines(self) -> list[str]:
        """Returns it in words."""
        lines = [
            f"strictly valid    {in_percent(self.strict, self.drawn)}",
            f"valid, decoded    {in_percent(self.decoded, self.drawn)}",
            f"distinct          {self.distinct} of {self.decoded} valid molecules",
        ]
        if self.drug_likeness is not None and self.accessibility is not None:
            lines.append(f"mean              QED {self.drug_likeness:.2f}, SA score {self.accessibility:.2f}")
        return lines + [f"{count:>6} invalid: {reason}" for reason, count in self.reasons.items()]


def measure_samples(samples: Sequence[Sample | Invalid]) -> MoleculeQuality:
    """Measures what any molecule model drew without guidance."""
    from rdkit import Chem

    sampled = SampledMolecules.of(samples)
    molecules = [Chem.MolFromSmiles(smiles) for smiles in sampled.smiles]
    return MoleculeQuality(
        drawn=sampled.count,
        strict=sampled.strict,
        decoded=sampled.decoded,
        distinct=len(set(sampled.smiles)),
        reasons=dict(collections.Counter(sampled.reasons).most_common()),
        drug_likeness=float(np.mean([drug_likeness(each) for each in molecules])) if molecules else None,
        accessibility=float(np.mean([accessibility(each) for each in molecules])) if molecules else None,
    )


def sample_molecules(backbone: MoleculeBackbone, seeds: Sequence[int], batch_size: int = 64) -> SampledMolecules:
    """Draws one unguided sample per seed and decodes it."""
    draws = [Draw(f"quality-{seed}", seed) for seed in seeds]
    batches = sample_unguided(backbone, draws, batch_size)
    return SampledMolecules.of([sample for batch in batches for sample in batch])


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
    "MoleculeQuality",
    "SampledMolecules",
    "count_validity",
    "measure_samples",
    "novelty",
    "sample_molecules",
    "uniqueness",
]
