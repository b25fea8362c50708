"""The synthetic accessibility score and its limit."""

from pathlib import Path
from typing import Any

import pytest

from pilotwave.errors import MissingDependencyError
from pilotwave.samples import Sample
from pilotwave.testing.constraint_contract import ConstraintContract
from pilotwave_oracles.synthesizability import SynthesizabilityConstraint, SynthesizabilityConstraintConfig
from pilotwave_oracles.xtb_water import WATER


class TestSynthesizabilityContract(ConstraintContract):
    @pytest.fixture(autouse=True)
    def _molecules(self, qm9_molecules: list[Any]) -> None:
        self.molecules = {item.sample.smiles: item.sample for item in qm9_molecules}

    def config(self) -> SynthesizabilityConstraintConfig:
        return SynthesizabilityConstraintConfig()

    def passing(self) -> list[Sample]:
        return [self.molecules["c1ccccc1"], self.molecules["N#Cc1occc1N"]]

    def refused(self) -> list[Sample]:
        return [self.molecules["NC(=O)C12C3C4C1N4C32"]]


def built(maximum: float = 5.5) -> SynthesizabilityConstraint:
    constraint = SynthesizabilityConstraintConfig(maximum=maximum).build()
    assert isinstance(constraint, SynthesizabilityConstraint)
    return constraint


def test_scores_are_those_of_the_authors_program() -> None:
    from rdkit import Chem

    constraint = built()
    assert constraint.score(Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)O")) == pytest.approx(1.58, abs=0.01)
    assert constraint.score(Chem.MolFromSmiles("Cn1c(=O)c2c(ncn2C)n(C)c1=O")) == pytest.approx(2.298, abs=0.01)


def test_explicit_hydrogens_do_not_count() -> None:
    from rdkit import Chem

    ethanol = Chem.MolFromSmiles("CCO")
    assert built().score(Chem.AddHs(ethanol)) == built().score(ethanol)


def test_the_limit_decides_and_the_reason_shows_both_numbers(qm9_molecules: list[Any]) -> None:
    sample = qm9_molecules[5].sample
    score = built().check(sample).properties["synthetic_accessibility"]
    assert built(score).check(sample).reason is None
    verdict = built(score - 0.1).check(sample)
    assert verdict.reason == f"hard to make: score {score:.1f}, limit {score - 0.1:g}"


def test_a_missing_contrib_folder_is_said_with_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from rdkit import RDConfig

    monkeypatch.setattr(RDConfig, "RDContribDir", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=f"{tmp_path}/SA_Score/sascorer.py is not there"):
        SynthesizabilityConstraintConfig().build()


def test_water_is_small_and_strange() -> None:
    from pilotwave.samples import MoleculeSample

    assert built().check(MoleculeSample(WATER, "O")).reason is not None
