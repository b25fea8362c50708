"""What molecules are like and how far two sets are apart: known values, and what any distance must obey."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rdkit", reason="the molecule model needs rdkit")

from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import rdMolTransforms

from pilotwave.backbones.molecule import distributions

values = st.lists(st.floats(-100, 100), min_size=1, max_size=30).map(np.asarray)
tallies = st.dictionaries(st.sampled_from("CNOFS"), st.integers(1, 50), min_size=1)


@settings(max_examples=60, deadline=None)
@given(values, values, st.floats(-10, 10))
def test_the_distance_of_quantities_is_symmetric_zero_to_itself_and_a_shift_when_shifted(one, other, shift) -> None:  # type: ignore[no-untyped-def]
    assert distributions.wasserstein(one, one) == 0.0
    assert distributions.wasserstein(one, other) == pytest.approx(distributions.wasserstein(other, one))
    assert distributions.wasserstein(one, one + shift) == pytest.approx(abs(shift), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(tallies, tallies, tallies)
def test_the_distance_of_frequencies_is_a_metric_between_0_and_1(one, other, third) -> None:  # type: ignore[no-untyped-def]
    distance = distributions.total_variation
    assert distance(one, {kind: 7 * count for kind, count in one.items()}) == pytest.approx(0.0, abs=1e-12)
    assert distance(one, other) == pytest.approx(distance(other, one))
    assert 0.0 <= distance(one, other) <= 1.0 + 1e-12
    assert distance(one, third) <= distance(one, other) + distance(other, third) + 1e-12
    assert distance({"C": 3}, {"N": 2}) == 1.0


def test_nothing_is_at_no_distance_from_anything() -> None:
    empty = distributions.statistics([])
    assert empty.molecules == 0
    assert all(math.isnan(each.value) for each in distributions.compare(empty, empty))


def test_sets_of_molecules_are_at_zero_from_themselves_and_symmetric(embedded: list[Chem.Mol]) -> None:
    one, other = distributions.statistics(embedded[:12] * 20), distributions.statistics(embedded[8:] * 20)
    for there, back, same in zip(
        distributions.compare(one, other),
        distributions.compare(other, one),
        distributions.compare(one, one),
        strict=True,
    ):
        assert there.value == pytest.approx(back.value, nan_ok=True)
        assert same.value == pytest.approx(0.0, abs=1e-12)
        assert there.name == back.name
    by_name = {each.name: each.value for each in distributions.compare(one, other)}
    assert set(by_name) == {*distributions.GEOMETRY, *distributions.PROPERTIES, *distributions.FREQUENCIES}
    assert by_name["weight"] > 1
    assert by_name["rings"] > 0.1


def test_lengths_angles_and_torsions_are_rdkits(embedded: list[Chem.Mol]) -> None:
    butanol = next(mol for mol in embedded if Chem.MolToSmiles(Chem.RemoveHs(mol)) == "CC(C)(C)O")
    found = distributions.statistics([butanol])
    conformer = butanol.GetConformer()
    lengths = [rdMolTransforms.GetBondLength(conformer, *pair) for pair in ((0, 1), (1, 2), (1, 3))]
    assert sorted(found.geometry["bond length"]["C-C"]) == pytest.approx(sorted(lengths))
    assert found.geometry["bond length"]["C-O"] == pytest.approx(rdMolTransforms.GetBondLength(conformer, 1, 4))
    ends = [(0, 2), (0, 3), (2, 3)]
    angles = [rdMolTransforms.GetAngleDeg(conformer, first, 1, last) for first, last in ends]
    assert sorted(found.geometry["angle"]["C-C-C"]) == pytest.approx(sorted(angles))
    assert len(found.geometry["angle"]["C-C-O"]) == 3
    assert not found.geometry["torsion"]  # nothing beyond the middle atom


def test_a_torsion_has_no_sign_and_rings_and_straight_chains_have_none(embedded: list[Chem.Mol]) -> None:
    nitrosamine = next(mol for mol in embedded if Chem.MolToSmiles(Chem.RemoveHs(mol)) == "CN=NC")
    expected = abs(rdMolTransforms.GetDihedralDeg(nitrosamine.GetConformer(), 0, 1, 2, 3))
    assert distributions.statistics([nitrosamine]).geometry["torsion"]["N=N"] == pytest.approx(expected)
    others = [mol for mol in embedded if Chem.MolToSmiles(Chem.RemoveHs(mol)) in ("c1ccccc1", "CC#N", "C#CC#CC")]
    assert len(others) == 3
    assert not distributions.statistics(others).geometry["torsion"]


def test_tallies_count_atoms_bonds_and_rings() -> None:
    molecules = []
    for smiles in ("c1ccc2ccccc2c1", "C1CC1CO", "C1CCCCCCCCCC1"):
        molecule = Chem.MolFromSmiles(smiles)
        molecule.AddConformer(Chem.Conformer(molecule.GetNumAtoms()))
        molecules.append(molecule)
    found = distributions.statistics(molecules).frequencies
    assert found["elements"] == {"C": 10 + 4 + 11, "O": 1}
    assert found["heavy atoms"] == {" 5": 1, "10": 1, "11": 1}
    assert found["ring sizes"] == {"3": 1, "6": 2, "> 8": 1}
    assert found["rings"] == {"1": 2, "2": 1}
    assert found["aromatic rings"] == {"0": 2, "2": 1}
    assert found["bonds"]["C:C"] == 11


@pytest.mark.parametrize(
    ("smiles", "qed", "low", "high"),
    [("CC(=O)Oc1ccccc1C(=O)O", 0.55, 1.3, 1.9), ("c1ccccc1", 0.44, 1.0, 1.0)],  # aspirin, benzene
)
def test_qed_and_accessibility_of_known_molecules(smiles: str, qed: float, low: float, high: float) -> None:
    molecule = Chem.MolFromSmiles(smiles)
    assert distributions.drug_likeness(molecule) == pytest.approx(qed, abs=0.01)
    assert low <= distributions.accessibility(molecule) <= high
