"""Structural vetoes on molecules that exist, and on some that do not."""

from typing import Any

import pytest
from pydantic import ValidationError
from rdkit import Chem

from pilotwave.protocols import Verdict
from pilotwave.samples import ArraySample, MoleculeSample, Sample
from pilotwave.testing.constraint_contract import ConstraintContract
from pilotwave_oracles.ring_strain import bridgehead_double_bonds, largest_system_strain
from pilotwave_oracles.structural_alerts import ALERTS
from pilotwave_oracles.structure import StructureConstraint, StructureConstraintConfig


def flat(smiles: str) -> MoleculeSample:
    """A molecule with all hydrogens, drawn flat: the constraint looks at bonds only."""
    from rdkit.Chem import rdDepictor

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDepictor.Compute2DCoords(molecule)
    Chem.Kekulize(molecule)
    return MoleculeSample(Chem.MolToMolBlock(molecule), smiles)


def judge(smiles: str, **fields: Any) -> Verdict:
    constraint = StructureConstraintConfig(**fields).build()
    assert isinstance(constraint, StructureConstraint)
    return constraint.check(flat(smiles))


EXISTING = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "penicillin G": "CC1(C)SC2C(NC(=O)Cc3ccccc3)C(=O)N2C1C(=O)O",
    "camphor": "CC1(C)C2CCC1(C)C(=O)C2",
    "adamantane": "C1C2CC3CC1CC(C2)C3",
    "norbornene": "C1C2CCC1C=C2",
    "cholesterol": "CC(C)CCCC(C)C1CCC2C1(CCC3C2CC=C4C3(CCC(C4)O)C)C",
    "cocaine": "CN1C2CCC1C(C(C2)OC(=O)c1ccccc1)C(=O)OC",
    "morphine": "CN1CCC23c4c5ccc(O)c4OC2C(O)C=CC3C1C5",
    "strychnine": "O=C1CC2OCC=C3CN4CCC56C4CC3C2C6N1c1ccccc15",
    "glucose": "OCC1OC(O)C(O)C(O)C1O",
    "levoglucosan": "C1C2C(C(C(C(O1)O2)O)O)O",
    "nitrobenzene": "[O-][N+](=O)c1ccccc1",
    "pyrene": "c1cc2ccc3cccc4ccc(c1)c2c34",
    "tetrazole": "c1nnn[nH]1",
    "azulene": "c1ccc2cccc2cc1",
    "biphenylene": "c1ccc2c(c1)c1ccccc12",
    "paracyclophane": "C1Cc2ccc(cc2)CCc2ccc1cc2",
    "barrelene": "C1=CC2C=CC1C=C2",
    "spiropentane": "C1CC12CC2",
    "bicyclobutane": "C1C2C1C2",
    "cyclopropene": "C1C=C1",
    "cyclooctyne": "C1CCCC#CCC1",
    "allene": "C=C=C",
    "diacetylene": "C#CC#C",
    "the core of taxol, with a bridgehead double bond": "CC1=C2CC(=O)C3(C)C(CC(C)(C2(C)C)CC1)CCCC3",
    "metformin": "CN(C)C(=N)NC(N)=N",
    "urea": "NC(N)=O",
}

REFUSED = {
    "C12C3C4C1C5C2C3C45": "ring strain: 157 kcal/mol",
    "C12C3C1C4C2C34": "ring strain: 134 kcal/mol",
    "C1=CC=C1": "ring strain: 77 kcal/mol",
    "C1C2C3C2C2C1C32": "ring strain: 94 kcal/mol",
    "C1CCC#CC1": "alkyne in a small ring: 6 atoms",
    "C1#CC=CC=C1": "alkyne in a small ring: 6 atoms",
    "C1CCC=C=CC1": "allene in a small ring: 7 atoms",
    "C1CCCCC=C=C1": "allene in a small ring: 8 atoms",
    "C=C=C=C": "cumulene longer than allene",
    "O=C=C=C=O": "cumulene longer than allene",
    "C1CC2=CCC1C2": "bridgehead double bond in a small bicycle",
    "C1C2CC3CC1C=C(C2)C3": "bridgehead double bond in a small bicycle",
    "[NH3+]CC(=O)[O-]": "charged atom: N+1",
    "[Na+].[Cl-]": "more than one fragment: 2",
    "[CH3]": "radical: C",
    "[CH2]": "carbene: C",
    "CC.CC": "more than one fragment: 2",
    "COOC": "peroxide",
    "NNN": "three heteroatoms in a row",
    "CN(C)N=O": "three heteroatoms in a row",
    "CNF": "halogen on a heteroatom",
    "CC(O)O": "geminal diol",
    "CC(O)NC": "geminal amino alcohol",
    "CC(O)OC": "open-chain hemiacetal",
    "CC(N)N": "geminal diamine",
    "CC#CO": "hydroxyl on a triple bond",
    "CC#CN": "amine on an alkyne",
    "C=C=O": "ketene or ketenimine",
    "C1=CO1": "oxirene or 1H-azirine",
    "C#CC#CC#C": "three conjugated triple bonds",
    "CC(=N)N(C)O": "N-hydroxy on a double bond to nitrogen",
    "NC(=O)O": "carbonic or carbamic acid",
}


class TestStructureContract(ConstraintContract):
    def config(self) -> StructureConstraintConfig:
        return StructureConstraintConfig()

    def passing(self) -> list[Sample]:
        return [flat(EXISTING["aspirin"]), flat(EXISTING["morphine"])]

    def refused(self) -> list[Sample]:
        return [flat("C12C3C4C1C5C2C3C45"), flat("COOC"), MoleculeSample("no mol block", "?")]


@pytest.mark.parametrize("name", EXISTING)
def test_molecules_that_exist_pass(name: str) -> None:
    assert judge(EXISTING[name]).reason is None


@pytest.mark.parametrize("smiles", REFUSED)
def test_the_veto_that_holds_is_named(smiles: str) -> None:
    assert judge(smiles).reason == REFUSED[smiles]


def test_every_alert_is_raised_by_some_molecule_here() -> None:
    raised = {reason for reason in REFUSED.values() if reason in ALERTS}
    assert raised | {"cyclobutadiene"} == set(ALERTS)  # its strain is refused first, by default
    assert judge("C1=CC=C1", maximum_strain=100).reason == "cyclobutadiene"


@pytest.mark.parametrize(
    ("smiles", "measured"),
    [
        ("C1CC1", 27.5),
        ("C1CCC1", 26.3),
        ("C1C=C1", 54.5),
        ("C=C1CC1", 41.0),
        ("C1CC12CC2", 63.0),
        ("C1C2C1C2", 66.0),
        ("C12C3C4C1C5C2C3C45", 160.0),
        ("C1CCCCC1", 0.0),
        ("C1CCCCCCC1", 9.7),
    ],
)
def test_the_estimate_is_near_measured_strain(smiles: str, measured: float) -> None:
    """Within a sixth of strain energies that any textbook lists (kcal/mol)."""
    molecule = Chem.MolFromSmiles(smiles)
    assert largest_system_strain(molecule) == pytest.approx(measured, rel=1 / 6, abs=0.5)


def test_strain_counts_by_ring_system_and_hydrogens_do_not_matter() -> None:
    apart, spiro = Chem.MolFromSmiles("C1CC1CCC1CC1"), Chem.MolFromSmiles("C1CC12CC2")
    assert (largest_system_strain(apart), largest_system_strain(spiro)) == (27.5, 55.0)
    assert largest_system_strain(Chem.AddHs(spiro)) == 55.0
    joined_last = Chem.MolFromSmiles("C1CC1.C1CC1.C1CC12CC2")
    assert largest_system_strain(joined_last) == 55.0
    assert largest_system_strain(Chem.MolFromSmiles("CCO")) == 0.0


def test_bredt_spares_fused_rings_and_large_bicycles() -> None:
    spared = ["C1CCC2=CCCCC2C1", "c1ccc2ccccc2c1", EXISTING["norbornene"], "C1=C2CCCC(C1)CCCC2"]
    assert [bridgehead_double_bonds(Chem.MolFromSmiles(smiles)) for smiles in spared] == [[]] * 4
    assert bridgehead_double_bonds(Chem.MolFromSmiles("C1CC2=CCC1C2")) == [2]


def test_what_is_measured_comes_with_the_verdict() -> None:
    assert judge("CC1CC1").properties == {"heavy_atoms": 4.0, "largest_ring": 3.0, "ring_strain": 27.5}


def test_limits_can_be_moved() -> None:
    cubane = "C12C3C4C1C5C2C3C45"
    assert judge(cubane, maximum_strain=160).reason is None
    assert judge("C1CCC#CC1", smallest_linear_ring=6).reason is None
    assert judge("C1CCCCCC1", largest_ring=6).reason == "ring too large: 7 atoms"
    assert judge("CO", fewest_heavy_atoms=3).reason == "too few heavy atoms: 2"
    assert judge("COOC", alerts=()).reason is None
    assert judge("COOC", alerts=("geminal diol",)).reason is None


def test_an_unknown_alert_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValidationError, match=r"expected names among peroxide, .*; got 'peroxid'"):
        StructureConstraintConfig(alerts=("peroxid",))


def test_another_media_is_refused_with_a_reason() -> None:
    import numpy as np

    sample = ArraySample(np.zeros(2, dtype=np.float32))
    assert StructureConstraintConfig().build().check(sample).reason == "not a molecule: array"


def test_most_of_qm9_passes(qm9_molecules: list[Any]) -> None:
    constraint = StructureConstraintConfig().build()
    passing = sum(constraint.check(item.sample).reason is None for item in qm9_molecules)
    assert passing / len(qm9_molecules) > 0.7
