"""Measures the built-in molecule model, and appends what it measured to a Markdown file.

    python benchmarks/molecule_quality.py --samples 2000 --relax 300 --record benchmarks/RESULTS.md

Decoded and strict validity with 95% intervals, uniqueness, novelty, whether bonds survive a relaxation with
GFN2-xTB (and how far atoms move), the same for real QM9 molecules as the ceiling, and speed by step count.
Needs the extras `molecules` and, for novelty and the ceiling, `train`.
"""

from __future__ import annotations

import argparse
import collections
import os
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tblite is slower with more threads on molecules this small

import numpy as np
import torch

from pilotwave.backbones.molecule import quality
from pilotwave.backbones.molecule.backbone import MoleculeBackbone, MoleculeBackboneConfig
from pilotwave.errors import MissingDependencyError
from pilotwave.samples import MoleculeSample

BOHR = 0.529177210903
COVALENT_RADIUS = {1: 0.31, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57}  # Å, Cordero et al. 2008
BROKEN, FORMED = 1.25, 1.15  # times the sum of covalent radii
HEADING = "## Built-in molecule model"


@dataclass(frozen=True)
class Relaxation:
    """What a GFN2 relaxation did to a molecule.

    Attributes:
        converged: largest force component under the limit.
        kept: no bond broke and none formed.
        rmsd: heavy-atom RMSD (Å) between the sampled and the relaxed geometry, after superposition.
        smiles: of the molecule.
    """

    converged: bool
    kept: bool
    rmsd: float
    smiles: str


def relax(mol_block: str, gradient_limit: float = 1e-3, steps: int = 300) -> Relaxation:
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
        found = minimize(
            energy, (start / BOHR).ravel(), jac=True, method="L-BFGS-B",
            options={"maxiter": steps, "gtol": gradient_limit, "ftol": 0.0, "maxls": 40},
        )  # fmt: skip
    except RuntimeError:  # the electronic structure did not converge
        return Relaxation(False, False, float("nan"), smiles)
    relaxed = found.x.reshape(-1, 3) * BOHR
    converged = bool(np.abs(found.jac).max() <= 2 * gradient_limit)
    return Relaxation(converged, keeps_bonds(molecule, numbers, relaxed), rmsd(start, relaxed, numbers > 1), smiles)


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


def share(successes: int, trials: int) -> str:
    """A proportion in percent with its 95% interval."""
    low, high = quality.wilson_interval(successes, trials)
    return f"{100 * successes / max(trials, 1):.1f}% ({100 * low:.1f}-{100 * high:.1f})"


def validity_by_steps(arguments: argparse.Namespace) -> tuple[list[str], quality.SampledMolecules]:
    """Samples with each step count; returns table rows and the samples at the model's own step count."""
    rows, main = [], None
    for steps in sorted({*arguments.steps, 50}):
        backbone = MoleculeBackboneConfig(
            kind="molecule", checkpoint=arguments.checkpoint, steps=steps, precision=arguments.precision
        ).build("auto")
        assert isinstance(backbone, MoleculeBackbone)
        count = arguments.samples if steps == 50 else min(arguments.samples, arguments.samples_by_steps)
        began = time.perf_counter()
        sampled = quality.sample_molecules(backbone, range(arguments.seed, arguments.seed + count))
        speed = count / (time.perf_counter() - began)
        strict, decoded = share(sampled.strict, count), share(sampled.decoded, count)
        rows.append(f"| {steps} | {count} | {strict} | {decoded} | {speed:.1f} |")
        print(rows[-1], flush=True)
        if steps == 50:
            main = sampled
            print(collections.Counter(sampled.reasons), flush=True)
    assert main is not None
    return rows, main


def diversity_lines(sampled: quality.SampledMolecules) -> list[str]:
    """Uniqueness and novelty."""
    from pilotwave.backbones.molecule import dataset

    smiles = [molecule.smiles for molecule in sampled.molecules]
    lines = [f"- distinct molecules among {len(smiles)} valid ones: {100 * quality.uniqueness(smiles):.1f}%"]
    try:
        known = {str(item) for item in dataset.load().smiles}
    except MissingDependencyError:
        return [*lines, "- novelty: not measured, the training data is not installed"]
    return [*lines, f"- of the distinct ones not in QM9: {100 * quality.novelty(smiles, known):.1f}%"]


def relaxation_lines(name: str, blocks: list[str], drawn: int, processes: int) -> list[str]:
    """Relaxes molecules and summarises; `drawn` is how many samples they stand for, invalid ones included."""
    with ProcessPoolExecutor(processes) as pool:
        results = list(pool.map(relax, blocks))
    kept = sum(result.kept for result in results)
    moved = [result.rmsd for result in results if result.kept]
    lost = sorted({result.smiles for result in results if not result.kept})
    print(name, "lost their bonds:", lost, flush=True)
    lines = [
        f"- {name}: of {len(results)} valid molecules {share(kept, len(results))} keep every bond, "
        f"GFN2 converged for {sum(result.converged for result in results)}; "
        f"heavy-atom RMSD to the minimum: median {statistics.median(moved):.3f} Å, "
        f"90th percentile {float(np.quantile(moved, 0.9)):.3f} Å"
    ]
    if drawn != len(results):
        lines.append(f"- {name}, of all {drawn} draws, invalid ones included: {share(kept, drawn)}")
    return lines


def qm9_blocks(count: int, seed: int) -> list[str]:
    """Held-out QM9 molecules through the same encoder and decoder: the ceiling of the relaxation measure."""
    from rdkit import Chem

    from pilotwave.backbones.molecule import dataset, decoding

    _, held_out = dataset.split(dataset.load())
    blocks = []
    for row in np.random.default_rng(seed).choice(len(held_out), count, replace=False):
        atoms = int(held_out.atoms[row])
        classes = held_out.classes[row, :atoms].tolist()
        decoded = decoding.decode_united_atoms(held_out.positions[row, :atoms], classes)
        if decoded.molecule is not None:
            blocks.append(Chem.MolToMolBlock(decoded.molecule))
    return blocks


def first_valid(sampled: quality.SampledMolecules, count: int) -> list[MoleculeSample]:
    """The first valid molecules, in the order of their seeds."""
    return list(sampled.molecules[:count])


def main() -> None:
    """Measures, prints, and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="builtin")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--samples-by-steps", type=int, default=500)
    parser.add_argument("--steps", type=int, nargs="*", default=[10, 20, 50, 100])
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--relax", type=int, default=300, help="valid samples to relax")
    parser.add_argument("--relax-qm9", type=int, default=100, help="held-out QM9 molecules to relax")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1_000_000)
    parser.add_argument("--record", type=Path, help="Markdown file to append to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    rows, sampled = validity_by_steps(arguments)
    lines = diversity_lines(sampled)
    chosen = first_valid(sampled, arguments.relax)
    if chosen:
        drawn = round(len(chosen) * sampled.count / max(sampled.decoded, 1))
        lines += relaxation_lines("samples", [item.mol_block for item in chosen], drawn, arguments.processes)
    if arguments.relax_qm9:
        lines += relaxation_lines(
            "held-out QM9",
            qm9_blocks(arguments.relax_qm9, arguments.seed),
            arguments.relax_qm9,
            arguments.processes,
        )
    for line in lines:
        print(line)
    if arguments.record:
        record(arguments, rows, lines)


def record(arguments: argparse.Namespace, rows: list[str], lines: list[str]) -> None:
    """Appends the section to the results file."""
    command = (
        f"python benchmarks/molecule_quality.py --samples {arguments.samples} --relax {arguments.relax} "
        f"--relax-qm9 {arguments.relax_qm9} --precision {arguments.precision} --processes {arguments.processes}"
    )
    section = [
        HEADING,
        "",
        f"`{command}`, seeds {arguments.seed} and following, torch {torch.__version__}, one thread, "
        f"{os.cpu_count()} cores {platform.machine()}, no GPU. Intervals are 95% (Wilson).",
        "",
        "| steps | samples | strictly valid | valid (decoded) | samples/s |",
        "|---|---|---|---|---|",
        *rows,
        "",
        *lines,
        "",
    ]
    with arguments.record.open("a") as stream:
        stream.write("\n" + "\n".join(section))


if __name__ == "__main__":
    main()
