"""Measures the known answers of the xTB oracle: ``python -m pilotwave_oracles.measure_water``.

Prints the minimum of water and, for every engine and method, the values that stand in
:data:`pilotwave_oracles.xtb.WATER_VALUES`. May import pilotwave_oracles.
"""

from __future__ import annotations

from typing import get_args

from pilotwave.samples import MoleculeSample
from pilotwave_oracles.engine import EngineName, Method, open_engine
from pilotwave_oracles.geometry import BOHR, read_geometry
from pilotwave_oracles.relaxation import relax
from pilotwave_oracles.xtb import TEMPERATURES, WATER
from pilotwave_oracles.xtb_properties import (
    ground_state_properties,
    polarizability_properties,
    polarizability_tensor,
)

FIELD_STEP = 1e-3


def water_values(engine_name: EngineName, method: Method) -> dict[str, float]:
    """Returns every property that the engine can compute for water, by name."""
    engine = open_engine(engine_name, method)
    geometry = read_geometry(MoleculeSample(WATER, "O"))
    values = ground_state_properties(engine.single_point(geometry, TEMPERATURES[0]), geometry.unpaired)
    if engine.fields:
        values |= polarizability_properties(polarizability_tensor(engine, geometry, TEMPERATURES[0], FIELD_STEP))
    return values


def main() -> None:
    """Prints the minimum and the tables."""
    geometry = read_geometry(MoleculeSample(WATER, "O"))
    minimum = relax(open_engine("tblite", "gfn2"), geometry, TEMPERATURES[0], step_limit=200)
    print("GFN2-xTB minimum, Å:", (minimum.positions * BOHR).round(4).tolist())
    for engine_name in get_args(EngineName):
        for method in get_args(Method):
            values = water_values(engine_name, method)
            print(engine_name, method, {name: round(value, 6) for name, value in sorted(values.items())})


if __name__ == "__main__":
    main()
