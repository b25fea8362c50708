"""What becomes of a molecule when a force field or quantum chemistry relaxes it, one by one, kept as they come."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import draws  # first: it sets the threads before tblite is imported
import numpy as np

from pilotwave.storage import write_atomically
from pilotwave.training.proportions import in_percent

BOHR = 0.529177210903
COVALENT_RADIUS = {1: 0.31, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57, 16: 1.05, 17: 1.02}  # Å, Cordero et al. 2008
BROKEN, FORMED = 1.25, 1.15  # times the sum of covalent radii
VERSION = 1
"""Raised when a relaxation would come out otherwise; what an older one found is then not used."""


@dataclass(frozen=True)
class Relaxation:
    """What a relaxation did to a molecule.

    Attributes:
        converged: Largest force component under the limit.
        kept: No bond broke and none formed.
        rmsd: Heavy-atom RMSD (Å) between the sampled and the relaxed geometry, after superposition.
        energy: What it fell by, kcal/mol.
        smiles: Of the molecule.
    """

    converged: bool
    kept: bool
    rmsd: float
    energy: float
    smiles: str


def relax_all(method: str, blocks: Sequence[str], work: Path, processes: int) -> list[Relaxation]:
    """Relaxes mol blocks with ``"gfn2"`` or ``"mmff"``, as far as that is not kept already."""
    paths = {block: work / "relaxed" / f"{method}-{VERSION}-{_digest(block)}.json" for block in blocks}
    missing = [block for block in blocks if not paths[block].exists()]
    calls = [(block,) for block in missing]
    for done, (place, relaxed) in enumerate(draws.side_by_side(METHODS[method], calls, processes), 1):
        write_atomically(paths[missing[place]], json.dumps(asdict(relaxed)).encode())
        if done % 10 == 0:
            print(f"{method}: {done} of {len(calls)} relaxed", flush=True)
    return [Relaxation(**json.loads(paths[block].read_text())) for block in blocks]


def summary(name: str, method: str, results: Sequence[Relaxation], drawn: int | None = None) -> list[str]:
    """Returns what relaxations came to, in words.

    Args:
        name: Of the molecules.
        method: As in :func:`relax_all`.
        results: Of valid molecules.
        drawn: How many draws they stand for, invalid ones included; None for data.
    """
    kept = sum(result.kept for result in results)
    moved = [result.rmsd for result in results if result.kept]
    fell = [result.energy for result in results if result.kept]
    lost = sorted({result.smiles for result in results if not result.kept})
    spread = "no geometry left to compare"
    if moved:
        spread = (
            f"heavy-atom RMSD to the minimum: median {statistics.median(moved):.3f} Å, 90th percentile "
            f"{float(np.quantile(moved, 0.9)):.3f} Å; the energy falls by {statistics.median(fell):.1f} kcal/mol "
            "(median)"
        )
    bonds = f"{in_percent(kept, len(results))} keep every bond, and it" if method in CAN_BREAK else "it"
    lines = [
        f"- {name} relaxed with {NAMES[method]}: of {len(results)} valid molecules {bonds} converged for "
        f"{sum(result.converged for result in results)}; {spread}"
    ]
    if drawn is not None and method in CAN_BREAK:
        lines.append(
            f"- {name}, of all {drawn} draws, invalid ones included: {in_percent(kept, drawn)} keep every bond"
        )
    if lost:
        lines.append(f"- lost a bond: {', '.join(f'`{smiles}`' for smiles in lost)}")
    return lines


def relax_gfn2(mol_block: str, gradient_limit: float = 1e-3, steps: int = 300) -> Relaxation:
    """Relaxes a molecule with GFN2-xTB (tblite) and L-BFGS (SciPy); the limit is in Eh/bohr."""
    from rdkit import Chem
    from scipy.optimize import minimize
    from tblite.interface import Calculator

    molecule = Chem.MolFromMolBlock(mol_block, removeHs=False)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    start = np.array(molecule.GetConformer().GetPositions())
    calculator = Calculator("GFN2-xTB", numbers, start / BOHR)
    calculator.set("verbosity", 0)

    def energy(flat: np.ndarray) -> tuple[float, np.ndarray]:
        calculator.update(flat.reshape(-1, 3))
        result = calculator.singlepoint()
        return float(result.get("energy")), np.asarray(result.get("gradient")).ravel()

    smiles = Chem.MolToSmiles(Chem.RemoveHs(molecule), isomericSmiles=False)
    try:
        before, _ = energy((start / BOHR).ravel())
        found = minimize(
            energy, (start / BOHR).ravel(), jac=True, method="L-BFGS-B",
            options={"maxiter": steps, "gtol": gradient_limit, "ftol": 0.0, "maxls": 40},
        )  # fmt: skip
    except RuntimeError:  # the electronic structure did not converge
        return Relaxation(False, False, float("nan"), float("nan"), smiles)
    relaxed = found.x.reshape(-1, 3) * BOHR
    converged = bool(np.abs(found.jac).max() <= 2 * gradient_limit)
    kept = keeps_bonds(molecule, numbers, relaxed)
    return Relaxation(converged, kept, rmsd(start, relaxed, numbers > 1), 627.5095 * (before - found.fun), smiles)


def relax_mmff(mol_block: str, steps: int = 2000) -> Relaxation:
    """Relaxes a molecule with MMFF94 (RDKit): cheap, and blind to bonds that want to break."""
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers

    molecule = Chem.MolFromMolBlock(mol_block, removeHs=False)
    smiles = Chem.MolToSmiles(Chem.RemoveHs(molecule), isomericSmiles=False)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    start = np.array(molecule.GetConformer().GetPositions())
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule)
    if properties is None:  # no parameters for an atom of it
        return Relaxation(False, False, float("nan"), float("nan"), smiles)
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(molecule, properties)
    before = field.CalcEnergy()
    converged = field.Minimize(maxIts=steps) == 0
    relaxed = np.array(molecule.GetConformer().GetPositions())
    kept = keeps_bonds(molecule, numbers, relaxed)
    return Relaxation(converged, kept, rmsd(start, relaxed, numbers > 1), before - field.CalcEnergy(), smiles)


METHODS = {"gfn2": relax_gfn2, "mmff": relax_mmff}
NAMES = {"gfn2": "GFN2-xTB", "mmff": "MMFF94 (which cannot break a bond)"}
CAN_BREAK = ("gfn2",)


def keeps_bonds(molecule: object, numbers: np.ndarray, positions: np.ndarray) -> bool:
    """Says whether the relaxed positions still have exactly the molecule's bonds, hydrogens included."""
    from rdkit import Chem

    bonded = Chem.GetAdjacencyMatrix(molecule).astype(bool)
    radii = np.array([COVALENT_RADIUS[int(number)] for number in numbers])
    ratio = np.linalg.norm(positions[:, None] - positions[None], axis=-1) / (radii[:, None] + radii[None])
    np.fill_diagonal(ratio, np.inf)
    return bool((ratio[bonded] < BROKEN).all() and (ratio[~bonded] > FORMED).all())


def rmsd(first: np.ndarray, second: np.ndarray, chosen: np.ndarray) -> float:
    """Root-mean-square distance of the chosen atoms after the best proper rotation (Å)."""
    one, two = first[chosen] - first[chosen].mean(0), second[chosen] - second[chosen].mean(0)
    left, _, right = np.linalg.svd(one.T @ two)
    if np.linalg.det(left @ right) < 0:
        left[:, -1] *= -1
    return float(np.sqrt(((one @ left @ right - two) ** 2).sum(1).mean()))


def _digest(block: str) -> str:
    return hashlib.sha256(block.encode()).hexdigest()[:24]
