"""The xTB oracle at work, see :mod:`pilotwave_oracles.xtb` for how it is set.

May import numpy, pilotwave and pilotwave_oracles; tblite, xtb, scipy and RDKit when it is built or asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pilotwave.errors import OracleFailure
from pilotwave.protocols import KnownAnswer, QueryContext
from pilotwave.samples import MoleculeSample, Sample
from pilotwave.types import Answer
from pilotwave_oracles.engine import EngineError, ScfNotConvergedError, Solvation, open_engine
from pilotwave_oracles.free_atoms import FreeAtoms
from pilotwave_oracles.geometry import Geometry, read_geometry
from pilotwave_oracles.relaxation import relax
from pilotwave_oracles.thermochemistry import (
    KILOCALORIES,
    heat_capacity,
    relaxed_vibrations,
    zero_point_energy,
)
from pilotwave_oracles.xtb import XtbOracleConfig
from pilotwave_oracles.xtb_properties import (
    EV,
    UNITS,
    ground_state_properties,
    polarizability_properties,
    polarizability_tensor,
)
from pilotwave_oracles.xtb_water import WATER, WATER_VALUES

TEMPERATURES = (300.0, 1000.0, 3000.0)
"""Electronic temperatures (K), tried in turn until the SCF converges; all but the first lower the fidelity."""

ASYMMETRY_LIMIT = 0.05
"""Of the isotropic polarizability. A response tensor is symmetric; one that is not by more than this has mixed
electronic states between the fields, and its trace means nothing. QM9 molecules stay below 1e-4."""


class XtbOracle:
    """See :class:`pilotwave_oracles.xtb.XtbOracleConfig` and :class:`pilotwave.protocols.Oracle`.

    The fidelity of an answer is the method, with the electronic temperature if 300 K did not converge, the
    solvent if there is one, and ``relaxed`` if the geometry was: ``"gfn2"``, ``"gfn2@1000K"``, ``"gfn2 relaxed"``,
    ``"gfn2 alpb water relaxed"``.
    """

    media = frozenset({"molecule"})
    deterministic = True

    def __init__(self, config: XtbOracleConfig) -> None:
        self._config = config
        solvation = None if config.solvent is None else Solvation(config.solvation, config.solvent)
        self._engine = open_engine(config.engine, config.method, solvation)
        self._vacuum = open_engine(config.engine, config.method) if solvation else self._engine
        self._free_atoms = FreeAtoms(self._vacuum)
        self.name = f"xtb:{config.property}"
        self.unit = UNITS[config.property] if config.desirability is None else ""
        self.version = ", ".join([f"{self._engine.name} {self._engine.version}", *_what_changes_values(config)])

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Computes the property, and with it all the others that cost nothing more.

        Raises:
            OracleFailure: Stage ``"media"`` or ``"parse"``: no molecule that xTB can take; ``"electrons"``: charge
                and spin do not fit it; ``"scf"``: no convergence at any temperature, or no parameters for an
                element; ``"field"``: the same in an electric field, or no linear response; ``"relax"``: not
                converged, or the bonds changed; ``"hessian"``: no minimum was found.
        """
        geometry = read_geometry(sample).with_electrons(self._config.charge, self._config.multiplicity)
        failures: list[_NotConvergedError] = []
        for temperature in TEMPERATURES:
            try:
                return self._answer(geometry, temperature)
            except _NotConvergedError as error:
                failures.append(error)
        tried = ", ".join(f"{temperature:g}" for temperature in TEMPERATURES)
        raise OracleFailure(f"no convergence at {tried} K: {failures[-1]}", stage=failures[-1].stage)

    def known_answer(self) -> KnownAnswer | None:
        """Asks about water at its GFN2 minimum; with other electrons or in a solvent only that it works.

        The same holds for a relaxation by GFN1, which moves it. None if water cannot have the multiplicity.
        """
        config = self._config
        sample = MoleculeSample(WATER, "O")
        if config.charge is not None or config.multiplicity is not None:
            try:
                read_geometry(sample).with_electrons(config.charge, config.multiplicity)
            except OracleFailure:
                return None
            return KnownAnswer(sample)
        value = WATER_VALUES[config.method].get(config.property)
        if value is None or config.solvent is not None or (config.relaxes() and config.method != "gfn2"):
            return KnownAnswer(sample)
        tolerance = 1e-3 * max(1.0, abs(value))
        if config.desirability is None:
            return KnownAnswer(sample, value, tolerance)
        wished = config.desirability
        return KnownAnswer(sample, wished.of(value), wished.tolerance(value, tolerance))

    def _answer(self, geometry: Geometry, temperature: float) -> Answer:
        with _at_stage("scf"):
            values, geometry = self._relaxed(geometry, temperature) if self._config.relaxes() else ({}, geometry)
            point = self._engine.single_point(geometry, temperature)
            if "strain" in values:
                values["strain"] = (values["strain"] - point.energy) * KILOCALORIES
            values |= ground_state_properties(point, geometry.unpaired)
            values |= self._energy_differences(geometry, temperature, point.energy)
        if self._config.property == "polarizability":
            values |= self._polarizability(geometry, temperature)
        if self._config.property not in values:
            raise OracleFailure(f"this molecule has no {self._config.property} in a minimal basis", stage="scf")
        wished = self._config.desirability
        if wished is not None:
            return Answer(wished.of(values[self._config.property]), values, self._fidelity(temperature))
        return Answer(values.pop(self._config.property), values, self._fidelity(temperature))

    def _relaxed(self, geometry: Geometry, temperature: float) -> tuple[dict[str, float], Geometry]:
        """Returns what comes with a relaxation, ``strain`` still as the energy (hartree) before it."""
        values = {"strain": self._engine.single_point(geometry, temperature).energy}
        if self._config.property != "heat_capacity":
            return values, relax(self._engine, geometry, temperature, self._config.relax_steps)
        relaxed, wavenumbers = relaxed_vibrations(self._engine, geometry, temperature, self._config.relax_steps)
        values["heat_capacity"] = heat_capacity(wavenumbers, len(geometry.numbers))
        values["zero_point_energy"] = zero_point_energy(wavenumbers)
        if len(wavenumbers):
            values["lowest_wavenumber"] = float(wavenumbers[0])
        return values, relaxed

    def _energy_differences(self, geometry: Geometry, temperature: float, energy: float) -> dict[str, float]:
        """Returns, only if it is asked for, what needs the energies of other systems."""
        values = {}
        if self._config.property == "solvation_energy":
            in_vacuum = self._vacuum.single_point(geometry, temperature).energy
            values["solvation_energy"] = (energy - in_vacuum) * KILOCALORIES
        if self._config.property == "atomization_energy":
            # the atoms stay in vacuum: with a solvent this is the energy of bringing them together there
            values["atomization_energy"] = self._free_atoms.atomization_energy(geometry, energy, temperature) * EV
        return values

    def _polarizability(self, geometry: Geometry, temperature: float) -> dict[str, float]:
        with _at_stage("field"):
            tensor = polarizability_tensor(self._engine, geometry, temperature, self._config.field_step)
        check_linear_response(tensor)
        return polarizability_properties(tensor)

    def _fidelity(self, temperature: float) -> str:
        config = self._config
        heated = "" if temperature == TEMPERATURES[0] else f"@{temperature:.0f}K"
        solvated = "" if config.solvent is None else f" {config.solvation} {config.solvent}"
        return f"{config.method}{heated}{solvated}{' relaxed' if config.relaxes() else ''}"


def _what_changes_values(config: XtbOracleConfig) -> list[str]:
    parts: list[str] = [config.method]
    if config.property == "polarizability":
        parts.append(f"field {config.field_step:g}")
    if config.relaxes():
        parts.append(f"relaxed in {config.relax_steps} steps")
    if config.charge is not None:
        parts.append(f"charge {config.charge}")
    if config.multiplicity is not None:
        parts.append(f"multiplicity {config.multiplicity}")
    if config.solvent is not None:
        parts.append(f"{config.solvation} {config.solvent}")
    if config.desirability is not None:
        parts.append(f"desirability {config.desirability}")
    return parts


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


__all__ = ["TEMPERATURES", "XtbOracle", "check_linear_response"]
