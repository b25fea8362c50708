"""Six tasks on the built-in molecule model: the properties of the xTB oracle, with the demo's constraints.

Properties are asked at the geometry that was generated: on these models the distance to the relaxed one is a tenth
of an Å, and a relaxation costs twenty times as much. 20 sampler steps, batches of 16; an answer known
for a canonical molecule is not asked again. May import the backbones, :mod:`pilotwave.config` and pilotwave.bench.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

from pilotwave.backbones.molecule.backbone import MoleculeBackboneConfig
from pilotwave.bench.measures import measure_molecules
from pilotwave.bench.objectives import OracleObjective
from pilotwave.bench.task import Suite, Task
from pilotwave.config import registry
from pilotwave.config.components import ConstraintConfig
from pilotwave.protocols import Backbone, Constraint

STEPS = 20
PRECISION: Literal["float32", "bfloat16"] = "float32"
"""Of batches of 16: bfloat16 is faster by the sample but goes in chunks of 64, and takes 2.5 times as long."""
BATCH = 16
UNGUIDED = 256
TIME_LIMIT = 60.0
"""Seconds for one answer, as in the demo."""
CONSTRAINTS: tuple[dict[str, Any], ...] = (
    {"kind": "structure", "largest_ring": 7},
    {"kind": "synthesizability"},
)
"""As in ``examples/polarizability.yaml``; without them the oracle is hacked at once."""


@functools.cache
def model(device: str) -> Backbone:
    """Loads the built-in model."""
    return MoleculeBackboneConfig(kind="molecule", steps=STEPS, precision=PRECISION).build(device)


def constraints() -> Sequence[Constraint]:
    """Builds the checks that come before the oracle."""
    built = []
    for settings in CONSTRAINTS:
        config = registry.load("constraint", settings["kind"]).model_validate(settings)
        assert isinstance(config, ConstraintConfig)
        built.append(config.build())
    return built


def _task(name: str, title: str, quantity: str, sign: int, **settings: Any) -> Task:
    return Task(
        name,
        "molecules",
        title,
        "molecule",
        "molecule",
        backbone=model,
        objective=lambda: OracleObjective("xtb", sign, property=quantity, time_limit=TIME_LIMIT, **settings),
        measure=measure_molecules,
        constraints=constraints,
        batch_size=BATCH,
        unguided=UNGUIDED,
    )


TASKS = (
    _task("polarizability", "large polarizability", "polarizability", -1),
    _task("gap", "large gap", "gap", -1),
    _task("homo", "high HOMO", "homo", -1),
    _task("lumo", "low LUMO", "lumo", 1),
    _task("dipole", "large dipole", "dipole", -1),
    _task("energy", "low energy per atom", "energy_per_atom", 1),
)

HELD_OUT = (
    _task("small-gap", "small gap", "gap", 1),
    _task("low-homo", "low HOMO", "homo", 1),
    _task("small-dipole", "small dipole", "dipole", 1),
)

SUITE = Suite("molecules", TASKS, HELD_OUT)

__all__ = ["CONSTRAINTS", "SUITE", "constraints", "model"]
