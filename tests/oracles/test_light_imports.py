"""Listing all oracles and constraints, and starting an oracle's process, loads nothing heavy."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "rdkit", "tblite", "xtb", "scipy", "PIL", "ray", "mlflow", "diffusers", "matplotlib", "pandas")


@pytest.mark.parametrize(
    "modules",
    [
        "pilotwave_oracles.xtb, pilotwave_oracles.jpeg, pilotwave_oracles.python_callable",
        "pilotwave_oracles.command, pilotwave_oracles.command_oracle",
        "pilotwave_oracles.http, pilotwave_oracles.file_drop, pilotwave_oracles.vision_language_oracle",
        "pilotwave_oracles.xtb_oracle, pilotwave_oracles.thermochemistry, pilotwave_oracles.desirability",
        "pilotwave_oracles.rdkit_properties, pilotwave_oracles.property_bounds, pilotwave_oracles.substructure",
        "pilotwave_oracles.composite, pilotwave_oracles.composite_part, pilotwave_oracles.composite_oracle",
        "pilotwave_oracles.structure, pilotwave_oracles.synthesizability",
        "pilotwave.execution.oracle_child, pilotwave.testing.faulty_oracles",
    ],
)
def test_importing_them_loads_no_heavy_package(modules: str) -> None:
    code = f"import sys, {modules}; print([name for name in {HEAVY!r} if name in sys.modules])"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "[]"
