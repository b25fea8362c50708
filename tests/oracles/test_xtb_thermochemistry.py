"""Heat capacity, strain, atomisation, solvation, charge, spin and windows of the xTB oracle."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pilotwave.errors import InputError, OracleFailure
from pilotwave.protocols import QueryContext
from pilotwave.samples import MoleculeSample
from pilotwave.testing.oracle_contract import OracleContract
from pilotwave_oracles.desirability import Desirability
from pilotwave_oracles.engine import Solvation, open_engine
from pilotwave_oracles.free_atoms import UNPAIRED
from pilotwave_oracles.geometry import BOHR, Geometry, read_geometry
from pilotwave_oracles.thermochemistry import (
    GAS_CONSTANT,
    heat_capacity,
    hessian,
    relaxed_vibrations,
    vibrations,
    zero_point_energy,
)
from pilotwave_oracles.xtb import XtbOracleConfig
from pilotwave_oracles.xtb_water import WATER

CONTEXT = QueryContext("q")
WATER_SAMPLE = MoleculeSample(WATER, "O")
DXTB = Path(__file__).with_name("data") / "dxtb_polarizabilities.json"


class TestHeatCapacityContract(OracleContract):
    def config(self) -> XtbOracleConfig:
        return XtbOracleConfig(property="heat_capacity")


class TestSolvationContract(OracleContract):
    def config(self) -> XtbOracleConfig:
        return XtbOracleConfig(property="solvation_energy", solvent="water")


class TestWindowContract(OracleContract):
    def config(self) -> XtbOracleConfig:
        return XtbOracleConfig(property="gap", desirability=Desirability(low=5.0, high=14.0, margin=2.0))


class TestTripletContract(OracleContract):
    def config(self) -> XtbOracleConfig:
        return XtbOracleConfig(property="atomization_energy", multiplicity=3)


def geometry(numbers: list[int], positions: list[list[float]], charge: int = 0, unpaired: int = 0) -> Geometry:
    bonds = frozenset((0, other) for other in range(1, len(numbers)))
    where = np.array(positions, dtype=np.float64) / BOHR
    return Geometry(np.array(numbers, dtype=np.int32), where, charge, unpaired, bonds)


def test_polarizabilities_are_those_of_an_independent_derivative(qm9_molecules: list[Any]) -> None:
    """dxtb 0.4.0 differentiates the energy automatically; benchmarks/dxtb_polarizabilities.py made the table."""
    table = json.loads(DXTB.read_text())
    assert len(table) == 10
    oracle = XtbOracleConfig().build()
    for item in qm9_molecules:
        if item.sample.smiles in table:
            value = oracle.evaluate(item.sample, CONTEXT).value
            assert value == pytest.approx(table.pop(item.sample.smiles), rel=1e-3)
    assert not table


def test_heat_capacities_are_the_textbooks() -> None:
    assert heat_capacity(np.zeros(0), atoms=1) == pytest.approx(1.5 * GAS_CONSTANT)
    stiff, soft = np.array([1e5]), np.array([0.01])
    assert heat_capacity(stiff, atoms=2) == pytest.approx(2.5 * GAS_CONSTANT)
    assert heat_capacity(soft, atoms=2) == pytest.approx(3.5 * GAS_CONSTANT, rel=1e-6)
    # McQuarrie's Einstein function at theta = T is 0.92067
    assert heat_capacity(np.array([298.15 / 1.438776877]), 2) == pytest.approx(
        (2.5 + 0.92067) * GAS_CONSTANT, rel=1e-5
    )
    # water's measured fundamentals give nearly what was measured: Cp - R = 33.58 - 8.31 J / (mol K)
    assert heat_capacity(np.array([1595.0, 3657.0, 3756.0]), 3) * 4.184 == pytest.approx(25.27, abs=0.15)
    assert zero_point_energy(np.array([1595.0, 3657.0, 3756.0])) == pytest.approx(12.88, abs=0.01)


def test_vibrations_leave_out_what_is_translation_and_rotation() -> None:
    engine = open_engine("tblite", "gfn2")
    for molecule, count in (
        (geometry([2], [[0, 0, 0]]), 0),
        (geometry([6, 8], [[0, 0, 0], [0.7, 0.7, 0.5]]), 1),
        (geometry([6, 8, 8], [[0, 0, 0], [0.9, 0.72, 0], [-0.9, -0.72, 0]]), 4),
        (read_geometry(WATER_SAMPLE), 3),
    ):
        second = hessian(engine, molecule, 300.0)
        wavenumbers, motion = vibrations(molecule, second)
        assert len(wavenumbers) == count
        assert motion.shape == molecule.positions.shape
        assert (np.diff(wavenumbers) >= 0).all()


def test_the_wavenumbers_of_water_are_those_of_the_xtb_program() -> None:
    """`xtb water.xyz --ohess extreme` 6.5.1 prints 1539.60, 3643.74 and 3652.08 cm^-1 (average isotopes)."""
    _, wavenumbers = relaxed_vibrations(open_engine("tblite", "gfn2"), read_geometry(WATER_SAMPLE), 300.0, 200)
    assert wavenumbers == pytest.approx([1539.60, 3643.74, 3652.08], abs=1.0)


def test_heat_capacities_follow_density_functional_theory(qm9_molecules: list[Any]) -> None:
    """B3LYP values of QM9, cal / (mol K)."""
    published = {"C": 6.469, "O": 6.002, "c1ccccc1": 17.326}
    oracle = XtbOracleConfig(property="heat_capacity").build()
    for item in qm9_molecules:
        if item.sample.smiles in published:
            answer = oracle.evaluate(item.sample, CONTEXT)
            assert answer.value == pytest.approx(published[item.sample.smiles], rel=0.05)
            assert answer.fidelity == "gfn2 relaxed"
            assert answer.properties["lowest_wavenumber"] > 0


def test_a_saddle_point_is_left_downhill() -> None:
    """Planar ammonia is stationary by symmetry; its relaxation stays planar, and the push does not."""
    side = 1.0 * math.sqrt(3) / 2
    planar = geometry([7, 1, 1, 1], [[0, 0, 0], [0, 1.0, 0], [side, -0.5, 0], [-side, -0.5, 0]])
    engine = open_engine("tblite", "gfn2")
    relaxed, wavenumbers = relaxed_vibrations(engine, planar, 300.0, 200)
    assert np.linalg.matrix_rank(relaxed.positions - relaxed.positions.mean(0), tol=0.1) == 3
    assert wavenumbers[0] > 500


def test_strain_is_the_energy_above_the_minimum(qm9_molecules: list[Any]) -> None:
    assert XtbOracleConfig(property="strain").build().evaluate(WATER_SAMPLE, CONTEXT).value == pytest.approx(
        0, abs=1e-3
    )
    stretched = MoleculeSample(WATER.replace("0.7712", "0.9000"), "O")
    answer = XtbOracleConfig(property="strain").build().evaluate(stretched, CONTEXT)
    before = XtbOracleConfig(property="energy").build().evaluate(stretched, CONTEXT).value
    assert answer.value == pytest.approx((before - answer.properties["energy"]) * 627.5094740631, abs=1e-6)
    assert answer.value > 5
    assert answer.properties["dipole"] == pytest.approx(2.22, abs=0.01)


def test_atomization_energies_are_sums_of_free_atoms() -> None:
    hydrogen = geometry([1, 1], [[0, 0, 0], [0, 0, 0.77]])
    engine = open_engine("tblite", "gfn2")
    lone = engine.single_point(geometry([1], [[0, 0, 0]], unpaired=1), 300.0).energy
    expected = (2 * lone - engine.single_point(hydrogen, 300.0).energy) * 27.211386245988
    block = "\n\n\n  2  1  0  0  0  0  0  0  0  0999 V2000\n    0.0000    0.0000    0.0000 H   0  0\n"
    block += "    0.0000    0.0000    0.7700 H   0  0\n  1  2  1  0\nM  END\n"
    value = (
        XtbOracleConfig(property="atomization_energy").build().evaluate(MoleculeSample(block, "[H][H]"), CONTEXT)
    )
    assert value.value == pytest.approx(expected)
    assert value.value > 3
    assert [UNPAIRED[number] for number in (1, 6, 7, 8, 24, 29, 46, 57, 72, 86)] == [1, 2, 3, 2, 6, 1, 0, 1, 2, 0]
    assert not set(range(58, 72)) & set(UNPAIRED)


@pytest.mark.parametrize("model", ["alpb", "gbsa", "cpcm"])
def test_water_dissolves_water_and_hexane_less(model: Any) -> None:
    def solvation(solvent: str) -> float:
        config = XtbOracleConfig(property="solvation_energy", solvent=solvent, solvation=model)
        answer = config.build().evaluate(WATER_SAMPLE, CONTEXT)
        assert answer.fidelity == f"gfn2 {model} {solvent}"
        return answer.value

    assert -12 < solvation("water") < solvation("hexane") < 0


def test_the_engines_dissolve_alike() -> None:
    dissolved = Solvation("gbsa", "water")
    energies = [
        open_engine(name, "gfn2", dissolved).single_point(read_geometry(WATER_SAMPLE), 300.0).energy
        for name in ("tblite", "xtb")  # type: ignore[misc]
    ]
    assert energies[0] == pytest.approx(energies[1], abs=1e-5)


@pytest.mark.parametrize(
    ("engine", "model"), [("tblite", "alpb"), ("tblite", "gbsa"), ("tblite", "cpcm"), ("xtb", "gbsa")]
)
def test_forces_in_a_solvent_are_slopes_of_the_energy_there(engine: Any, model: Any) -> None:
    dissolved = open_engine(engine, "gfn2", Solvation(model, "water"))
    molecule = read_geometry(WATER_SAMPLE)
    shift = np.zeros((3, 3))
    shift[1, 2] = 1e-3
    energies = [
        dissolved.single_point(molecule.moved(molecule.positions + s * shift), 300.0).energy for s in (1, -1)
    ]
    slope = (energies[0] - energies[1]) / 2e-3
    assert dissolved.single_point(molecule, 300.0).gradient[1, 2] == pytest.approx(slope, abs=2e-6)


@pytest.mark.parametrize("engine", ["tblite", "xtb"])
def test_an_unknown_solvent_is_refused_when_the_oracle_is_built(engine: Any) -> None:
    config = XtbOracleConfig(property="gap", solvent="soup", engine=engine, solvation="gbsa")
    with pytest.raises(InputError, match="soup"):
        config.build()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"property": "solvation_energy"}, "needs a solvent; set solvent: water"),
        ({"property": "gap", "engine": "xtb", "solvent": "water"}, "gbsa only, got solvation: alpb"),
        ({"desirability": {"margin": 1.0}}, "expected low, high or both"),
        ({"desirability": {"low": 3, "high": 1, "margin": 1.0}}, "low up to high"),
        ({"multiplicity": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        XtbOracleConfig.model_validate({"kind": "xtb", **fields})


def test_charge_and_multiplicity_are_taken_or_refused_in_one_line() -> None:
    def energy(**fields: Any) -> float:
        return XtbOracleConfig(property="energy", **fields).build().evaluate(WATER_SAMPLE, CONTEXT).value

    neutral = energy()
    assert energy(charge=0, multiplicity=1) == neutral
    assert (energy(charge=1) - neutral) * 27.211 == pytest.approx(12.6 + 4.846, abs=3.0)  # GFN shifts ionisations
    assert energy(multiplicity=3) > neutral
    assert energy(charge=1) == energy(charge=1, multiplicity=2)
    with pytest.raises(OracleFailure, match="10 electrons at charge \\+0 cannot have multiplicity 2") as caught:
        energy(multiplicity=2)
    assert caught.value.stage == "electrons"
    with pytest.raises(OracleFailure, match="neutral molecule") as caught:
        XtbOracleConfig(property="atomization_energy", charge=1).build().evaluate(WATER_SAMPLE, CONTEXT)
    assert caught.value.stage == "electrons"
    assert XtbOracleConfig(multiplicity=2).build().known_answer() is None


def test_a_window_answers_how_desirable_the_property_is() -> None:
    window = Desirability(low=5.0, high=7.0, margin=2.0, exponent=2.0)
    assert [window.of(value) for value in (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)] == [
        0,
        0,
        0.25,
        1,
        1,
        1,
        0.25,
        0,
    ]
    assert Desirability(low=5.0, margin=2.0).of(99.0) == Desirability(high=5.0, margin=2.0).of(-99.0) == 1
    oracle = XtbOracleConfig(property="gap", desirability=Desirability(low=5, high=14, margin=2)).build()
    answer = oracle.evaluate(WATER_SAMPLE, CONTEXT)
    assert oracle.unit == ""
    assert answer.value == pytest.approx(1 - (answer.properties["gap"] - 14) / 2)


def test_what_was_not_there_before_is_no_part_of_the_identity_where_it_is_not_used() -> None:
    """Otherwise campaigns that began under an earlier version would not be resumed."""
    plain = XtbOracleConfig().identity()
    assert not {"charge", "multiplicity", "solvent", "solvation", "desirability"} & set(plain)
    config = XtbOracleConfig(solvent="water", charge=-1, desirability=Desirability(low=1, margin=1))
    assert set(config.identity()) - set(plain) == {"solvent", "charge", "desirability"}
    assert XtbOracleConfig.model_validate_json(config.model_dump_json()) == config
