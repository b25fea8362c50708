"""Drug-like molecules: geometries are made once, in parts, and come back as the molecules they were made for."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pilotwave.backbones.molecule import bond_perception, decoding, moses
from pilotwave.backbones.molecule.representation import DRUGLIKE, QM9, EncodedMolecule, UnitedAtom
from pilotwave.errors import MissingDependencyError

SMILES = [
    "CCCS(=O)c1ccc2[nH]c(=NC(=O)OC)[nH]c2c1",
    "CC(C)(C)C(=O)C(Oc1ccc(Cl)cc1)n1ccnc1",
    "Cn1cnc2c1c(=O)n(CC(O)CO)c(=O)n2C",
    "NS(=O)(=O)c1cc(C(F)(F)F)ccc1N1CCOCC1",
    "O=C(Nc1nccs1)C1CC1c1ccco1",
    "CSc1nnc(CN2CCC(C#N)CC2)o1",
    "CC1CC2C(C1)C2S(=O)(=O)N1CCSCC1",
]


@pytest.fixture(scope="module")
def embedded() -> list[EncodedMolecule]:
    molecules = [moses.encode_smiles(smiles) for smiles in SMILES]
    assert all(molecules), "every one has a geometry from which its SMILES comes back"
    return [molecule for molecule in molecules if molecule is not None]


def test_every_molecule_comes_back_with_sulphur_of_every_valence(embedded: list[EncodedMolecule]) -> None:
    for smiles, molecule in zip(SMILES, embedded, strict=True):
        assert molecule.smiles == Chem.CanonSmiles(smiles)
        decoded = decoding.decode_united_atoms(molecule.positions, molecule.classes.tolist(), DRUGLIKE)
        assert decoded.smiles == molecule.smiles
        assert decoded.strictly_valid


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_decoding_bears_a_little_noise(embedded: list[EncodedMolecule], seed: int) -> None:
    random = np.random.default_rng(seed)
    molecule = embedded[seed % len(embedded)]
    moved = molecule.positions + random.normal(size=molecule.positions.shape) * 0.01
    assert decoding.decode_united_atoms(moved, molecule.classes.tolist(), DRUGLIKE).smiles == molecule.smiles


def test_a_hopeless_tangle_is_given_up(monkeypatch: pytest.MonkeyPatch, embedded: list[EncodedMolecule]) -> None:
    monkeypatch.setattr(bond_perception, "MOST_NODES", 3)
    molecule = embedded[0]
    decoded = decoding.decode_united_atoms(molecule.positions, molecule.classes.tolist(), DRUGLIKE)
    assert not decoded.valid
    assert "no bond orders" in decoded.reason


def test_what_does_not_fit_has_no_geometry() -> None:
    assert moses.encode_smiles("CCBr") is None
    assert moses.encode_smiles("CS") is None, "thiols do not occur in the data"
    assert moses.encode_smiles("C" * 28) is None


def test_a_smaller_subset_begins_a_larger_one() -> None:
    smiles = [f"C{'C' * index}" for index in range(50)] + ["CBr"] * 50
    assert moses.subset(smiles, 10) == moses.subset(smiles, 40)[:10]
    assert sorted(moses.subset(smiles, 100)) == sorted(smiles[:50])


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    """A cache that holds a package of seven molecules, so that nothing is fetched."""
    wheel = tmp_path / "packages" / moses.WHEEL
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(moses.TRAINING_SPLIT, gzip.compress("\n".join(["SMILES", *SMILES]).encode()))
    return tmp_path


def test_geometries_are_made_once(packaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    made = moses.load(packaged, molecules=7, processes=1, progress=lambda *counts: told.append(counts))
    assert told == [(1000, 1000)]
    assert sorted(made.smiles) == sorted(Chem.CanonSmiles(smiles) for smiles in SMILES)
    assert made.positions.shape == (7, DRUGLIKE.slots, 3)
    monkeypatch.setattr(moses, "read_smiles", lambda directory: pytest.fail("nothing was missing"))
    again = moses.load(packaged, molecules=7)
    np.testing.assert_array_equal(again.positions, made.positions)


def test_a_package_that_cannot_be_fetched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(MissingDependencyError, match=r"could not fetch the MOSES molecules.*put molsets") as error:
        moses.read_smiles(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("chemistry", [QM9, DRUGLIKE])
def test_classes_are_written_and_read(chemistry: object) -> None:
    for atom in chemistry.classes:  # type: ignore[attr-defined]
        assert UnitedAtom.parse(str(atom)) == atom


@pytest.mark.parametrize("text", ["", "C", "3", "C9", "Xe0", "F1", "CC3"])
def test_unknown_classes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected an element of C, N, O, F, S, Cl"):
        UnitedAtom.parse(text)
