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
import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pilotwave.backbones.molecule import decoding
from pilotwave.backbones.molecule.dataset import MoleculeDataset, cache_folder, load_prepared, pad, save
from pilotwave.backbones.molecule.representation import (
    FEWEST_ATOMS,
    QM9,
    EncodedMolecule,
    NotRepresentable,
    encode_molecule,
)
from pilotwave.errors import MissingDependencyError

FORMAT_VERSION = 1
TOLD_EVERY = 5000


def cache_path(directory: Path | None = None) -> Path:
    """Returns where the prepared data lies: in the directory, or in the user's cache."""
    return cache_folder(directory) / f"qm9-united-atoms-{FORMAT_VERSION}.npz"


def load(
    directory: Path | None = None,
    processes: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> MoleculeDataset:
    """Loads QM9, preparing it on first use (about a minute and a half on two cores).

    Args:
        directory: Of the prepared data; the user's cache if left out.
        processes: That prepare it.
        progress: Called with (molecules done, molecules in all) every 5,000.

    Raises:
        MissingDependencyError: It was never prepared and `qm9pack` is not installed.
    """
    path = cache_path(directory)
    if not path.exists():
        rows = list(raw_molecules())
        encoded = []
        with ProcessPoolExecutor(processes) as pool:
            for done, molecule in enumerate(pool.map(encode_raw, rows, chunksize=500), start=1):
                if molecule is not None:
                    encoded.append(molecule)
                if progress is not None and done % TOLD_EVERY == 0:
                    progress(done, len(rows))
        save(pad(encoded, QM9.slots), path)
    return load_prepared(path)


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
    if not FEWEST_ATOMS <= heavy.sum() <= QM9.slots:
        return None
    hydrogens = np.zeros(int(heavy.sum()), dtype=int)
    for hydrogen in positions[~heavy]:
        hydrogens[np.linalg.norm(positions[heavy] - hydrogen, axis=1).argmin()] += 1
    keys = list(zip(elements[heavy].tolist(), hydrogens.tolist(), strict=True))
    if any(key not in QM9.class_index for key in keys):
        return None
    decoded = decoding.decode_united_atoms(
        positions[heavy], [QM9.class_index[key] for key in keys], QM9, repair=False
    )
    with rdBase.BlockLogs():  # some published SMILES do not parse, and are left out
        published = Chem.MolFromSmiles(raw.smiles)
    if decoded.molecule is None or published is None:
        return None
    try:
        encoded = encode_molecule(decoded.molecule, QM9)
    except NotRepresentable:
        return None
    same = encoded.smiles == Chem.MolToSmiles(published, isomericSmiles=False)
    return encoded if same else None
