"""Geometry relaxation on the xTB surface, and the check that the molecule is still the same one afterwards.

May import numpy and pilotwave_oracles; scipy and RDKit inside functions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pilotwave.errors import OracleFailure
from pilotwave_oracles.engine import Engine
from pilotwave_oracles.geometry import BOHR, Geometry

GRADIENT_LIMIT = 5e-4
"""hartree / bohr; a geometry whose largest gradient component is below this is relaxed."""

BROKEN = 1.35
FORMED = 1.15
"""A bond is lost beyond 1.35 times, and a new one found within 1.15 times, the sum of the covalent radii. The gap
between the two leaves alone what is strained but not changed (bicyclo[1.1.1]pentane: 1.87 Å across)."""


def relax(
    engine: Engine,
    geometry: Geometry,
    temperature: float,
    step_limit: int,
    gradient_limit: float = GRADIENT_LIMIT,
) -> Geometry:
    """Returns the geometry of the nearest minimum, found by L-BFGS in Cartesian coordinates.

    Raises:
        OracleFailure: Stage ``"relax"``: not converged within ``step_limit`` steps, or bonds were broken or
            formed on the way (the candidate is then not the molecule that it claims to be).
        ScfNotConvergedError: At some step.
        EngineError: See the engine.
    """
    from scipy.optimize import minimize

    def energy_and_gradient(coordinates: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        point = engine.single_point(geometry.moved(coordinates.reshape(-1, 3)), temperature)
        return point.energy, point.gradient.ravel()

    outcome = minimize(
        energy_and_gradient,
        geometry.positions.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": step_limit, "maxfun": 3 * step_limit, "gtol": gradient_limit, "ftol": 1e-12},
    )
    relaxed = geometry.moved(np.asarray(outcome.x, dtype=np.float64).reshape(-1, 3))
    change = bond_change(relaxed)
    if change is not None:
        raise OracleFailure(f"the relaxation changed the molecule: {change}", stage="relax")
    largest = float(np.abs(outcome.jac).max())
    if largest > gradient_limit:
        raise OracleFailure(
            f"the relaxation did not converge: gradient {largest:.1e} hartree/bohr after {outcome.nit} steps; "
            "raise relax_steps",
            stage="relax",
        )
    return relaxed


def bond_change(geometry: Geometry) -> str | None:
    """Compares distances with the bonds that a molecule should have; returns the first difference or None."""
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    radii = np.array([table.GetRcovalent(int(number)) for number in geometry.numbers])
    positions = geometry.positions * BOHR
    lengths = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    ratios = lengths / (radii[:, None] + radii[None])
    for first in range(len(radii)):
        for second in range(first + 1, len(radii)):
            bonded = (first, second) in geometry.bonds
            ratio = ratios[first, second]
            if (bonded and ratio > BROKEN) or (not bonded and ratio < FORMED):
                ends = "-".join(
                    f"{table.GetElementSymbol(int(geometry.numbers[i]))}{i + 1}" for i in (first, second)
                )
                verb = "broke" if bonded else "formed"
                return f"the bond {ends} {verb} ({lengths[first, second]:.2f} Å)"
    return None


__all__ = ["BROKEN", "FORMED", "GRADIENT_LIMIT", "bond_change", "relax"]
