"""The molecule whose xTB properties are known: water.

May import pilotwave_oracles.
"""

from __future__ import annotations

from pilotwave_oracles.engine import Method
from pilotwave_oracles.xtb import XtbProperty

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
        "energy": -5.070544,
        "atomization_energy": 14.040293,
        "strain": 0.0,
        "heat_capacity": 6.026811,
    },
    "gfn1": {
        "polarizability": 1.889587,
        "gap": 9.342329,
        "homo": -13.603772,
        "lumo": -4.261443,
        "dipole": 2.772829,
        "energy_per_atom": -1.922925,
        "energy": -5.768774,
        "atomization_energy": 16.737089,
    },
}
"""Measured by ``python -m pilotwave_oracles.measure_water`` with tblite 0.8.0, and without a field also by
xtb 22.1, to 2e-5. The basis is minimal, so the polarizability is far below the experiment's 9.8 bohr^3: these
numbers check the installation, not the method. (The heat capacity, 6.03, is the experiment's.)"""


__all__ = ["WATER", "WATER_VALUES"]
