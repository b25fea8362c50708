"""Measures the chemistry oracles and constraints on QM9: ``python benchmarks/oracles.py``.

Prints the agreement of the two xTB engines, times of one answer on one thread, how the polarizability depends
on the field step, how many molecules keep their bonds in a relaxation, and the share of QM9 that passes each
constraint. Needs the extras ``molecules`` and ``train`` (for QM9).
"""

from __future__ import annotations

import argparse
import ast
import collections
import os
import platform
import random
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds

from pilotwave.backbones.molecule.qm9 import RawMolecule, raw_molecules
from pilotwave.errors import OracleFailure
from pilotwave.samples import MoleculeSample
from pilotwave_oracles.engine import open_engine
from pilotwave_oracles.geometry import Geometry, read_geometry
from pilotwave_oracles.relaxation import relax
from pilotwave_oracles.structure import StructureConstraintConfig
from pilotwave_oracles.synthesizability import SynthesizabilityConstraintConfig
from pilotwave_oracles.xtb_properties import polarizability_properties, polarizability_tensor


def main() -> None:
    """Runs all parts on random molecules of QM9."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--geometries", type=int, default=100, help="molecules for the xTB figures")
    parser.add_argument("--graphs", type=int, default=10_000, help="molecules for the constraints")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, seed {arguments.seed}")
    rdBase.DisableLog("rdApp.*")
    molecules = list(raw_molecules())
    random.Random(arguments.seed).shuffle(molecules)
    report_xtb(geometries_of(molecules, arguments.geometries))
    report_constraints(molecules[: arguments.graphs])


def geometries_of(molecules: list[RawMolecule], count: int) -> list[Geometry]:
    """Returns the first molecules whose bonds RDKit perceives as their SMILES says."""
    found: list[Geometry] = []
    for molecule in molecules:
        block = mol_block(molecule)
        if block is not None:
            found.append(read_geometry(MoleculeSample(block, molecule.smiles)))
        if len(found) == count:
            break
    return found


def mol_block(molecule: RawMolecule) -> str | None:
    """Returns the published geometry as a mol block, or None if its bonds are not perceived."""
    elements, positions = ast.literal_eval(molecule.elements), ast.literal_eval(molecule.positions)
    lines = [f"{element} {x:.6f} {y:.6f} {z:.6f}" for element, (x, y, z) in zip(elements, positions, strict=True)]
    perceived = Chem.MolFromXYZBlock("\n".join([str(len(lines)), "", *lines]))
    published = Chem.MolFromSmiles(molecule.smiles)
    try:
        rdDetermineBonds.DetermineBonds(perceived, charge=0)
    except (ValueError, RuntimeError):
        return None
    names = [Chem.MolToSmiles(item, isomericSmiles=False) for item in (Chem.RemoveHs(perceived), published)]
    return Chem.MolToMolBlock(perceived) if names[0] == names[1] else None


def report_xtb(geometries: list[Geometry]) -> None:
    """Prints agreement, CPU times, linearity and the share of kept bonds."""
    engines = [open_engine(name, "gfn2") for name in ("tblite", "xtb")]
    energies = [
        timed(f"single point, {engine.name}", lambda item, e=engine: e.single_point(item, 300.0).energy, geometries)
        for engine in engines
    ]
    differences = np.abs(np.subtract(*energies))
    print(f"engines differ by at most {differences.max():.1e} hartree on {len(geometries)} molecules")

    def isotropic(geometry: Geometry, step: float) -> float:
        tensor = polarizability_tensor(engines[0], geometry, 300.0, step)
        return polarizability_properties(tensor)["polarizability"]

    values = timed("polarizability, tblite", lambda geometry: isotropic(geometry, 1e-3), geometries)
    halved = [isotropic(geometry, 5e-4) for geometry in geometries]
    print(
        f"half the field step changes it by at most {max(np.abs(np.divide(halved, values) - 1)):.1e} of its value"
    )

    def keeps_its_bonds(geometry: Geometry) -> bool:
        try:
            relax(engines[0], geometry, 300.0, 200)
        except OracleFailure:
            return False
        return True

    kept = timed("relaxation, tblite", keeps_its_bonds, geometries)
    print(f"{np.mean(kept):.1%} of {len(kept)} keep their bonds in a relaxation")


def report_constraints(molecules: list[RawMolecule]) -> None:
    """Prints which share of the molecules passes, and why the others do not."""
    structure: Any = StructureConstraintConfig().build()
    synthesizability: Any = SynthesizabilityConstraintConfig().build()
    limit = SynthesizabilityConstraintConfig().maximum
    parsed = [molecule for molecule in (Chem.MolFromSmiles(item.smiles) for item in molecules) if molecule]
    verdicts = timed("structure constraint", structure.check_molecule, parsed)
    scores = np.array(timed("synthesizability score", synthesizability.score, parsed))
    reasons = collections.Counter((verdict.reason or "passes").split(":")[0] for verdict in verdicts)
    for reason, count in reasons.most_common():
        print(f"  {count / len(parsed):7.2%} {reason}")
    passes = np.array([verdict.reason is None for verdict in verdicts])
    percentiles = {p: round(float(np.percentile(scores, p)), 2) for p in (5, 25, 50, 75, 90, 95, 99)}
    print(f"synthetic accessibility, percentiles: {percentiles}")
    print(f"score up to {limit}: {np.mean(scores <= limit):.1%}; both: {np.mean(passes & (scores <= limit)):.1%}")


def timed(label: str, function: Any, items: list[Any]) -> list[Any]:
    """Applies the function to every item and prints the mean CPU time, which a busy machine does not stretch."""
    started = time.process_time()
    results = [function(item) for item in items]
    print(f"{label}: {(time.process_time() - started) / len(items) * 1e3:.2f} ms CPU each")
    return results


if __name__ == "__main__":
    main()
