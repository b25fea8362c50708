"""The xTB oracle against its other engine, against itself turned around, and against published numbers."""

import ctypes
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pilotwave.errors import MissingDependencyError, OracleFailure
from pilotwave.protocols import QueryContext
from pilotwave.samples import MoleculeSample, Sample
from pilotwave.testing.oracle_contract import OracleContract
from pilotwave_oracles.engine import EngineError, OneThread, ScfNotConvergedError, SinglePoint, open_engine
from pilotwave_oracles.geometry import BOHR, Geometry, read_geometry
from pilotwave_oracles.measure_water import water_values
from pilotwave_oracles.relaxation import bond_change, relax
from pilotwave_oracles.xtb import AT_A_MINIMUM, XtbOracleConfig
from pilotwave_oracles.xtb_oracle import TEMPERATURES, XtbOracle, check_linear_response
from pilotwave_oracles.xtb_properties import (
    GROUND_STATE,
    UNITS,
    polarizability_properties,
    polarizability_tensor,
)
from pilotwave_oracles.xtb_water import WATER, WATER_VALUES

CONTEXT = QueryContext("q")


class TestPolarizabilityContract(OracleContract):
    def config(self) -> XtbOracleConfig:
        return XtbOracleConfig()


class TestGapContract(OracleContract):
    def config(self) -> XtbOracleConfig:
        return XtbOracleConfig(property="gap", engine="xtb")


class TestRelaxedContract(OracleContract):
    def config(self) -> XtbOracleConfig:
        return XtbOracleConfig(property="energy_per_atom", relax=True)


@pytest.fixture(scope="module")
def geometries(qm9_molecules: list[Any]) -> list[Geometry]:
    return [read_geometry(molecule.sample) for molecule in qm9_molecules]


def test_the_two_engines_agree_to_a_millionth_of_a_hartree(geometries: list[Geometry]) -> None:
    tblite, xtb = open_engine("tblite", "gfn2"), open_engine("xtb", "gfn2")
    for geometry in geometries:
        ours, theirs = tblite.single_point(geometry, 300.0), xtb.single_point(geometry, 300.0)
        assert ours.energy == pytest.approx(theirs.energy, abs=1e-6)
        np.testing.assert_allclose(ours.gradient, theirs.gradient, atol=1e-5)
        np.testing.assert_allclose(ours.dipole, theirs.dipole, atol=2e-4)
        occupied = ours.occupations > 0.5
        np.testing.assert_allclose(ours.orbital_energies[occupied], theirs.orbital_energies[occupied], atol=1e-5)


@pytest.mark.parametrize("method", ["gfn2", "gfn1"])
@pytest.mark.parametrize("engine", ["tblite", "xtb"])
def test_the_known_answers_are_what_both_engines_measure(engine: Any, method: Any) -> None:
    measured = water_values(engine, method)
    known = WATER_VALUES[method]
    assert set(known) == set(UNITS) - {"solvation_energy"} - (AT_A_MINIMUM if method == "gfn1" else set())
    assert set(known) - set(measured) == (set() if engine == "tblite" else {"polarizability"})
    assert {name: measured[name] for name in known if name in measured} == pytest.approx(
        {name: value for name, value in known.items() if name in measured}, abs=1e-4
    )


def test_the_response_is_linear_and_does_not_depend_on_the_field_step(geometries: list[Geometry]) -> None:
    engine = open_engine("tblite", "gfn2")
    for geometry in geometries[:8]:
        full, half = (
            polarizability_properties(polarizability_tensor(engine, geometry, 300.0, step))["polarizability"]
            for step in (1e-3, 5e-4)
        )
        assert half == pytest.approx(full, rel=5e-4)


def test_the_polarizability_does_not_depend_on_how_the_molecule_lies(geometries: list[Geometry]) -> None:
    engine = open_engine("tblite", "gfn2")
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    for geometry in geometries[:8]:
        turned = geometry.moved(geometry.positions @ rotation + [3.0, -1.0, 2.0])
        here, there = (polarizability_tensor(engine, item, 300.0, 1e-3) for item in (geometry, turned))
        np.testing.assert_allclose(rotation.T @ here @ rotation, there, atol=2e-2)
        assert polarizability_properties(there) == pytest.approx(
            polarizability_properties(here), rel=1e-3, abs=1e-2
        )


def test_polarizabilities_rank_molecules_as_density_functional_theory_does(qm9_molecules: list[Any]) -> None:
    oracle = XtbOracleConfig().build()
    values = np.array([oracle.evaluate(item.sample, CONTEXT).value for item in qm9_molecules])
    published = np.array([item.polarizability for item in qm9_molecules])
    assert np.corrcoef(values, published)[0, 1] > 0.95
    assert (values < 1.05 * published).all()  # a minimal basis has too little room to polarise


def test_everything_that_costs_nothing_comes_along(qm9_molecules: list[Any]) -> None:
    benzene = next(item.sample for item in qm9_molecules if item.sample.smiles == "c1ccccc1")
    answer = XtbOracleConfig().build().evaluate(benzene, CONTEXT)
    assert (answer.fidelity, answer.cost) == ("gfn2", 1.0)
    assert set(answer.properties) == GROUND_STATE | {"polarizability_anisotropy"}
    assert answer.properties["gap"] == pytest.approx(answer.properties["lumo"] - answer.properties["homo"])
    assert answer.properties["dipole"] == pytest.approx(0.0, abs=1e-2)
    for name in ("gap", "homo", "lumo", "dipole", "energy_per_atom"):
        alone = XtbOracleConfig(property=name).build().evaluate(benzene, CONTEXT)
        assert alone.value == answer.properties[name]


def test_relaxation_goes_downhill_to_a_minimum_and_keeps_the_bonds(geometries: list[Geometry]) -> None:
    engine = open_engine("tblite", "gfn2")
    for geometry in geometries[:6]:
        relaxed = relax(engine, geometry, 300.0, 200)
        before, after = engine.single_point(geometry, 300.0), engine.single_point(relaxed, 300.0)
        assert after.energy < before.energy
        assert np.abs(after.gradient).max() <= 5e-4
        assert bond_change(relaxed) is None


def test_a_relaxed_answer_says_so_and_differs(qm9_molecules: list[Any]) -> None:
    sample = qm9_molecules[5].sample
    plain = XtbOracleConfig(property="energy_per_atom").build().evaluate(sample, CONTEXT)
    relaxed = XtbOracleConfig(property="energy_per_atom", relax=True).build().evaluate(sample, CONTEXT)
    assert (plain.fidelity, relaxed.fidelity) == ("gfn2", "gfn2 relaxed")
    assert relaxed.value < plain.value


FORMALDEHYDE_WITH_A_HYDROGEN_AFAR = """
  pilotwave

  4  3  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.1000 C   0  0
    0.0000    1.1800    0.1000 O   0  0
    0.9400   -0.5400    0.1000 H   0  0
   -2.9400   -1.5400    0.1000 H   0  0
  1  2  2  0
  1  3  1  0
  1  4  1  0
M  END
"""


def test_a_relaxation_that_changes_the_bonds_fails_and_names_one() -> None:
    sample = MoleculeSample(FORMALDEHYDE_WITH_A_HYDROGEN_AFAR, "C=O")
    assert bond_change(read_geometry(sample)) == "the bond C1-H4 broke (3.32 Å)"
    torn = MoleculeSample(WATER.replace("0.1064 O", "5.1064 O").replace("0.7712", "0.3700"), "O")
    with pytest.raises(OracleFailure, match="the relaxation changed the molecule: the bond") as caught:
        XtbOracleConfig(property="gap", relax=True).build().evaluate(torn, CONTEXT)
    assert caught.value.stage == "relax"


def test_a_relaxation_without_enough_steps_fails(qm9_molecules: list[Any]) -> None:
    oracle = XtbOracleConfig(property="gap", relax=True, relax_steps=1).build()
    with pytest.raises(OracleFailure, match="did not converge") as caught:
        oracle.evaluate(qm9_molecules[5].sample, CONTEXT)
    assert (caught.value.stage, caught.value.retryable) == ("relax", False)


class StubbornEngine:
    """The real engine, except that it converges from a given temperature up only, or not in fields."""

    def __init__(self, lowest: float, fields_converge: bool = True) -> None:
        self._engine = open_engine("tblite", "gfn2")
        self.name, self.version, self.fields = self._engine.name, self._engine.version, True
        self._lowest, self._fields_converge = lowest, fields_converge

    def single_point(
        self, geometry: Geometry, temperature: float, field: tuple[float, float, float] | None = None
    ) -> SinglePoint:
        if temperature < self._lowest or (field is not None and not self._fields_converge):
            raise ScfNotConvergedError("SCF not converged in 250 cycles")
        return self._engine.single_point(geometry, temperature, field)


def with_engine(config: XtbOracleConfig, engine: StubbornEngine) -> XtbOracle:
    oracle = XtbOracle(config)
    oracle._engine = engine
    return oracle


@pytest.mark.parametrize(("lowest", "fidelity"), [(0, "gfn2"), (500, "gfn2@1000K"), (2000, "gfn2@3000K")])
def test_what_does_not_converge_is_tried_hotter_and_marked(lowest: float, fidelity: str) -> None:
    oracle = with_engine(XtbOracleConfig(), StubbornEngine(lowest))
    assert oracle.evaluate(MoleculeSample(WATER, "O"), CONTEXT).fidelity == fidelity


def test_what_never_converges_fails_at_its_stage() -> None:
    water = MoleculeSample(WATER, "O")
    with pytest.raises(OracleFailure, match="no convergence at 300, 1000, 3000 K") as caught:
        with_engine(XtbOracleConfig(), StubbornEngine(1e9)).evaluate(water, CONTEXT)
    assert caught.value.stage == "scf"
    with pytest.raises(OracleFailure, match="no convergence") as caught:
        with_engine(XtbOracleConfig(), StubbornEngine(0, fields_converge=False)).evaluate(water, CONTEXT)
    assert caught.value.stage == "field"


def test_the_engines_say_when_the_scf_did_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = read_geometry(MoleculeSample(WATER, "O"))
    from tblite.interface import Calculator as TbliteCalculator
    from xtb.interface import Calculator as XtbCalculator

    tblite_run, xtb_run = TbliteCalculator.singlepoint, XtbCalculator.singlepoint

    def two_cycles_of_tblite(self: Any, *args: Any, **options: Any) -> Any:
        self.set("max-iter", 2)
        return tblite_run(self, *args, **options)

    def two_cycles_of_xtb(self: Any, *args: Any, **options: Any) -> Any:
        self.set_max_iterations(2)
        return xtb_run(self, *args, **options)

    monkeypatch.setattr(TbliteCalculator, "singlepoint", two_cycles_of_tblite)
    monkeypatch.setattr(XtbCalculator, "singlepoint", two_cycles_of_xtb)
    for name in ("tblite", "xtb"):
        with pytest.raises(ScfNotConvergedError):
            open_engine(name, "gfn2").single_point(geometry, TEMPERATURES[0])  # type: ignore[arg-type]


def atom(symbol: str, extra: str = "") -> Sample:
    counts = "  1  0  0  0  0  0  0  0  0  0999 V2000"
    return MoleculeSample(
        f"\n\n\n{counts}\n    0.0000    0.0000    0.0000 {symbol:<3} 0  0\n{extra}M  END\n", symbol
    )


def test_charge_and_unpaired_electrons_are_read_from_the_molecule() -> None:
    sodium = read_geometry(atom("Na", "M  CHG  1   1   1\n"))
    hydrogen = read_geometry(atom("H", "M  RAD  1   1   2\n"))
    water = read_geometry(MoleculeSample(WATER, "O"))
    assert [(g.charge, g.unpaired) for g in (sodium, hydrogen, water)] == [(1, 0), (0, 1), (0, 0)]
    assert water.bonds == {(0, 1), (0, 2)}
    assert np.linalg.norm(water.positions[1] - water.positions[0]) * BOHR == pytest.approx(0.9592, abs=1e-3)
    engine = open_engine("tblite", "gfn2")
    assert engine.single_point(hydrogen, 300.0).occupations.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("sample", "stage", "words"),
    [
        (MoleculeSample("nonsense", "?"), "parse", "mol block"),
        (atom("C"), "parse", "4 are missing"),
        (MoleculeSample(WATER.replace("0.7712", "0.0200"), "O"), "parse", "at least 0.5 Å apart"),
        (atom("Og"), "scf", "86"),
    ],
)
def test_what_xtb_cannot_take_fails_with_its_stage(sample: Sample, stage: str, words: str) -> None:
    with pytest.raises(OracleFailure, match=words) as caught:
        XtbOracleConfig(property="energy_per_atom").build().evaluate(sample, CONTEXT)
    assert caught.value.stage == stage


def test_an_element_without_parameters_fails_in_both_engines_and_crashes_neither() -> None:
    for engine in ("tblite", "xtb"):
        with pytest.raises(EngineError, match="86"):
            open_engine(engine, "gfn2").single_point(read_geometry(atom("Og")), 300.0)  # type: ignore[arg-type]


def test_a_tensor_of_two_states_is_no_polarizability() -> None:
    check_linear_response(np.diag([10.0, 20.0, 30.0]))
    with pytest.raises(OracleFailure, match="asymmetry 5"):
        check_linear_response(np.array([[20.0, 5.0, 0.0], [0.0, 20.0, 0.0], [0.0, 0.0, 20.0]]))
    with pytest.raises(OracleFailure, match="eigenvalue is -1"):
        check_linear_response(np.diag([10.0, -1.0, 30.0]))


def test_the_xtb_engine_has_no_field_and_the_configuration_says_so_in_one_line() -> None:
    with pytest.raises(ValidationError, match="use engine: tblite"):
        XtbOracleConfig(engine="xtb")
    geometry = read_geometry(MoleculeSample(WATER, "O"))
    with pytest.raises(EngineError, match="use engine: tblite"):
        open_engine("xtb", "gfn2").single_point(geometry, 300.0, (1e-3, 0.0, 0.0))


def test_an_engine_runs_on_one_thread_and_leaves_the_setting_as_it_was() -> None:
    from tblite import _libtblite

    library = ctypes.CDLL(_libtblite.__file__)
    library.omp_set_num_threads(3)
    one_thread = OneThread(_libtblite.__file__)
    with one_thread:
        assert library.omp_get_max_threads() == 1
    assert library.omp_get_max_threads() == 3
    open_engine("tblite", "gfn2").single_point(read_geometry(MoleculeSample(WATER, "O")), 300.0)
    assert library.omp_get_max_threads() == 3
    library.omp_set_num_threads(1)


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = XtbOracleConfig(property="gap", engine="xtb", relax=True)
    assert config.missing_packages() == ["rdkit", "xtb", "scipy"]
    with pytest.raises(MissingDependencyError, match=r"pip install 'pilotwave\[molecules\]'"):
        config.build()


def test_the_version_changes_with_whatever_changes_the_value() -> None:
    configs: list[dict[str, Any]] = [
        {},
        {"field_step": 2e-3},
        {"method": "gfn1"},
        {"relax": True},
        {"relax": True, "relax_steps": 50},
        {"property": "gap"},
        {"property": "gap", "engine": "xtb"},
    ]
    versions = {XtbOracleConfig(**fields).build().version for fields in configs}
    assert len(versions) == len(configs)
