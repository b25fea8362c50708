"""Polarizabilities by an independent derivative: ``python benchmarks/dxtb_polarizabilities.py > FILE``.

dxtb differentiates its own GFN2-xTB energy automatically, with no field and no difference. Prints JSON, SMILES to
bohr^3, for ten molecules of the tests' QM9 sample; tests/oracles/data/dxtb_polarizabilities.json is its output.
Needs an environment of its own: ``pip install dxtb==0.4.0 tad-mctc==0.7.0 tad-libcint rdkit pydantic torch``.
"""

from __future__ import annotations

import json
from pathlib import Path

import dxtb
import torch
from dxtb.components.field import new_efield
from rdkit import Chem

SAMPLE = Path(__file__).parents[1] / "tests" / "oracles" / "data" / "qm9_sample.sdf"
BOHR = 0.529177210903


def polarizability(molecule: Chem.Mol) -> float:
    """Returns a third of the trace of the second derivative of the energy, bohr^3."""
    numbers = torch.tensor([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    positions = torch.tensor(molecule.GetConformer().GetPositions() / BOHR, dtype=torch.double)
    field = new_efield(torch.zeros(3, dtype=torch.double, requires_grad=True))
    calculator = dxtb.calculators.GFN2Calculator(
        numbers, interaction=[field], dtype=torch.double, opts={"verbosity": 0}
    )
    return float(calculator.get_polarizability(positions, 0).detach().trace()) / 3


def main() -> None:
    """Measures every other molecule of the first twenty."""
    molecules = list(Chem.SDMolSupplier(str(SAMPLE), removeHs=False))[:20:2]
    table = {molecule.GetProp("SMILES"): round(polarizability(molecule), 5) for molecule in molecules}
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
