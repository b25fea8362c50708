"""GFN-xTB by tblite (https://tblite.readthedocs.io), the default engine: fast, with electric fields.

May import numpy, pilotwave.errors and pilotwave_oracles; tblite when an engine is made.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from pilotwave.errors import InputError
from pilotwave_oracles.engine import (
    HARTREE_PER_KELVIN,
    EngineError,
    Method,
    OneThread,
    ScfNotConvergedError,
    SinglePoint,
    Solvation,
    finite,
    one_thread_at_import,
)
from pilotwave_oracles.geometry import Geometry

_METHODS: dict[Method, str] = {"gfn2": "GFN2-xTB", "gfn1": "GFN1-xTB"}
_ACCURACY = 0.1
"""Of the engine's default thresholds. A tenth brings finite-field polarizabilities from 1e-5 to 1e-6 of their
value for half as much time again."""


class TbliteEngine:
    """See :class:`pilotwave_oracles.engine.Engine`. No calculation depends on an earlier one."""

    name = "tblite"
    fields = True

    def __init__(self, method: Method, solvation: Solvation | None = None) -> None:
        with one_thread_at_import():
            from tblite import _libtblite, exceptions, interface
        self.version = version("tblite")
        self._method = _METHODS[method]
        self._calculator = interface.Calculator
        self._new_pointer = _libtblite.ffi.new
        self._one_thread = OneThread(_libtblite.__file__)
        self._errors = (exceptions.TBLiteRuntimeError, exceptions.TBLiteValueError)
        self._solvation = solvation
        if solvation is not None:
            self._check_solvent(solvation)

    def single_point(
        self, geometry: Geometry, temperature: float, field: tuple[float, float, float] | None = None
    ) -> SinglePoint:
        """Computes a single point, see the protocol."""
        try:
            with self._one_thread:
                result = self._set_up(geometry, temperature, field).singlepoint()
        except self._errors as error:
            message = " ".join(str(error).split())
            if "not converged" in message:
                raise ScfNotConvergedError(message) from error
            raise EngineError(message) from error
        return finite(
            SinglePoint(
                float(result.get("energy")),
                np.asarray(result.get("dipole"), dtype=np.float64),
                np.asarray(result.get("gradient"), dtype=np.float64),
                np.asarray(result.get("orbital-energies"), dtype=np.float64),
                np.asarray(result.get("orbital-occupations"), dtype=np.float64),
            )
        )

    def _check_solvent(self, solvation: Solvation) -> None:
        one_atom = Geometry(np.array([2], dtype=np.int32), np.zeros((1, 3)), 0, 0, frozenset())
        try:
            self._set_up(one_atom, temperature=300.0, field=None)
        except self._errors as error:
            raise InputError(
                f"solvent: {solvation.solvent!r} is none that tblite's {solvation.model} knows for {self._method}; "
                "names are like water, methanol, dmso, thf, chcl3, toluene, hexane"
            ) from error

    def _set_up(self, geometry: Geometry, temperature: float, field: tuple[float, float, float] | None) -> Any:
        calculator = self._calculator(
            self._method, geometry.numbers, geometry.positions, float(geometry.charge), geometry.unpaired
        )
        calculator.set("verbosity", 0)
        calculator.set("accuracy", _ACCURACY)
        calculator.set("temperature", temperature * HARTREE_PER_KELVIN)
        if field is not None:  # tblite 0.8 wants a C pointer here and refuses an array
            calculator.add("electric-field", self._new_pointer("double[3]", list(field)))
        if self._solvation is not None and self._solvation.model == "cpcm":
            calculator.add("ddX-solvation", self._solvation.solvent, "cpcm")
        elif self._solvation is not None:
            calculator.add(f"{self._solvation.model}-solvation", self._solvation.solvent)
        return calculator


__all__ = ["TbliteEngine"]
