"""Molecules with MMFF geometries, so that most tests need no data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("rdkit", reason="the molecule model needs rdkit")

from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from pilotwave.backbones.molecule import dataset, qm9
from pilotwave.backbones.molecule.representation import QM9, EncodedMolecule, encode_molecule

SMILES = [
    "CO",
    "CC#N",
    "C=C=C",
    "C#CC#CC",
    "CNC=O",
    "FC(F)F",
    "CC(C)(C)O",
    "c1ccccc1",
    "c1ccncc1O",
    "c1c[nH]cn1",
    "O=C1CCC(=O)N1",
    "C1CC2CC1O2",
    "OC1C2CC1C2",
    "N#CC1CC1C=O",
    "NC(=O)c1ccco1",
    "CC1=CC(=O)NC1",
    "CN=NC",
    "C1CN1C1CO1",
    "OCC(O)C(O)CO",
    "CC1(C)CCCC1=O",
    "C1CNC1",  # this one and the next are held out of training
    "c1ccoc1",
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are fastest on one thread, and by far so where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def embed(smiles: str) -> Chem.Mol:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(molecule, randomSeed=11) == 0
    rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, maxIters=2000)
    return molecule


@pytest.fixture(scope="session")
def embedded() -> list[Chem.Mol]:
    """RDKit molecules with hydrogens and one conformer."""
    return [embed(smiles) for smiles in SMILES]


@pytest.fixture(scope="session")
def encoded(embedded: list[Chem.Mol]) -> list[EncodedMolecule]:
    """The same as united atoms."""
    return [encode_molecule(molecule, QM9) for molecule in embedded]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, encoded: list[EncodedMolecule]) -> Path:
    """A data set of twenty-two molecules, so that epochs end within a few batches."""
    folder = tmp_path_factory.mktemp("cache")
    dataset.save(dataset.pad(encoded, QM9.slots), qm9.cache_path(folder))
    training, held_out = dataset.split(qm9.load(folder))
    assert len(training) > len(held_out) > 0
    return folder
