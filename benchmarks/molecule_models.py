"""Measures a molecule model for `models.py`: validity, diversity, relaxations, distributions, steering."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import draws  # first: it sets the threads before anything heavy is imported
import model_plots
import numpy as np
import relaxations
import torch
from results import RESULTS, describe_machine, markdown_table

from pilotwave.backbones.molecule import dataset, decoding, distributions, moses, qm9, quality
from pilotwave.backbones.molecule.backbone import MoleculeBackbone, builtin_weights
from pilotwave.backbones.molecule.representation import DRUGLIKE, QM9, Chemistry
from pilotwave.samples import MoleculeSample
from pilotwave.training.proportions import in_percent
from pilotwave.training.weights import read_weights
from pilotwave.types import Draw

PICTURES = RESULTS.parent.parent / "docs" / "pictures"
OTHER_SAMPLERS = ("euler-ancestral",)
STRICT, DECODED = "strictly valid at 50 steps", "valid after decoding at 50 steps"
KEPT, MOVED = "of the valid, keep every bond under GFN2-xTB", "median RMSD to that minimum, Å"
DISTINCT, FAST = "distinct among the first 1,000 valid", "valid after decoding at 20 steps"
SPEED = "a second at 20 steps on these cores, at the faster precision"


@dataclass(frozen=True)
class Subject:
    """A molecule model and what it is measured against.

    Attributes:
        kind: Of backbone.
        heading: Of its section.
        data_name: For people.
        chemistry: Of its data.
        main_steps: Step counts that get all samples.
        close_steps: The one that is looked at closely, and compared with the data.
        tested_steps: The one whose validity the test repeats.
        relaxed: For each method, how many samples and how many molecules of the data by default.
        children: Parents of the steering measurement by default.
        targets: What it shall reach: a fact, and the least (or, below zero, minus the most) it may be.
    """

    kind: str
    heading: str
    data_name: str
    chemistry: Chemistry
    main_steps: tuple[int, ...]
    close_steps: int
    tested_steps: int
    relaxed: dict[str, tuple[int, int]]
    children: int
    targets: dict[str, float]

    def data(self) -> dataset.MoleculeDataset:
        return qm9.load() if self.kind == "molecule" else moses.load()


SUBJECTS = {
    "molecule": Subject(
        "molecule",
        "## Built-in molecule model",
        "QM9",
        QM9,
        (20, 50),
        50,
        20,
        {"gfn2": (300, 100)},
        128,
        {STRICT: 0.92, DECODED: 0.99, KEPT: 0.97, MOVED: -0.1, DISTINCT: 0.99, FAST: 0.95, SPEED: 150},
    ),
    "druglike": Subject(
        "druglike",
        "## Built-in drug-like model",
        "MOSES",
        DRUGLIKE,
        (20, 50),
        50,
        20,
        {"gfn2": (30, 10), "mmff": (300, 100)},
        32,
        {DECODED: 0.85},
    ),
}


def measure(arguments: argparse.Namespace) -> tuple[str, str, dict[str, object]]:
    """Returns the section's heading and body, and what the test repeats."""
    subject = SUBJECTS[arguments.model]
    rows, drawn = [], {}
    for setting, count in settings(subject, arguments):
        drawn[setting] = draws.draw(setting, count, arguments.seed, arguments.work, arguments.processes)
        rows.append(row(setting, drawn[setting], arguments.processes))
        print(rows[-1], flush=True)
    close = drawn[main_setting(subject, arguments, subject.close_steps)]
    data = subject.data()
    facts = sampling_facts(drawn, close.sampled, arguments.processes)
    lines = diversity_lines(close.sampled, data, subject.data_name)
    lines += relaxation_lines(subject, close.sampled, data, arguments, facts)
    lines += steering_lines(subject, arguments)
    lines += target_lines(subject.targets, facts)
    table = distribution_table(subject, close.sampled, data, arguments)
    tested = drawn[main_setting(subject, arguments, subject.tested_steps)].sampled
    recorded = {
        "fingerprint": main_setting(subject, arguments, subject.tested_steps).build().fingerprint,
        "steps": subject.tested_steps,
        "seed": arguments.seed,
        "drawn": tested.count,
        "strict": tested.strict,
        "decoded": tested.decoded,
    }
    header = [
        "steps", "sampler", "precision", "samples", "strictly valid", "valid (decoded)", "per CPU second",
        f"per second on {arguments.processes} cores",
    ]  # fmt: skip
    about = [
        f"`{command(arguments)}`",
        "",
        f"Seeds {arguments.seed} and following; one thread a process, no GPU; intervals are 95% (Wilson). "
        f"{describe_machine(1)}. Weights: {weights_line(subject, arguments)}.",
        "",
        markdown_table(header, rows),
        "",
        f"At {subject.close_steps} steps, {close.sampled.count:,} samples:",
        "",
    ]
    return subject.heading, "\n".join([*about, *lines, "", *table]), recorded


def settings(subject: Subject, arguments: argparse.Namespace) -> Iterable[tuple[draws.Setting, int]]:
    """Yields every setting with its number of samples, the main ones first: they matter most."""
    main = sorted({*subject.main_steps, subject.close_steps, subject.tested_steps})
    for steps in main:
        yield main_setting(subject, arguments, steps), arguments.samples
    if not arguments.samples_other:
        return
    few = min(arguments.samples_other, arguments.samples)
    for steps in sorted({*arguments.steps} - {*main}):
        yield main_setting(subject, arguments, steps), few
    for steps in main:
        yield draws.Setting(subject.kind, arguments.checkpoint, steps, precision="bfloat16"), few
    for sampler in OTHER_SAMPLERS:
        for steps in sorted(arguments.steps):
            yield draws.Setting(subject.kind, arguments.checkpoint, steps, sampler), few


def main_setting(subject: Subject, arguments: argparse.Namespace, steps: int) -> draws.Setting:
    return draws.Setting(subject.kind, arguments.checkpoint, steps)


def row(setting: draws.Setting, drawn: draws.Drawn, processes: int) -> list[str]:
    sampled = drawn.sampled
    return [
        str(setting.steps),
        setting.sampler,
        setting.precision,
        f"{sampled.count:,}",
        in_percent(sampled.strict, sampled.count),
        in_percent(sampled.decoded, sampled.count),
        f"{drawn.per_cpu_second:.1f}",
        f"{drawn.per_second(processes):.1f}",
    ]


def diversity_lines(sampled: quality.SampledMolecules, data: dataset.MoleculeDataset, name: str) -> list[str]:
    """Uniqueness, novelty, and why samples are invalid."""
    training, held_out = (set(part.smiles.tolist()) for part in dataset.split(data))
    smiles = sampled.smiles
    distinct = set(smiles)
    known = training | held_out
    first = smiles[:1000]
    reasons = sorted({(sampled.reasons.count(reason), reason) for reason in sampled.reasons}, reverse=True)
    lines = [
        f"- distinct: {len(distinct):,} of {len(smiles):,} valid molecules "
        f"({100 * quality.uniqueness(smiles):.1f}%); of the first {len(first):,}: "
        f"{100 * quality.uniqueness(first):.1f}%",
        f"- of the distinct ones, never trained on: {in_percent(len(distinct - training), len(distinct))}; "
        f"in no part of {name} as it is used here ({len(known):,} molecules): "
        f"{in_percent(len(distinct - known), len(distinct))}",
    ]
    if reasons:
        told = ", ".join(f"{reason} {count}" for count, reason in reasons)
        lines.append(f"- invalid of {sampled.count:,} draws: {told}")
    return lines


def relaxation_lines(
    subject: Subject,
    sampled: quality.SampledMolecules,
    data: dataset.MoleculeDataset,
    arguments: argparse.Namespace,
    facts: dict[str, float],
) -> list[str]:
    """What relaxing samples does to them, and the same for data that nobody trained on; adds to the facts."""
    _, held_out = dataset.split(data)
    lines = []
    for method, (count, data_count) in subject.relaxed.items():
        if method == "gfn2" and arguments.relax is not None:
            count, data_count = arguments.relax, min(arguments.relax, data_count)
        blocks = [molecule.mol_block for molecule in sampled.molecules[:count]]
        if not blocks:
            continue
        real = [mol_block(molecule) for molecule in decoded(subject, held_out, data_count, arguments.seed)]
        results = relaxations.relax_all(method, blocks, arguments.work, arguments.processes)
        lines += relaxations.summary(
            "samples", method, results, round(len(blocks) / sampled.decoded * sampled.count)
        )
        if method == "gfn2":
            facts[KEPT] = statistics.mean(result.kept for result in results)
            facts[MOVED] = float(np.median([result.rmsd for result in results if result.kept]))
        results = relaxations.relax_all(method, real, arguments.work, arguments.processes)
        lines += relaxations.summary(f"held-out {subject.data_name}", method, results)
    return lines


def sampling_facts(
    drawn: dict[draws.Setting, draws.Drawn], close: quality.SampledMolecules, processes: int
) -> dict[str, float]:
    """Shares and speeds that targets are about."""
    facts = {
        STRICT: close.strict / close.count,
        DECODED: close.decoded / close.count,
        DISTINCT: quality.uniqueness(close.smiles[:1000]),
    }
    fast = {
        setting.precision: found
        for setting, found in drawn.items()
        if setting.steps == 20 and setting.sampler not in OTHER_SAMPLERS
    }
    sampled = fast["float32"].sampled
    facts[FAST] = sampled.decoded / sampled.count
    facts[SPEED] = max(found.per_second(processes) for found in fast.values())
    return facts


def target_lines(targets: dict[str, float], facts: dict[str, float]) -> list[str]:
    """Says of each target what was found, and whether it is met."""
    lines = []
    for name, limit in targets.items():
        found = facts.get(name)
        met = found is not None and (found >= limit if limit > 0 else found <= -limit)
        value = "not measured" if found is None else f"{found:.3g}"
        lines.append(
            f"- target: {name} at {'least' if limit > 0 else 'most'} {abs(limit):g}: {value}, "
            f"{'met' if met else 'not met'}"
        )
    return lines


def steering_lines(subject: Subject, arguments: argparse.Namespace) -> list[str]:
    """How near the children of mixed noise stay to their parents: what perturbing algorithms rely on."""
    count = subject.children if arguments.children is None else arguments.children
    if not count:
        return []
    plain = main_setting(subject, arguments, subject.close_steps).build()
    atoms = int(np.argmax(plain.atom_counts))  # noise of one size can be mixed
    backbone = draws.Setting(subject.kind, arguments.checkpoint, subject.close_steps, atoms=atoms).build()
    parents = [Draw(f"parent-{seed}", seed) for seed in range(count)]
    others = [Draw(f"other-{seed}", 10_000 + seed) for seed in range(count)]
    noise, fresh = backbone.draw_noise(parents), backbone.draw_noise(others)
    conditions = backbone.draw_conditions(parents)
    born = backbone.decode(backbone.sample(noise, conditions), conditions)
    lines = []
    for new in (0.1, 0.2, 1.0):
        mixed = ((1 - new) * noise + new * fresh) / ((1 - new) ** 2 + new**2) ** 0.5  # of unit variance still
        lines.append(children_line(backbone, mixed, conditions, born, new))
    return lines


def children_line(
    backbone: MoleculeBackbone, noise: torch.Tensor, conditions: torch.Tensor, parents: list[object], new: float
) -> str:
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    fingerprints = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    children = backbone.decode(backbone.sample(noise, conditions), conditions)
    valid = sum(isinstance(child, MoleculeSample) for child in children)
    pairs = [
        (parent.smiles, child.smiles)
        for parent, child in zip(parents, children, strict=True)
        if isinstance(parent, MoleculeSample) and isinstance(child, MoleculeSample)
    ]
    told = f"- noise mixed with {new:.0%} new: {in_percent(valid, len(children))} of {len(children)} valid"
    if not pairs:
        return told
    prints = [[fingerprints.GetFingerprint(Chem.MolFromSmiles(item)) for item in pair] for pair in pairs]
    likeness = statistics.mean(DataStructs.TanimotoSimilarity(*pair) for pair in prints)
    same = 100 * statistics.mean(one == two for one, two in pairs)
    return f"{told}, {same:.0f}% the parent's molecule, mean Tanimoto to the parent {likeness:.2f} (Morgan 2)"


def distribution_table(
    subject: Subject,
    sampled: quality.SampledMolecules,
    data: dataset.MoleculeDataset,
    arguments: argparse.Namespace,
) -> list[str]:
    """Distances of samples to the data, beside those of as many molecules of the data; draws them, too."""
    from rdkit import Chem

    count = min(arguments.compared, sampled.decoded)
    ours = distributions.statistics(
        Chem.MolFromMolBlock(molecule.mol_block, removeHs=False) for molecule in sampled.molecules[:count]
    )
    pairs = min(2 * arguments.compared, len(data))
    real = decoded(subject, data, pairs, arguments.seed)
    theirs = distributions.statistics(real[: pairs // 2])
    floor = distributions.statistics(real[pairs // 2 : pairs // 2 + count])
    name = f"{subject.data_name}, {theirs.molecules:,} molecules"
    if arguments.record:
        path = PICTURES / f"{subject.kind}_distributions.png"
        model = f"{subject.kind}, {subject.close_steps} steps"
        model_plots.draw_distributions(ours, theirs, model, name, path)
    rows = []
    for ours_to_data, data_to_data in zip(
        distributions.compare(ours, theirs), distributions.compare(floor, theirs), strict=True
    ):
        digits = 4 if ours_to_data.unit == "Å" else 3
        rows.append(
            [
                ours_to_data.name,
                "total variation" if ours_to_data.name in distributions.FREQUENCIES else "Wasserstein",
                f"{ours_to_data.value:.{digits}f} {ours_to_data.unit}".strip(),
                f"{data_to_data.value:.{digits}f} {data_to_data.unit}".strip(),
            ]
        )
    means = ", ".join(
        f"{each} {ours.properties[each].mean():.3f} ({theirs.properties[each].mean():.3f})"
        for each in theirs.properties
    )
    return [
        f"Distributions of {ours.molecules:,} samples against {name}; the floor is the same distance for "
        f"{floor.molecules:,} other molecules of the data:",
        "",
        markdown_table(["of", "distance", "samples", "floor"], rows),
        "",
        f"Means of samples (of the data): {means}.",
        "",
        f"![Samples and data, distribution by distribution](../docs/pictures/{subject.kind}_distributions.png)",
    ]


def decoded(subject: Subject, data: dataset.MoleculeDataset, count: int, seed: int) -> list[object]:
    """Random molecules of a data set through the model's own decoder: what a perfect model would draw."""
    molecules = []
    for row_number in np.random.default_rng(seed).choice(len(data), min(count, len(data)), replace=False):
        atoms = int(data.atoms[row_number])
        classes = data.classes[row_number, :atoms].tolist()
        found = decoding.decode_united_atoms(data.positions[row_number, :atoms], classes, subject.chemistry)
        if found.molecule is not None:
            molecules.append(found.molecule)
    return molecules


def mol_block(molecule: object) -> str:
    from rdkit import Chem

    return Chem.MolToMolBlock(molecule)


def weights_line(subject: Subject, arguments: argparse.Namespace) -> str:
    path = builtin_weights(subject.kind) if arguments.checkpoint == "builtin" else Path(arguments.checkpoint)
    weights = read_weights(path, model=subject.kind)
    told = [
        f"{name.replace('_', ' ')} {value:.4g}" for name, value in weights.progress.items() if _is_number(value)
    ]
    return ", ".join([f"fingerprint {weights.fingerprint}", *told])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def command(arguments: argparse.Namespace) -> str:
    """Returns the command that repeats this; where work is kept does not matter."""
    words = [f"python benchmarks/models.py {arguments.model}"]
    for name in ("samples", "samples_other", "processes", "compared", "relax", "children", "seed"):
        value = getattr(arguments, name)
        if value is not None:
            words.append(f"--{name.replace('_', '-')} {value}")
    if arguments.checkpoint != "builtin":
        words.append(f"--checkpoint {Path(arguments.checkpoint).name}")
    words.append(f"--steps {' '.join(map(str, arguments.steps))} --record")
    return " ".join(words)
