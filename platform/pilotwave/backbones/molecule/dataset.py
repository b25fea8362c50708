"""Molecules as padded arrays: what every data set of the molecule models is turned into, once, and cached.

May import: numpy and `representation`; platformdirs inside a function.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotwave.backbones.molecule.representation import EncodedMolecule
from pilotwave.storage import write_atomically

HELD_OUT_PERCENT = 5


@dataclass(frozen=True)
class MoleculeDataset:
    """Padded arrays, one row per molecule.

    Attributes:
        positions: Å, centred, shape (molecules, slots, 3), zero in padding.
        classes: shape (molecules, slots), -1 in padding.
        bonds: bond labels, shape (molecules, slots, slots).
        atoms: heavy atoms of each molecule, shape (molecules,).
        smiles: canonical SMILES without stereo marks.
    """

    positions: NDArray[np.float32]
    classes: NDArray[np.int8]
    bonds: NDArray[np.int8]
    atoms: NDArray[np.int8]
    smiles: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.atoms)

    def select(self, rows: NDArray[Any]) -> MoleculeDataset:
        """Returns the rows a mask or an index array names."""
        return MoleculeDataset(
            self.positions[rows], self.classes[rows], self.bonds[rows], self.atoms[rows], self.smiles[rows]
        )


def is_held_out(smiles: str) -> bool:
    """Says whether a molecule is held out: decided by its SMILES, so that stereoisomers stay together."""
    digest = hashlib.sha256(smiles.encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT


def cache_folder(directory: Path | None = None) -> Path:
    """Returns where prepared data lies: in the directory, or in the user's cache."""
    if directory is None:
        import platformdirs

        directory = Path(platformdirs.user_cache_dir("pilotwave"))
    return directory


def load_prepared(path: Path) -> MoleculeDataset:
    """Reads what :func:`save` wrote."""
    with np.load(path) as arrays:
        return MoleculeDataset(**{name: arrays[name] for name in MoleculeDataset.__dataclass_fields__})


def concatenate(parts: Sequence[MoleculeDataset]) -> MoleculeDataset:
    """Joins data sets of the same number of slots."""
    return MoleculeDataset(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    )


def save(dataset: MoleculeDataset, path: Path) -> None:
    """Writes prepared data, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vars(dataset))
    write_atomically(path, buffer.getvalue())


def split(dataset: MoleculeDataset) -> tuple[MoleculeDataset, MoleculeDataset]:
    """Splits into the training part and the held-out part."""
    held_out = np.array([is_held_out(str(smiles)) for smiles in dataset.smiles])
    return dataset.select(~held_out), dataset.select(held_out)


def atom_count_frequencies(dataset: MoleculeDataset) -> tuple[float, ...]:
    """Returns how often each number of heavy atoms occurs; index = atoms, length slots + 1."""
    counts = np.bincount(dataset.atoms, minlength=dataset.positions.shape[1] + 1)
    return tuple(float(value) for value in counts / counts.sum())


def pad(molecules: Sequence[EncodedMolecule], slots: int) -> MoleculeDataset:
    """Stacks molecules into padded arrays of so many slots, centring their positions."""
    count = len(molecules)
    positions = np.zeros((count, slots, 3), dtype=np.float32)
    classes = np.full((count, slots), -1, dtype=np.int8)
    bonds = np.zeros((count, slots, slots), dtype=np.int8)
    atoms = np.array([len(molecule.classes) for molecule in molecules], dtype=np.int8)
    for row, molecule in enumerate(molecules):
        size = int(atoms[row])
        positions[row, :size] = molecule.positions - molecule.positions.mean(axis=0)
        classes[row, :size] = molecule.classes
        bonds[row, :size, :size] = molecule.bonds
    smiles = np.array([molecule.smiles for molecule in molecules], dtype=np.str_)
    return MoleculeDataset(positions, classes, bonds, atoms, smiles)
