"""The oracle of cheap properties, the bounds on them, and the scaffold filter."""

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from pilotwave.errors import InputError, OracleFailure
from pilotwave.protocols import QueryContext
from pilotwave.samples import MoleculeSample, Sample
from pilotwave.testing.constraint_contract import ConstraintContract
from pilotwave.testing.oracle_contract import OracleContract
from pilotwave_oracles.desirability import Desirability
from pilotwave_oracles.molecular_properties import NEED_REFERENCES, MolecularProperty, descriptors
from pilotwave_oracles.property_bounds import PropertyConstraintConfig
from pilotwave_oracles.rdkit_properties import RdkitOracleConfig, aspirin
from pilotwave_oracles.substructure import SubstructureConstraintConfig, scaffold_of

CONTEXT = QueryContext("q")


def embedded(smiles: str, seed: int = 1) -> MoleculeSample:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(molecule, randomSeed=seed) == 0
    return MoleculeSample(Chem.MolToMolBlock(molecule), smiles)


IBUPROFEN, NAPHTHALENE, BIPHENYL = "CC(C)Cc1ccc(cc1)C(C)C(=O)O", "c1ccc2ccccc2c1", "c1ccc(cc1)-c1ccccc1"


class TestQedContract(OracleContract):
    def config(self) -> RdkitOracleConfig:
        return RdkitOracleConfig(property="qed")


class TestShapeContract(OracleContract):
    def config(self) -> RdkitOracleConfig:
        return RdkitOracleConfig(property="shape_similarity", references=(IBUPROFEN,))


class TestWindowContract(OracleContract):
    def config(self) -> RdkitOracleConfig:
        return RdkitOracleConfig(property="logp", desirability=Desirability(low=2, high=3, margin=2))


class TestBoundsContract(ConstraintContract):
    def config(self) -> PropertyConstraintConfig:
        return PropertyConstraintConfig(property="molecular_weight", minimum=100, maximum=200)

    def passing(self) -> list[Sample]:
        return [aspirin()]

    def refused(self) -> list[Sample]:
        return [embedded("CCO"), embedded(IBUPROFEN)]


class TestScaffoldContract(ConstraintContract):
    def config(self) -> SubstructureConstraintConfig:
        return SubstructureConstraintConfig(require=("c1ccccc1",), forbid=("[CX3](=O)[OX2H1]",))

    def passing(self) -> list[Sample]:
        return [embedded(NAPHTHALENE)]

    def refused(self) -> list[Sample]:
        return [aspirin(), embedded("CCO")]


def value_of(smiles: str, name: MolecularProperty, **fields: Any) -> float:
    return RdkitOracleConfig(property=name, **fields).build().evaluate(embedded(smiles), CONTEXT).value


@pytest.mark.parametrize(
    ("name", "smiles", "expected"),
    [
        ("rotatable_bonds", IBUPROFEN, 4),
        ("hydrogen_bond_donors", IBUPROFEN, 1),
        ("hydrogen_bond_acceptors", "CC(=O)Oc1ccccc1C(=O)O", 3),
        ("fraction_sp3", IBUPROFEN, 6 / 13),
        ("rings", NAPHTHALENE, 2),
        ("aromatic_rings", "C1CCCCC1c1ccccc1", 1),
        ("largest_ring", "C1CCCCCC1", 7),
        ("fused_rings", NAPHTHALENE, 2),
        ("fused_rings", BIPHENYL, 1),
        ("fused_rings", "CCO", 0),
        ("stereocentres", IBUPROFEN, 1),
        ("formal_charge", "C[NH3+]", 1),
        ("lipinski_violations", "CCCCCCCCCCCCCCCCCC", 1),
        ("alerts", "CCO", 0),
        ("similarity", IBUPROFEN, 1),
    ],
)
def test_properties_are_what_a_chemist_counts(name: MolecularProperty, smiles: str, expected: float) -> None:
    fields = {"references": (IBUPROFEN,)} if name in NEED_REFERENCES else {}
    assert value_of(smiles, name, **fields) == pytest.approx(expected)


def test_every_name_is_measured() -> None:
    special = {"synthetic_accessibility", "alerts", *NEED_REFERENCES}
    assert set(descriptors()) | special == set(get_args(MolecularProperty))


def test_alerts_are_counted_by_catalogue() -> None:
    peroxide = "CC(C)(C)OOC(C)(C)C"
    assert value_of(peroxide, "alerts", catalogues=("brenk",)) >= 1
    assert value_of(peroxide, "alerts", catalogues=("pains",)) == 0


def test_similarity_is_to_the_nearest_reference_of_smiles_and_files(tmp_path: Path) -> None:
    far = value_of("CCO", "similarity", references=(IBUPROFEN,))
    assert 0 < far < 0.3
    text = tmp_path / "known.smi"
    text.write_text(f"{NAPHTHALENE} naphthalene\n\nCCO ethanol\n")
    assert value_of("CCO", "similarity", references=(IBUPROFEN,), reference_file=text) == 1
    config = RdkitOracleConfig.model_validate(
        {"kind": "rdkit", "property": "similarity", "reference_file": "known.smi"}, context={"base_dir": tmp_path}
    )
    before = config.build().version
    text.write_text(f"{NAPHTHALENE}\n")
    assert config.build().version != before


def test_a_shape_is_compared_wherever_it_lies(tmp_path: Path) -> None:
    reference = embedded(IBUPROFEN)
    file = tmp_path / "shape.sdf"
    file.write_text(f"{reference.mol_block}$$$$\n")
    oracle = RdkitOracleConfig(property="shape_similarity", reference_file=file).build()
    turned = Chem.MolFromMolBlock(reference.mol_block, removeHs=False)
    conformer = turned.GetConformer()
    for index, (x, y, z) in enumerate(conformer.GetPositions().tolist()):
        conformer.SetAtomPosition(index, (y + 5.0, -x, z - 3.0))
    assert oracle.evaluate(reference, CONTEXT).value == pytest.approx(1.0, abs=0.02)
    assert oracle.evaluate(MoleculeSample(Chem.MolToMolBlock(turned), "?"), CONTEXT).value > 0.95
    assert oracle.evaluate(embedded("CCO"), CONTEXT).value < 0.5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"property": "similarity"}, "give references or reference_file"),
        ({"property": "qed", "references": ["CCO"]}, "not for property: qed; remove them"),
        ({"property": "similarity", "reference_file": "nowhere.smi"}, "found none at"),
        ({"property": "beauty"}, "qed"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RdkitOracleConfig.model_validate({"kind": "rdkit", **fields})


def test_a_reference_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"references\[1\]: expected a SMILES, got 'what'"):
        RdkitOracleConfig(property="similarity", references=("CCO", "what")).build()
    file = tmp_path / "known.smi"
    file.write_text("CCO\nwhat\n")
    with pytest.raises(InputError, match="line 2"):
        RdkitOracleConfig(property="similarity", reference_file=file).build()
    file.write_text("\n")
    with pytest.raises(InputError, match="found none in"):
        RdkitOracleConfig(property="similarity", reference_file=file).build()
    broken = tmp_path / "known.sdf"
    broken.write_text("no molecule\n$$$$\n")
    with pytest.raises(InputError, match="number 1 is none"):
        RdkitOracleConfig(property="similarity", reference_file=broken).build()


def test_bounds_say_both_numbers() -> None:
    def reason(**bounds: float) -> str | None:
        return PropertyConstraintConfig(property="logp", **bounds).build().check(aspirin()).reason

    assert reason(minimum=1, maximum=2) is None
    assert reason(minimum=2) == "logp too low: 1.31, minimum 2"
    assert reason(maximum=1) == "logp too high: 1.31, maximum 1"
    with pytest.raises(ValidationError, match="minimum, maximum or both"):
        PropertyConstraintConfig(property="logp")
    with pytest.raises(ValidationError, match="minimum up to maximum"):
        PropertyConstraintConfig(property="logp", minimum=2, maximum=1)


def test_scaffolds_are_wished_unwished_or_known() -> None:
    def reason(smiles: str, **fields: tuple[str, ...]) -> str | None:
        return SubstructureConstraintConfig(**fields).build().check(embedded(smiles)).reason  # type: ignore[arg-type]

    assert scaffold_of(IBUPROFEN) == "c1ccccc1"
    assert reason("Cc1ccccc1", known_scaffolds=(IBUPROFEN,)) == "known scaffold: c1ccccc1"
    assert reason(NAPHTHALENE, known_scaffolds=(IBUPROFEN,)) is None
    assert reason("CCO", require_any=("c", "N")) == "substructure missing: any of c, N"
    assert reason("CCN", require_any=("c", "N")) is None
    for fields, words in (
        ({"forbid": ("C(",)}, "forbid: expected a SMARTS"),
        ({"known_scaffolds": ("CCO",)}, "rings"),
    ):
        with pytest.raises(InputError, match=words):
            SubstructureConstraintConfig(**fields).build()  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="got none of them"):
        SubstructureConstraintConfig()


def test_what_rdkit_cannot_take_fails_with_its_stage() -> None:
    with pytest.raises(OracleFailure) as caught:
        RdkitOracleConfig(property="qed").build().evaluate(MoleculeSample("nonsense", "?"), CONTEXT)
    assert caught.value.stage == "parse"
