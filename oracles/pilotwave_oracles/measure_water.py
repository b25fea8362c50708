"""Measures the known answers of the xTB oracle: ``python -m pilotwave_oracles.measure_water``.

Prints the minimum of water and, for every engine and method, the values that stand in
:data:`pilotwave_oracles.xtb_water.WATER_VALUES`. May import pilotwave_oracles.
"""

from __future__ import annotations

from typing import get_args

from pilotwave.protocols import QueryContext
from pilotwave.samples import MoleculeSample
from pilotwave_oracles.engine import EngineName, Method, open_engine
from pilotwave_oracles.geometry import BOHR, read_geometry
from pilotwave_oracles.relaxation import relax
from pilotwave_oracles.xtb import AT_A_MINIMUM, XtbOracleConfig, XtbProperty
from pilotwave_oracles.xtb_oracle import TEMPERATURES
from pilotwave_oracles.xtb_water import WATER


def water_values(engine: EngineName, method: Method) -> dict[XtbProperty, float]:
    """Returns every property that the engine can compute for water as it stands, by name.

    What needs a relaxation is left out for GFN1, whose minimum is elsewhere, and so is what needs a solvent.
    """
    names: list[XtbProperty] = [
        name
        for name in get_args(XtbProperty)
        if name != "solvation_energy"
        and not (name == "polarizability" and engine == "xtb")
        and not (name in AT_A_MINIMUM and method != "gfn2")
    ]
    sample = MoleculeSample(WATER, "O")
    return {
        name: XtbOracleConfig(property=name, engine=engine, method=method)
        .build()
        .evaluate(sample, QueryContext("water"))
        .value
        for name in names
    }


def main() -> None:
    """Prints the minimum and the tables."""
    geometry = read_geometry(MoleculeSample(WATER, "O"))
    minimum = relax(open_engine("tblite", "gfn2"), geometry, TEMPERATURES[0], step_limit=200)
    print("GFN2-xTB minimum, Å:", (minimum.positions * BOHR).round(4).tolist())
    for engine in get_args(EngineName):
        for method in get_args(Method):
            values = water_values(engine, method)
            print(engine, method, {name: round(value, 6) for name, value in sorted(values.items())})


if __name__ == "__main__":
    main()
