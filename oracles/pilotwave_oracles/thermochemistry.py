"""Vibrations and heat capacity of a relaxed molecule: rigid rotor, harmonic oscillator, ideal gas.

The heat capacity at constant volume is the sum of translation (3/2 R), rotation (3/2 R, R if linear, 0 for an
atom) and vibrations: R (x / 2 sinh(x / 2))^2 each, with x = h c nu / k T. D. A. McQuarrie, Statistical
Mechanics, University Science Books, 2000, chapters 6 and 8. May import numpy and pilotwave_oracles; RDKit
inside functions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pilotwave.errors import OracleFailure
from pilotwave_oracles.engine import Engine
from pilotwave_oracles.geometry import Geometry
from pilotwave_oracles.relaxation import relax

GAS_CONSTANT = 1.987204259
"""cal / (mol K) (CODATA 2018, thermochemical calorie)."""

KELVIN_PER_WAVENUMBER = 1.438776877
"""h c / k, K cm (CODATA 2018)."""

ELECTRON_MASSES_PER_DALTON = 1822.888486209
WAVENUMBER_PER_HARTREE = 219474.6313632

KILOCALORIES = 627.5094740631
"""kcal/mol per hartree (CODATA 2018, thermochemical calorie)."""

STEP = 5e-3
"""bohr; displacement of the finite differences. Twice and half of it change the heat capacities of QM9 molecules
by less than 0.01 cal / (mol K)."""

TIGHT_GRADIENT = 5e-5
"""hartree / bohr; soft vibrations need a minimum that is this well relaxed."""

IMAGINARY_ALLOWED = 30.0
"""cm^-1. A negative curvature below this is noise of a soft vibration, and counts as a vibration; one above it
is a way downhill: the geometry is a saddle point."""

NUDGE = 0.15
"""bohr; the length of the step off a saddle point."""

NUDGES = 3
"""How many saddle points a molecule may be pushed off."""


def relaxed_vibrations(
    engine: Engine, geometry: Geometry, temperature: float, step_limit: int
) -> tuple[Geometry, NDArray[np.float64]]:
    """Relaxes a molecule to a true minimum; returns it and its wavenumbers in ascending order, cm^-1.

    A relaxation keeps symmetry, so it may end on a saddle point; it is then pushed along the steepest way down
    and relaxed again.

    Args:
        engine: Whose energies.
        geometry: Where the relaxation begins.
        temperature: Electronic temperature, K.
        step_limit: Of each relaxation.

    Raises:
        OracleFailure: Stage ``"relax"``, see :func:`relax`; ``"hessian"``: a saddle point all the same.
        ScfNotConvergedError: At some step.
        EngineError: See the engine.
    """
    for _ in range(1 + NUDGES):
        geometry = relax(engine, geometry, temperature, step_limit, TIGHT_GRADIENT)
        wavenumbers, lowest_mode = vibrations(geometry, hessian(engine, geometry, temperature))
        if len(wavenumbers) == 0 or wavenumbers[0] > -IMAGINARY_ALLOWED:
            return geometry, np.sort(np.abs(wavenumbers))
        geometry = geometry.moved(geometry.positions + NUDGE * lowest_mode)
    raise OracleFailure(
        f"no minimum found: the relaxed geometry has an imaginary vibration of {-wavenumbers[0]:.0f} cm^-1",
        stage="hessian",
    )


def hessian(engine: Engine, geometry: Geometry, temperature: float) -> NDArray[np.float64]:
    """Returns the second derivatives of the energy by central differences of the gradient.

    Returns:
        hartree / bohr^2, symmetric, shape (3 atoms, 3 atoms).

    Raises:
        ScfNotConvergedError: At some displacement.
        EngineError: See the engine.
    """
    size = geometry.positions.size
    second = np.empty((size, size))
    for coordinate in range(size):
        displacement = np.zeros(size)
        displacement[coordinate] = STEP
        shift = displacement.reshape(-1, 3)
        forward, backward = (
            engine.single_point(geometry.moved(geometry.positions + sign * shift), temperature).gradient
            for sign in (1.0, -1.0)
        )
        second[coordinate] = (forward - backward).ravel() / (2 * STEP)
    return (second + second.T) / 2


def vibrations(
    geometry: Geometry, second_derivatives: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Diagonalises the mass-weighted Hessian without translations and rotations.

    Masses are those of the most common isotopes.

    Args:
        geometry: A stationary point.
        second_derivatives: hartree / bohr^2, shape (3 atoms, 3 atoms).

    Returns:
        Wavenumbers in ascending order, cm^-1, imaginary ones negative, shape (3 atoms - 6,), or one more if the
        molecule is linear, none for an atom; and the lowest one's motion, of length 1, shape (atoms, 3).
    """
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    dalton = np.array([table.GetMostCommonIsotopeMass(int(number)) for number in geometry.numbers])
    roots = np.repeat(np.sqrt(dalton * ELECTRON_MASSES_PER_DALTON), 3)
    internal = _internal_motions(geometry, roots)
    curvatures, modes = np.linalg.eigh(internal.T @ (second_derivatives / np.outer(roots, roots)) @ internal)
    wavenumbers = np.sign(curvatures) * np.sqrt(np.abs(curvatures)) * WAVENUMBER_PER_HARTREE
    if len(wavenumbers) == 0:
        return wavenumbers, np.zeros_like(geometry.positions)
    motion = (internal @ modes[:, 0]) / roots
    return wavenumbers, (motion / np.linalg.norm(motion)).reshape(-1, 3)


def _internal_motions(geometry: Geometry, roots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns an orthonormal basis of what is neither translation nor rotation, mass-weighted, in columns."""
    masses = roots[::3] ** 2
    centred = geometry.positions - (masses @ geometry.positions) / masses.sum()
    rigid = [np.tile(axis, len(masses)) * roots for axis in np.eye(3)]
    rigid += [np.cross(axis, centred).ravel() * roots for axis in np.eye(3)]
    left, lengths, _ = np.linalg.svd(np.array(rigid).T, full_matrices=True)
    # A linear molecule has one rotation less, an atom none; their columns vanish but for rounding.
    rank = int((lengths > 1e-4 * lengths[0]).sum())
    return left[:, rank:]


def heat_capacity(wavenumbers: NDArray[np.float64], atoms: int, temperature: float = 298.15) -> float:
    """Returns the heat capacity at constant volume, cal / (mol K).

    Args:
        wavenumbers: All vibrations, cm^-1, positive; their number tells whether the molecule is linear.
        atoms: How many.
        temperature: K.
    """
    rotations = 3 * atoms - 3 - len(wavenumbers)
    half = KELVIN_PER_WAVENUMBER * np.maximum(wavenumbers, 1e-3) / (2 * temperature)
    # x / sinh(x) by the decaying exponential alone, which does not overflow for stiff bonds
    oscillators = (2 * half * np.exp(-half) / -np.expm1(-2 * half)) ** 2
    return GAS_CONSTANT * float(1.5 + rotations / 2 + oscillators.sum())


def zero_point_energy(wavenumbers: NDArray[np.float64]) -> float:
    """Returns half the sum of the vibrations' quanta, kcal/mol."""
    return float(wavenumbers.sum()) / 2 / WAVENUMBER_PER_HARTREE * KILOCALORIES


__all__ = [
    "GAS_CONSTANT",
    "IMAGINARY_ALLOWED",
    "KILOCALORIES",
    "heat_capacity",
    "hessian",
    "relaxed_vibrations",
    "vibrations",
    "zero_point_energy",
]
