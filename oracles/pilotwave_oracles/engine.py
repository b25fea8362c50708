"""What the xTB oracle asks of an engine: one self-consistent calculation, or a clear word that it failed.

May import numpy and pilotwave_oracles.geometry.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pilotwave_oracles.geometry import Geometry

Method = Literal["gfn2", "gfn1"]
EngineName = Literal["tblite", "xtb"]
SolvationModel = Literal["alpb", "gbsa", "cpcm"]

HARTREE_PER_KELVIN = 3.166808578545117e-06
"""Boltzmann's constant, as tblite documents it."""


class ScfNotConvergedError(Exception):
    """The self-consistent field did not converge; a higher electronic temperature may help."""


class EngineError(Exception):
    """The engine refused or failed for any other reason (an element without parameters)."""


@dataclass(frozen=True)
class SinglePoint:
    """A converged calculation.

    Attributes:
        energy: hartree.
        dipole: e bohr, shape (3,).
        gradient: hartree / bohr, shape (atoms, 3).
        orbital_energies: hartree, ascending, shape (orbitals,).
        occupations: Electrons in each orbital, 0 to 2, shape (orbitals,).
    """

    energy: float
    dipole: NDArray[np.float64]
    gradient: NDArray[np.float64]
    orbital_energies: NDArray[np.float64]
    occupations: NDArray[np.float64]


@dataclass(frozen=True)
class Solvation:
    """An implicit solvent.

    Attributes:
        model: ``"alpb"``, ``"gbsa"`` or ``"cpcm"``, see :class:`pilotwave_oracles.xtb.XtbOracleConfig`.
        solvent: Its name, as the engine knows it.
    """

    model: SolvationModel
    solvent: str


class Engine(Protocol):
    """A program that computes single points.

    Attributes:
        name: e.g. ``"tblite"``.
        version: Of the package.
        fields: Whether it can apply a uniform electric field.
    """

    name: str
    version: str
    fields: bool

    def single_point(
        self, geometry: Geometry, temperature: float, field: tuple[float, float, float] | None = None
    ) -> SinglePoint:
        """Computes energy, gradient, dipole and orbitals.

        Args:
            geometry: The molecule.
            temperature: Electronic temperature, K.
            field: Uniform electric field, hartree / (e bohr), or None.

        Raises:
            ScfNotConvergedError: No self-consistency within the engine's cycles.
            EngineError: Anything else.
        """
        ...


def open_engine(name: EngineName, method: Method, solvation: Solvation | None = None) -> Engine:
    """Imports and returns an engine, for molecules in vacuum or in a solvent.

    Raises:
        InputError: It does not know the solvent.
    """
    if name == "tblite":
        from pilotwave_oracles.engine_tblite import TbliteEngine

        return TbliteEngine(method, solvation)
    from pilotwave_oracles.engine_xtb import XtbEngine

    return XtbEngine(method, solvation)


@contextlib.contextmanager
def one_thread_at_import() -> Iterator[None]:
    """Makes an OpenMP library that is loaded inside use one thread, unless the user has set another number.

    The library reads the variable once, when it is loaded; the environment is restored afterwards, so that an
    engine that runs inside a driver does not change what the driver's other libraries do.
    """
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


class OneThread:
    """Limits the OpenMP of a library to one thread while it runs: ``with one_thread: ...``.

    A library without an OpenMP of its own shares the one that, say, torch has loaded before, with as many
    threads as there are cores. Their waiting for each other made a single point hundreds of times slower on a
    busy machine. The setting belongs to the calling thread and is put back afterwards.
    """

    def __init__(self, library: str) -> None:
        """Looks the OpenMP functions up among what the shared library, given by its path, depends on."""
        loaded = ctypes.CDLL(library)
        self._get: Callable[[], int] | None = getattr(loaded, "omp_get_max_threads", None)
        self._set: Callable[[int], None] | None = getattr(loaded, "omp_set_num_threads", None)
        self._before = threading.local()

    def __enter__(self) -> None:
        if self._get is not None and self._set is not None:
            self._before.threads = self._get()
            self._set(1)

    def __exit__(self, *_: object) -> None:
        if self._set is not None:
            self._set(self._before.threads)


def finite(point: SinglePoint) -> SinglePoint:
    """Returns the point if all its numbers are finite; some builds end without convergence and say nothing."""
    arrays = (point.dipole, point.gradient, point.orbital_energies, point.occupations)
    if np.isfinite(point.energy) and all(np.isfinite(array).all() for array in arrays):
        return point
    raise ScfNotConvergedError("the engine returned numbers that are not finite")


__all__ = [
    "HARTREE_PER_KELVIN",
    "Engine",
    "EngineError",
    "EngineName",
    "Method",
    "OneThread",
    "ScfNotConvergedError",
    "SinglePoint",
    "Solvation",
    "SolvationModel",
    "finite",
    "one_thread_at_import",
    "open_engine",
]
