"""Drug-like molecules: MOSES SMILES with geometries made here, cached outside the repository.

Source: the Python package `molsets` 0.3.1 (MIT), which holds the benchmark of Polykovskiy et al., "Molecular Sets
(MOSES)", Frontiers in Pharmacology 11, 565644 (2020), a selection from ZINC Clean Leads. Of its training split a
random subset is taken (molecules with bromine are left out), and each gets one conformer: ETKDGv3 (Riniker and
Landrum, 2015), relaxed with MMFF94. As with QM9, a molecule is kept when its SMILES comes back from its geometry.

Making geometries takes about 26 ms a molecule and core; it goes on where it was stopped, because finished parts
are files of their own. The package is fetched without its dependencies (which include an old C extension).

May import: numpy and the modules beside it; RDKit inside functions.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from pilotwave.backbones.molecule import decoding
from pilotwave.backbones.molecule.dataset import (
    MoleculeDataset,
    cache_folder,
    concatenate,
    load_prepared,
    pad,
    save,
)
from pilotwave.backbones.molecule.representation import (
    DRUGLIKE,
    EncodedMolecule,
    NotRepresentable,
    encode_molecule,
)
from pilotwave.errors import MissingDependencyError

FORMAT_VERSION = 1
PACKAGE = "molsets==0.3.1"
WHEEL = "molsets-0.3.1-py3-none-any.whl"
TRAINING_SPLIT = "moses/dataset/data/train.csv.gz"
PART_SIZE = 1000
SUBSET_SEED = 2020
RELAXATION_STEPS = 500


def load(
    directory: Path | None = None,
    molecules: int = 50_000,
    processes: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> MoleculeDataset:
    """Loads drug-like molecules, making their geometries on first use.

    Args:
        directory: Of the prepared data; the user's cache if left out.
        molecules: SMILES to take, rounded up to whole parts of 1,000; a few do not embed or do not come back.
        processes: That make geometries.
        progress: Called with (SMILES done, SMILES in all) after each part that was made.

    Raises:
        MissingDependencyError: The SMILES are not cached and `molsets` could not be fetched.
    """
    folder = cache_folder(directory) / f"moses-united-atoms-{FORMAT_VERSION}"
    parts = -(-molecules // PART_SIZE)
    paths = [folder / f"part-{number:04d}.npz" for number in range(parts)]
    missing = [number for number in range(parts) if not paths[number].exists()]
    if missing:
        smiles = subset(read_smiles(directory), parts * PART_SIZE)
        with ProcessPoolExecutor(processes) as pool:
            for number in missing:
                part = smiles[number * PART_SIZE : (number + 1) * PART_SIZE]
                encoded = [molecule for molecule in pool.map(encode_smiles, part, chunksize=25) if molecule]
                save(pad(encoded, DRUGLIKE.slots), paths[number])
                if progress is not None:
                    progress((number + 1) * PART_SIZE, parts * PART_SIZE)
    return concatenate([load_prepared(path) for path in paths])


def read_smiles(directory: Path | None = None) -> list[str]:
    """Returns the SMILES of the training split, fetching the package on first use.

    Raises:
        MissingDependencyError: It is not cached and could not be fetched.
    """
    wheel = cache_folder(directory) / "packages" / WHEEL
    if not wheel.exists():
        _fetch(wheel.parent)
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read(TRAINING_SPLIT)).decode()
    return text.split()[1:]


def subset(smiles: Sequence[str], count: int) -> list[str]:
    """Returns a random subset without bromine; a smaller one is the beginning of a larger one."""
    fitting = [text for text in smiles if "Br" not in text]
    order = np.random.default_rng(SUBSET_SEED).permutation(len(fitting))
    return [fitting[row] for row in order[:count]]


def encode_smiles(smiles: str) -> EncodedMolecule | None:
    """Gives a molecule a geometry and encodes it; None if it does not embed or does not come back."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    with rdBase.BlockLogs():
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        parameters = rdDistGeom.ETKDGv3()
        parameters.randomSeed = 1  # type: ignore[assignment]
        if rdDistGeom.EmbedMolecule(molecule, parameters) != 0:
            return None
        if rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, maxIters=RELAXATION_STEPS) < 0:
            return None
        try:
            encoded = encode_molecule(molecule, DRUGLIKE)
        except NotRepresentable:
            return None
        back = decoding.decode_united_atoms(encoded.positions, encoded.classes.tolist(), DRUGLIKE, repair=False)
    return encoded if back.smiles == encoded.smiles else None


def _fetch(folder: Path) -> None:
    """Downloads the package with pip, as it was configured on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        reason = outcome.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
        raise MissingDependencyError(
            f"could not fetch the MOSES molecules ({reason[0]}); put {WHEEL} into {folder} by hand"
        )


__all__ = ["encode_smiles", "load", "read_smiles", "subset"]
