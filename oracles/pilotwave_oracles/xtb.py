"""The xTB oracle: semi-empirical quantum chemistry of a molecule in milliseconds (kind ``xtb``).

Method: GFN2-xTB, C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019); or GFN1-xTB,
S. Grimme, C. Bannwarth, P. Shushkov, J. Chem. Theory Comput. 13, 1989 (2017). May import pilotwave and
pilotwave_oracles; tblite, xtb, scipy and RDKit only when the oracle is built or asked.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pilotwave.config.components import OracleConfig, TimeLimit
from pilotwave.errors import OracleFailure
from pilotwave.protocols import KnownAnswer, Oracle, QueryContext
from pilotwave.samples import MoleculeSample, Sample
from pilotwave.types import Answer
from pilotwave_oracles.engine import EngineError, EngineName, Method, ScfNotConvergedError, open_engine
from pilotwave_oracles.geometry import Geometry, read_geometry
from pilotwave_oracles.relaxation import relax
from pilotwave_oracles.xtb_properties import (
    UNITS,
    ground_state_properties,
    polarizability_properties,
    polarizability_tensor,
)

XtbProperty = Literal["polarizability", "gap", "homo", "lumo", "dipole", "energy_per_atom"]

TEMPERATURES = (300.0, 1000.0, 3000.0)
"""Electronic temperatures (K), tried in turn until the SCF converges; all but the first lower the fidelity."""

ASYMMETRY_LIMIT = 0.05
"""Of the isotropic polarizability. A response tensor is symmetric; one that is not by more than this has mixed
electronic states between the fields, and its trace means nothing. QM9 molecules stay below 1e-4."""

WATER = """water at its GFN2-xTB minimum
  pilotwave

  3  2  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.1064 O   0  0
    0.0000    0.7712   -0.4635 H   0  0
    0.0000   -0.7712   -0.4635 H   0  0
  1  2  1  0
  1  3  1  0
M  END
"""

WATER_VALUES: dict[Method, dict[XtbProperty, float]] = {
    "gfn2": {
        "polarizability": 2.427356,
        "gap": 14.412849,
        "homo": -12.148869,
        "lumo": 2.263979,
        "dipole": 2.21995,
        "energy_per_atom": -1.690181,
    },
    "gfn1": {
        "polarizability": 1.889587,
        "gap": 9.342329,
        "homo": -13.603772,
        "lumo": -4.261443,
        "dipole": 2.772829,
        "energy_per_atom": -1.922925,
    },
}
"""Measured by ``python -m pilotwave_oracles.measure_water`` with tblite 0.8.0, and without a field also by
xtb 22.1, to 2e-5. The basis is minimal, so the polarizability is far below the experiment's 9.8 bohr^3: these
numbers check the installation, not the method."""


class XtbOracleConfig(OracleConfig):
    """Asks xTB for one property of a molecule at the geometry that was generated, or relaxed from there."""

    media: ClassVar[frozenset[str]] = frozenset({"molecule"})
    packages: ClassVar[tuple[str, ...]] = ("rdkit", "tblite")
    extra: ClassVar[str | None] = "molecules"
    summary: ClassVar[str] = "xTB quantum chemistry: polarizability, gap, HOMO, LUMO, dipole, energy per atom."

    kind: Literal["xtb"] = "xtb"
    property: XtbProperty = Field(
        "polarizability",
        description="What is asked: polarizability (isotropic, bohr^3), gap, homo, lumo (eV), dipole (debye), "
        "energy_per_atom (hartree).",
    )
    method: Method = Field("gfn2", description="The Hamiltonian: gfn2 (GFN2-xTB) or gfn1 (GFN1-xTB).")
    engine: EngineName = Field(
        "tblite",
        description="The program: tblite, or xtb (xtb-python), which is slower and has no electric field.",
    )
    relax: bool = Field(False, description="Relax the geometry first; a change of bonds fails the evaluation.")
    relax_steps: int = Field(200, ge=1, le=10_000, description="Steps that a relaxation may take.")
    field_step: float = Field(
        1e-3,
        ge=1e-5,
        le=1e-2,
        description="Field of the finite differences for the polarizability, hartree / (e bohr).",
    )
    time_limit: TimeLimit = Field(
        120.0,
        description="Wall-clock seconds for one attempt at one query; auto: learned from how long answers take.",
    )
    recycle_after: int | None = Field(
        1000,
        ge=1,
        description="Replace the oracle's process after so many answers, because xtb-python leaks.",
    )

    @model_validator(mode="after")
    def _engine_has_fields(self) -> XtbOracleConfig:
        if self.property == "polarizability" and self.engine == "xtb":
            raise ValueError(
                "property: polarizability needs an engine with electric fields, got engine: xtb, which has none; "
                "use engine: tblite"
            )
        return self

    def missing_packages(self) -> list[str]:
        """Returns what this engine needs and lacks; see the base class."""
        needed = ["rdkit", self.engine, *(["scipy"] if self.relax else [])]
        return [name for name in needed if importlib.util.find_spec(name) is None]

    def build(self) -> Oracle:
        """Imports the engine and returns the oracle.

        Raises:
            MissingDependencyError: A package is not installed.
        """
        self.check_dependencies()
        return XtbOracle(self)


class XtbOracle:
    """See :class:`XtbOracleConfig` and :class:`pilotwave.protocols.Oracle`.

    The fidelity of an answer is the method, with the electronic temperature if 300 K did not converge and
    with ``relaxed`` if the geometry was: ``"gfn2"``, ``"gfn2@1000K"``, ``"gfn2 relaxed"``.
    """

    media = frozenset({"molecule"})
    deterministic = True

    def __init__(self, config: XtbOracleConfig) -> None:
        self._config = config
        self._engine = open_engine(config.engine, config.method)
        self.name = f"xtb:{config.property}"
        self.unit = UNITS[config.property]
        parts = [f"{self._engine.name} {self._engine.version}", config.method]
        if config.property == "polarizability":
            parts.append(f"field {config.field_step:g}")
        if config.relax:
            parts.append(f"relaxed in {config.relax_steps} steps")
        self.version = ", ".join(parts)

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Computes the property, and with it all the others that cost nothing more.

        Raises:
            OracleFailure: Stage ``"media"`` or ``"parse"``: no molecule that xTB can take; ``"scf"``: no
                convergence at any temperature, or no parameters for an element; ``"field"``: the same in an
                electric field, or no linear response; ``"relax"``: not converged, or the bonds changed.
        """
        geometry = read_geometry(sample)
        failures: list[_NotConvergedError] = []
        for temperature in TEMPERATURES:
            try:
                return self._answer(geometry, temperature)
            except _NotConvergedError as error:
                failures.append(error)
        tried = ", ".join(f"{temperature:g}" for temperature in TEMPERATURES)
        raise OracleFailure(f"no convergence at {tried} K: {failures[-1]}", stage=failures[-1].stage)

    def known_answer(self) -> KnownAnswer:
        """Asks about water at its GFN2 minimum; for a relaxation by GFN1, which moves it, only that it works."""
        sample = MoleculeSample(WATER, "O")
        if self._config.relax and self._config.method != "gfn2":
            return KnownAnswer(sample)
        value = WATER_VALUES[self._config.method][self._config.property]
        return KnownAnswer(sample, value, tolerance=1e-3 * max(1.0, abs(value)))

    def _answer(self, geometry: Geometry, temperature: float) -> Answer:
        with _at_stage("scf"):
            if self._config.relax:
                geometry = relax(self._engine, geometry, temperature, self._config.relax_steps)
            point = self._engine.single_point(geometry, temperature)
        values = ground_state_properties(point, geometry.unpaired)
        if self._config.property == "polarizability":
            values |= self._polarizability(geometry, temperature)
        value = values.pop(self._config.property, None)
        if value is None:
            raise OracleFailure(f"this molecule has no {self._config.property} in a minimal basis", stage="scf")
        return Answer(value, values, self._fidelity(temperature))

    def _polarizability(self, geometry: Geometry, temperature: float) -> dict[str, float]:
        with _at_stage("field"):
            tensor = polarizability_tensor(self._engine, geometry, temperature, self._config.field_step)
        check_linear_response(tensor)
        return polarizability_properties(tensor)

    def _fidelity(self, temperature: float) -> str:
        heated = "" if temperature == TEMPERATURES[0] else f"@{temperature:.0f}K"
        return f"{self._config.method}{heated}{' relaxed' if self._config.relax else ''}"


class _NotConvergedError(Exception):
    """An SCF that did not converge, with the stage it belongs to."""

    def __init__(self, message: str, stage: str) -> None:
        super().__init__(message)
        self.stage = stage


@contextlib.contextmanager
def _at_stage(stage: str) -> Iterator[None]:
    try:
        yield
    except EngineError as error:
        raise OracleFailure(str(error), stage=stage) from error
    except ScfNotConvergedError as error:
        raise _NotConvergedError(str(error), stage) from error


def check_linear_response(tensor: NDArray[np.float64]) -> None:
    """Makes sure that a polarizability tensor, bohr^3 of shape (3, 3), is that of one electronic state.

    Raises:
        OracleFailure: Stage ``"field"``: it is not symmetric or not positive definite.
    """
    isotropic = float(np.trace(tensor)) / 3
    asymmetry = float(np.abs(tensor - tensor.T).max())
    smallest = float(np.linalg.eigvalsh((tensor + tensor.T) / 2)[0])
    if smallest <= 0 or asymmetry > ASYMMETRY_LIMIT * isotropic:
        raise OracleFailure(
            f"no linear response to the field: the tensor's smallest eigenvalue is {smallest:.3g} and its "
            f"asymmetry {asymmetry:.3g} bohr^3; a smaller field_step may help",
            stage="field",
        )


__all__ = ["TEMPERATURES", "XtbOracle", "XtbOracleConfig", "XtbProperty", "check_linear_response"]
