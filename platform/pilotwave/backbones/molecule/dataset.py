"""QM9 as united atoms, prepared once and cached outside the repository.

Source: the Python package `qm9pack` 1.0.3 (130,831 molecules with B3LYP/6-31G(2df,p) geometries), which holds
the data of Ramakrishnan, Dral, Rupp and von Lilienfeld, "Quantum chemistry structures and properties of 134
kilo molecules", Scientific Data 1, 140022 (2014). A molecule is kept when its SMILES comes back from its
geometry, so every training example is one the decoder can decode.

May import: numpy and the modules beside it; RDKit and platformdirs inside functions.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import importlib.util
import io
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotwave.backbones.molecule import decoding
from pilotwave.backbones.molecule.representation import (
    CLASS_INDEX,
    FEWEST_ATOMS,
    SLOTS,
    EncodedMolecule,
    NotRepresentable,
    encode_molecule,
)
from pilotwave.errors import MissingDependencyError
from pilotwave.storage import write_atomically

FORMAT_VERSION = 1
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


def cache_path(directory: Path | None = None) -> Path:
    """Returns where the prepared data lies: in the directory, or in the user's cache."""
    if directory is None:
        import platformdirs

        directory = Path(platformdirs.user_cache_dir("pilotwave"))
    return directory / f"qm9-united-atoms-{FORMAT_VERSION}.npz"


def load(directory: Path | None = None, processes: int = 2) -> MoleculeDataset:
    """Loads QM9, preparing it on first use (about a minute and a half on two cores).

    Args:
        directory: Of the prepared data; the user's cache if left out.
        processes: That prepare it.

    Raises:
        MissingDependencyError: It was never prepared and `qm9pack` is not installed.
    """
    path = cache_path(directory)
    if not path.exists():
        rows = list(raw_molecules())
        with ProcessPoolExecutor(processes) as pool:
            save(pad([molecule for molecule in pool.map(encode_raw, rows, chunksize=500) if molecule]), path)
    with np.load(path) as arrays:
        return MoleculeDataset(**{name: arrays[name] for name in MoleculeDataset.__dataclass_fields__})


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
    counts = np.bincount(dataset.atoms, minlength=SLOTS + 1)
    return tuple(float(value) for value in counts / counts.sum())


@dataclass(frozen=True)
class RawMolecule:
    """A molecule as published, as text: its SMILES, all element symbols and all coordinates (Å)."""

    smiles: str
    elements: str
    positions: str


def raw_molecules() -> Iterator[RawMolecule]:
    """Yields the molecules of `qm9pack` in the order of its files."""
    # The files are read directly: the package's own loader needs setuptools at run time.
    spec = importlib.util.find_spec("qm9pack")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("the QM9 data is not installed; run: pip install 'pilotwave[train]'")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    for part in (1, 2, 3):
        with (folder / f"qm9_part{part}.csv").open(newline="") as stream:
            for row in csv.DictReader(stream):
                yield RawMolecule(row["SMILES"], row["Elements"], row["XYZ_Ang"])


def encode_raw(raw: RawMolecule) -> EncodedMolecule | None:
    """Encodes a published molecule, or returns None if it does not fit or does not come back as its SMILES."""
    from rdkit import Chem, rdBase

    elements = np.array(ast.literal_eval(raw.elements))
    positions = np.array(ast.literal_eval(raw.positions))
    heavy = elements != "H"
    if not FEWEST_ATOMS <= heavy.sum() <= SLOTS:
        return None
    hydrogens = np.zeros(int(heavy.sum()), dtype=int)
    for hydrogen in positions[~heavy]:
        hydrogens[np.linalg.norm(positions[heavy] - hydrogen, axis=1).argmin()] += 1
    keys = list(zip(elements[heavy].tolist(), hydrogens.tolist(), strict=True))
    if any(key not in CLASS_INDEX for key in keys):
        return None
    decoded = decoding.decode_united_atoms(positions[heavy], [CLASS_INDEX[key] for key in keys], repair=False)
    with rdBase.BlockLogs():  # some published SMILES do not parse, and are left out
        published = Chem.MolFromSmiles(raw.smiles)
    if decoded.molecule is None or published is None:
        return None
    try:
        encoded = encode_molecule(decoded.molecule)
    except NotRepresentable:
        return None
    same = encoded.smiles == Chem.MolToSmiles(published, isomericSmiles=False)
    return encoded if same else None


def pad(molecules: list[EncodedMolecule]) -> MoleculeDataset:
    """Stacks molecules into padded arrays, centring their positions."""
    count = len(molecules)
    positions = np.zeros((count, SLOTS, 3), dtype=np.float32)
    classes = np.full((count, SLOTS), -1, dtype=np.int8)
    bonds = np.zeros((count, SLOTS, SLOTS), dtype=np.int8)
    atoms = np.array([len(molecule.classes) for molecule in molecules], dtype=np.int8)
    for row, molecule in enumerate(molecules):
        size = int(atoms[row])
        positions[row, :size] = molecule.positions - molecule.positions.mean(axis=0)
        classes[row, :size] = molecule.classes
        bonds[row, :size, :size] = molecule.bonds
    smiles = np.array([molecule.smiles for molecule in molecules], dtype=np.str_)
    return MoleculeDataset(positions, classes, bonds, atoms, smiles)
