"""GFN-xTB by xtb-python (https://xtb-python.readthedocs.io): the reference engine, without electric fields.

Slower than tblite, and it leaks memory over thousands of molecules: the oracle's process is recycled. May
import numpy, pilotwave.errors and pilotwave_oracles; xtb when an engine is made.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from pilotwave.errors import InputError
from pilotwave_oracles.engine import (
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

_ACCURACY = 0.1
"""Of the engine's default thresholds, as for tblite."""

_HEAVIEST = 86


class XtbEngine:
    """See :class:`pilotwave_oracles.engine.Engine`."""

    name = "xtb"
    fields = False

    def __init__(self, method: Method, solvation: Solvation | None = None) -> None:
        with one_thread_at_import():
            from xtb import _libxtb, interface, utils
        self.version = version("xtb")
        self._parameters = {"gfn2": interface.Param.GFN2xTB, "gfn1": interface.Param.GFN1xTB}[method]
        self._interface = interface
        self._one_thread = OneThread(_libxtb.__file__)
        self._solvent = None
        if solvation is not None:
            self._solvent = utils.get_solvent(solvation.solvent)
            if self._solvent is None or solvation.model != "gbsa":
                names = ", ".join(sorted({"water", *(solvent.name for solvent in utils.Solvent)} - {"h2o"}))
                raise InputError(
                    f"expected solvation: gbsa with engine: xtb and a solvent among {names}; "
                    f"got {solvation.model}, {solvation.solvent!r}"
                )

    def single_point(
        self, geometry: Geometry, temperature: float, field: tuple[float, float, float] | None = None
    ) -> SinglePoint:
        """Computes a single point, see the protocol; a field is refused."""
        if field is not None:
            raise EngineError("xtb-python cannot apply an electric field; use engine: tblite")
        if geometry.numbers.max() > _HEAVIEST:  # the library has no parameters for these and crashes
            raise EngineError(f"no support for elements with Z > {_HEAVIEST}")
        try:
            calculator = self._interface.Calculator(
                self._parameters,
                geometry.numbers,
                geometry.positions,
                float(geometry.charge),
                geometry.unpaired,
            )
            calculator.set_verbosity("muted")
            calculator.set_accuracy(_ACCURACY)
            calculator.set_electronic_temperature(temperature)
            if self._solvent is not None:
                calculator.set_solvent(self._solvent)
            with self._one_thread:
                result = calculator.singlepoint()
            point = SinglePoint(
                float(result.get_energy()),
                np.asarray(result.get_dipole(), dtype=np.float64),
                np.asarray(result.get_gradient(), dtype=np.float64),
                np.asarray(result.get_orbital_eigenvalues(), dtype=np.float64),
                np.asarray(result.get_orbital_occupations(), dtype=np.float64),
            )
        except (self._interface.XTBException, ValueError) as error:
            message = " ".join(str(error).split())
            if "did not converge" in message:
                raise ScfNotConvergedError(message) from error
            raise EngineError(message) from error
        return finite(point)


__all__ = ["XtbEngine"]
