"""What a run is trained on: one data set, or the user's molecules with a stated share of real ones in every batch.

A model that is trained on samples of models loses its variety from generation to generation unless enough real
data is mixed in (Alemohammad et al., "Self-consuming generative models go MAD", 2023, arXiv 2307.01850). The
user's molecules may well be such samples, so fine-tuning mixes in the model's own data set unless told not to.

May import: numpy, the data sets beside it and :mod:`pilotwave.training`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pilotwave.backbones.molecule import dataset
from pilotwave.backbones.molecule.dataset import MoleculeDataset
from pilotwave.backbones.molecule.diversity import diversity
from pilotwave.training.card import DataSource
from pilotwave.training.order import mixed_order


@dataclass(frozen=True)
class TrainingSet:
    """The molecules of a run and how they are mixed.

    Attributes:
        molecules: Rows to train on: first those of the data that was asked for, then the real ones mixed in.
        own: How many are the first.
        real_share: At least this share of every batch are real ones mixed in.
        held_out: Never trained on, of the data that was asked for.
        real_held_out: The same of the real ones; None if none are mixed in.
        sources: What the model card says of the data.
        note: One line for the user if something looks wrong, else empty.
    """

    molecules: MoleculeDataset
    own: int
    real_share: float
    held_out: MoleculeDataset
    real_held_out: MoleculeDataset | None
    sources: tuple[DataSource, ...]
    note: str = ""

    def rows(self, step: int, batch_size: int, seed: int) -> NDArray[np.int64]:
        """Returns the rows of a step, shape (batch_size,); they follow from the seed and the step."""
        return mixed_order(step, batch_size, self.own, len(self.molecules) - self.own, self.real_share, seed)

    def atom_counts(self) -> tuple[float, ...]:
        """Returns how often each number of heavy atoms occurs in a batch; index = atoms, length slots + 1."""
        own, real = np.arange(self.own), np.arange(self.own, len(self.molecules))
        counts = np.array(dataset.atom_count_frequencies(self.molecules.select(own)))
        if self.real_share:
            mixed_in = np.array(dataset.atom_count_frequencies(self.molecules.select(real)))
            counts = (1 - self.real_share) * counts + self.real_share * mixed_in
        return tuple(float(value) for value in counts)

    def diversity(self, count: int, seed: int) -> dict[str, float]:
        """Returns the diversity of the first molecules as they are trained on; empty if there are too few."""
        rows = self.rows(0, min(count, len(self.molecules)), seed)
        return diversity([str(smiles) for smiles in self.molecules.smiles[rows]]) or {}


def split(data: MoleculeDataset) -> tuple[MoleculeDataset, MoleculeDataset]:
    """Splits into a training and a held-out part as all data sets are, but holds out one molecule at least.

    Of few molecules it happens that none is chosen by the hash of its SMILES; then the one of the smallest hash is.
    """
    training, held_out = dataset.split(data)
    if len(held_out):
        return training, held_out
    smallest = min(set(data.smiles.tolist()), key=lambda smiles: hashlib.sha256(smiles.encode()).digest())
    chosen = data.smiles == smallest
    return data.select(~chosen), data.select(chosen)


def plain(data: MoleculeDataset, source: DataSource) -> TrainingSet:
    """Returns one data set, with nothing mixed in; the numbers in its source are filled in here."""
    training, held_out = split(data)
    return TrainingSet(training, len(training), 0.0, held_out, None, (_counted(source, training, held_out),))


def mixed(
    own: MoleculeDataset, own_source: DataSource, real: MoleculeDataset, real_source: DataSource, real_share: float
) -> TrainingSet:
    """Returns the user's molecules with real ones mixed in.

    Args:
        own: The user's.
        own_source: What is known of them.
        real: The model's own data set.
        real_source: Where it is from.
        real_share: At least this share of every batch, above 0.
    """
    training, held_out = split(own)
    real_training, real_held_out = split(real)
    shares = f"{real_share:.0%} at least of every batch"
    return TrainingSet(
        molecules=dataset.concatenate([training, real_training]),
        own=len(training),
        real_share=real_share,
        held_out=held_out,
        real_held_out=real_held_out,
        sources=(
            _counted(own_source, training, held_out, "the rest of every batch"),
            _counted(real_source, real_training, real_held_out, f"real data, mixed in: {shares}"),
        ),
    )


def narrowness(own: Sequence[str], real: Sequence[str], limit: float, real_name: str) -> str:
    """Returns a warning if the user's molecules are themselves far less varied than real ones, else nothing.

    The collapse monitor compares samples with the data they are trained on, so it cannot see this.
    """
    ours, theirs = diversity(own), diversity(real)
    if ours is None or theirs is None or ours["tanimoto_distance"] >= limit * theirs["tanimoto_distance"]:
        return ""
    return (
        f"your molecules are little varied (mean Tanimoto distance {ours['tanimoto_distance']:.2f}, "
        f"{real_name} {theirs['tanimoto_distance']:.2f}); the model will be, too"
    )


def _counted(source: DataSource, training: MoleculeDataset, held_out: MoleculeDataset, *notes: str) -> DataSource:
    return DataSource(
        source.name, len(training), len(held_out), source.source, source.licence, (*source.notes, *notes)
    )


__all__ = ["TrainingSet", "mixed", "narrowness", "plain", "split"]
