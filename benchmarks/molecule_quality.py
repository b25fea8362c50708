"""Measures the built-in molecule model, and keeps what it measured as a section of RESULTS.md.

    python benchmarks/molecule_quality.py --record

Decoded and strict validity with 95% intervals, uniqueness, novelty, whether bonds survive a relaxation with
GFN2-xTB (and how far atoms move), the same for real QM9 molecules as the ceiling, speed by step count, and how
near molecules stay when part of their noise is replaced.
Needs the extras `molecules` and, for novelty and the ceiling, `train`.
"""

from __future__ import annotations

import argparse
import collections
import os
import statistics
import time
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tblite is slower with more threads on molecules this small

import numpy as np
import torch
from results import describe_machine, markdown_table, write_section

from pilotwave.backbones.molecule import quality
from pilotwave.backbones.molecule.backbone import MoleculeBackbone, MoleculeBackboneConfig
from pilotwave.errors import MissingDependencyError
from pilotwave.samples import MoleculeSample
from pilotwave.types import Draw

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


def build(arguments: argparse.Namespace, steps: int, atoms: int | None = None) -> MoleculeBackbone:
    """The model with that many sampler steps, of all sizes or of one."""
    backbone = MoleculeBackboneConfig(
        kind="molecule", checkpoint=arguments.checkpoint, steps=steps, precision=arguments.precision, atoms=atoms
    ).build("auto")
    assert isinstance(backbone, MoleculeBackbone)
    return backbone


def validity_by_steps(arguments: argparse.Namespace) -> tuple[list[list[str]], quality.SampledMolecules]:
    """Samples with each step count; returns table rows and the samples at the model's own step count."""
    rows, main = [], None
    for steps in sorted({*arguments.steps, 50}):
        backbone = build(arguments, steps)
        count = arguments.samples if steps == 50 else min(arguments.samples, arguments.samples_by_steps)
        began = time.process_time()  # of the CPU: what else runs on the machine does not count
        sampled = quality.sample_molecules(backbone, range(arguments.seed, arguments.seed + count))
        speed = count / (time.process_time() - began)
        strict, decoded = share(sampled.strict, count), share(sampled.decoded, count)
        rows.append([str(steps), str(count), strict, decoded, f"{speed:.1f}"])
        print(rows[-1], dict(collections.Counter(sampled.reasons)), flush=True)
        main = sampled if steps == 50 else main
    assert main is not None
    return rows, main


def diversity_lines(sampled: quality.SampledMolecules) -> list[str]:
    """Uniqueness and novelty."""
    from pilotwave.backbones.molecule import dataset, qm9

    smiles = [molecule.smiles for molecule in sampled.molecules]
    lines = [f"- distinct molecules among {len(smiles)} valid ones: {100 * quality.uniqueness(smiles):.1f}%"]
    try:
        training, held_out = (set(part.smiles.tolist()) for part in dataset.split(qm9.load()))
    except MissingDependencyError:
        return [*lines, "- novelty: not measured, the training data is not installed"]
    unseen, novel = quality.novelty(smiles, training), quality.novelty(smiles, training | held_out)
    return [
        *lines,
        f"- of the distinct ones, never trained on: {100 * unseen:.1f}%; in no part of QM9: {100 * novel:.1f}%",
    ]


def relaxation_lines(name: str, blocks: list[str], drawn: int | None) -> list[str]:
    """Relaxes molecules and summarises; `drawn` is how many draws they stand for, invalid ones included."""
    results = [relax(block) for block in blocks]
    kept = sum(result.kept for result in results)
    moved = [result.rmsd for result in results if result.kept]
    print(name, "lost their bonds:", sorted({result.smiles for result in results if not result.kept}), flush=True)
    lines = [
        f"- {name} relaxed with GFN2-xTB: of {len(results)} valid molecules {share(kept, len(results))} keep every "
        f"bond; it converged for {sum(result.converged for result in results)}; heavy-atom RMSD to the minimum: "
        f"median {statistics.median(moved):.3f} Å, 90th percentile {float(np.quantile(moved, 0.9)):.3f} Å"
    ]
    if drawn is not None:
        lines.append(f"- {name}, of all {drawn} draws, invalid ones included: {share(kept, drawn)} keep every bond")
    return lines


def qm9_blocks(count: int, seed: int) -> list[str]:
    """Held-out QM9 molecules through the same encoder and decoder: the ceiling of the relaxation measure."""
    from rdkit import Chem

    from pilotwave.backbones.molecule import dataset, decoding, qm9

    _, held_out = dataset.split(qm9.load())
    blocks = []
    for row in np.random.default_rng(seed).choice(len(held_out), count, replace=False):
        atoms = int(held_out.atoms[row])
        classes = held_out.classes[row, :atoms].tolist()
        decoded = decoding.decode_united_atoms(held_out.positions[row, :atoms], classes)
        if decoded.molecule is not None:
            blocks.append(Chem.MolToMolBlock(decoded.molecule))
    return blocks


def steering_lines(arguments: argparse.Namespace) -> list[str]:
    """How near the children of mixed noise stay to their parents: what perturbing algorithms rely on."""
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    fingerprints = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    backbone = build(arguments, 50, atoms=9)  # noise of one size can be mixed
    draws = [Draw(f"parent-{seed}", seed) for seed in range(arguments.children)]
    others = [Draw(f"other-{seed}", 10_000 + seed) for seed in range(arguments.children)]
    conditions = backbone.draw_conditions(draws)
    noise, fresh = backbone.draw_noise(draws), backbone.draw_noise(others)
    parents = backbone.decode(backbone.sample(noise, conditions), conditions)
    lines = []
    for share_new in (0.1, 0.2, 1.0):
        # Mixed so that the noise stays unit Gaussian.
        mixed = (1 - share_new) * noise + share_new * fresh
        mixed = mixed / ((1 - share_new) ** 2 + share_new**2) ** 0.5
        children = backbone.decode(backbone.sample(mixed, conditions), conditions)
        pairs = [
            (parent.smiles, child.smiles)
            for parent, child in zip(parents, children, strict=True)
            if isinstance(parent, MoleculeSample) and isinstance(child, MoleculeSample)
        ]
        prints = [[fingerprints.GetFingerprint(Chem.MolFromSmiles(item)) for item in pair] for pair in pairs]
        likeness = statistics.mean(DataStructs.TanimotoSimilarity(*pair) for pair in prints)
        valid = sum(isinstance(child, MoleculeSample) for child in children)
        lines.append(
            f"- noise mixed with {share_new:.0%} new: {share(valid, len(children))} of {len(children)} children "
            f"valid, "
            f"{100 * statistics.mean(one == two for one, two in pairs):.0f}% the parent's molecule, "
            f"mean Tanimoto to the parent {likeness:.2f} (Morgan 2)"
        )
    return lines


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
    parser.add_argument("--children", type=int, default=128, help="parents of the steering measurement")
    parser.add_argument("--seed", type=int, default=1_000_000)
    parser.add_argument("--record", action="store_true", help="keep the results in benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    rows, sampled = validity_by_steps(arguments)
    lines = diversity_lines(sampled)
    blocks = [molecule.mol_block for molecule in sampled.molecules[: arguments.relax]]
    if blocks:
        drawn = round(len(blocks) * sampled.count / max(sampled.decoded, 1))
        lines += relaxation_lines("samples", blocks, drawn)
    if arguments.relax_qm9:
        lines += relaxation_lines("held-out QM9", qm9_blocks(arguments.relax_qm9, arguments.seed), None)
    if arguments.children:
        lines += steering_lines(arguments)
    print("\n".join(lines))
    if arguments.record:
        write_section(HEADING, body(arguments, rows, lines))


def body(arguments: argparse.Namespace, rows: list[list[str]], lines: list[str]) -> str:
    """The section of the results file."""
    command = (
        f"python benchmarks/molecule_quality.py --samples {arguments.samples} "
        f"--samples-by-steps {arguments.samples_by_steps} --relax {arguments.relax} "
        f"--relax-qm9 {arguments.relax_qm9} --children {arguments.children} "
        f"--precision {arguments.precision} --record"
    )
    return "\n".join(
        [
            f"`{command}`",
            "",
            f"Seeds {arguments.seed} and following, {arguments.precision}, one thread, no GPU; intervals are 95% "
            f"(Wilson). {describe_machine(1)}.",
            "",
            markdown_table(
                ["steps", "samples", "strictly valid", "valid (decoded)", "samples per CPU second"], rows
            ),
            "",
            *lines,
        ]
    )


if __name__ == "__main__":
    main()
