"""From single points to the numbers that chemists ask for.

May import numpy and pilotwave_oracles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pilotwave_oracles.engine import Engine, SinglePoint
from pilotwave_oracles.geometry import Geometry

EV = 27.211386245988
"""eV per hartree (CODATA 2018)."""

DEBYE = 2.541746473
"""debye per e bohr (CODATA 2018)."""

UNITS = {
    "polarizability": "bohr^3",
    "gap": "eV",
    "homo": "eV",
    "lumo": "eV",
    "dipole": "debye",
    "energy_per_atom": "hartree",
    "energy": "hartree",
    "atomization_energy": "eV",
    "strain": "kcal/mol",
    "heat_capacity": "cal/(mol K)",
    "solvation_energy": "kcal/mol",
}
"""The properties that the oracle can be asked for, with their units."""

GROUND_STATE = frozenset({"gap", "homo", "lumo", "dipole", "energy_per_atom", "energy"})
"""Those that every single point gives."""


def ground_state_properties(point: SinglePoint, unpaired: int) -> dict[str, float]:
    """Returns what a calculation without a field gives: :data:`GROUND_STATE`.

    HOMO and LUMO are counted, not read off occupations, which are fractional at an electronic temperature:
    with n valence electrons and u of them unpaired, the HOMO is orbital (n + u) / 2 and the LUMO the next.
    A molecule whose minimal basis has no empty orbital (helium) has no ``lumo`` and no ``gap``.
    """
    electrons = round(float(point.occupations.sum()))
    occupied = (electrons + unpaired) // 2
    values = {
        "dipole": float(np.linalg.norm(point.dipole)) * DEBYE,
        "energy": point.energy,
        "energy_per_atom": point.energy / len(point.gradient),
    }
    if occupied > 0:
        values["homo"] = float(point.orbital_energies[occupied - 1]) * EV
    if occupied < len(point.orbital_energies):
        values["lumo"] = float(point.orbital_energies[occupied]) * EV
    if "homo" in values and "lumo" in values:
        values["gap"] = values["lumo"] - values["homo"]
    return values


def polarizability_tensor(
    engine: Engine, geometry: Geometry, temperature: float, step: float
) -> NDArray[np.float64]:
    """Returns the static polarizability by central differences of the dipole in a field.

    alpha_ij = (mu_i(+F e_j) - mu_i(-F e_j)) / 2F; its error is of second order in F. It is symmetric only as
    far as the response is linear and converged.

    Args:
        engine: One with fields.
        geometry: The molecule.
        temperature: Electronic temperature, K.
        step: F, hartree / (e bohr).

    Returns:
        bohr^3, shape (3, 3).

    Raises:
        ScfNotConvergedError: In one of the six fields.
        EngineError: See the engine.
    """
    tensor = np.empty((3, 3))
    for axis in range(3):
        field = np.zeros(3)
        field[axis] = step
        forward = engine.single_point(geometry, temperature, (field[0], field[1], field[2]))
        backward = engine.single_point(geometry, temperature, (-field[0], -field[1], -field[2]))
        tensor[:, axis] = (forward.dipole - backward.dipole) / (2 * step)
    return tensor


def polarizability_properties(tensor: NDArray[np.float64]) -> dict[str, float]:
    """Returns the isotropic polarizability (a third of the trace) and the anisotropy, bohr^3."""
    tensor = (tensor + tensor.T) / 2
    deviation = tensor - np.eye(3) * np.trace(tensor) / 3
    return {
        "polarizability": float(np.trace(tensor)) / 3,
        "polarizability_anisotropy": float(np.sqrt(1.5 * np.sum(deviation**2))),
    }


__all__ = [
    "DEBYE",
    "EV",
    "GROUND_STATE",
    "UNITS",
    "ground_state_properties",
    "polarizability_properties",
    "polarizability_tensor",
]
