"""What made the molecule model good: the recipe with one part taken out at a time, trained from scratch.

    python benchmarks/ablation.py --molecules 60000 --record

Every arm is a short training with the same seed, data and number of molecules; then the same draws are sampled
from its averaged weights. Short runs say which parts help early, not what a long run ends at; an arm that only
learns more slowly looks worse here than it is. Arms are kept under ``--work``: an interrupted run goes on.
Needs the extras ``molecules`` and ``train``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from results import describe_machine, markdown_table, write_section
from torch import Tensor

from pilotwave.backbones.molecule import dataset, preconditioning, quality, training, training_loss, training_run
from pilotwave.backbones.molecule.backbone import MoleculeBackbone, MoleculeBackboneConfig
from pilotwave.backbones.molecule.dataset import MoleculeDataset
from pilotwave.backbones.molecule.network import MoleculeNetwork
from pilotwave.backbones.molecule.training_config import MoleculeTrainingConfig
from pilotwave.storage import write_atomically
from pilotwave.training.proportions import in_percent

HEADING = "## Ablations of the molecule model"
BATCH_SIZE = 128
"""Smaller than the recipe's, so that so short a run still takes some hundred steps."""


@dataclass(frozen=True)
class Arm:
    """A recipe with one part taken out.

    Attributes:
        network: Settings of the network that differ from the recipe's.
        patches: What of the training code is replaced; parts that no user has a reason to switch off.
    """

    network: dict[str, Any] = field(default_factory=dict)
    patches: tuple[tuple[object, str, object], ...] = ()


def no_likelihood(noisy_classes: Tensor, sigma: Tensor, class_scale: float) -> Tensor:
    return torch.zeros_like(noisy_classes)


def independent_noise(self: training_loss.NoiseDistribution, count: int, generator: torch.Generator) -> Tensor:
    logarithm = self.log_mean + self.log_spread * torch.randn(count, generator=generator)
    largest = training_loss.LARGEST_SIGMA_FACTOR * self.largest
    return logarithm.exp().clamp(training_loss.SMALLEST_SIGMA, largest)


def only_adam(network: MoleculeNetwork, config: MoleculeTrainingConfig) -> list[torch.optim.Optimizer]:
    adam = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    for group in adam.param_groups:
        group["highest_lr"] = group["lr"]
    return [adam]


def no_turns(count: int, generator: torch.Generator) -> Tensor:
    return torch.eye(3).expand(count, 3, 3)


def shuffled_slots(data: MoleculeDataset) -> tuple[MoleculeDataset, MoleculeDataset]:
    """Splits as the recipe does, with every molecule's atoms in a random order of its own."""
    generator = torch.Generator().manual_seed(0)
    positions, classes, bonds = data.positions.copy(), data.classes.copy(), data.bonds.copy()
    for row, atoms in enumerate(data.atoms.tolist()):
        order = torch.randperm(atoms, generator=generator).numpy()
        positions[row, :atoms] = positions[row, order]
        classes[row, :atoms] = classes[row, order]
        bonds[row, :atoms, :atoms] = bonds[row][order][:, order]
    return SPLIT(MoleculeDataset(positions, classes, bonds, data.atoms, data.smiles))


SPLIT: Callable[[MoleculeDataset], tuple[MoleculeDataset, MoleculeDataset]] = dataset.split
ARMS = {
    "the recipe": Arm(),
    "classes at scale 0.3, not 0.2": Arm({"class_scale": 0.3}),
    "without the exact likelihood of classes": Arm(
        patches=((preconditioning, "class_log_likelihood", no_likelihood),)
    ),
    "one pair block, not four": Arm({"pair_blocks": 1}),
    "AdamW alone, without Muon": Arm(patches=((training_run, "make_optimizers", only_adam),)),
    "without the loss of bond orders": Arm(patches=((training_loss, "BOND_WEIGHT", 0.0),)),
    "without the loss of distances": Arm(patches=((training_loss, "DISTANCE_WEIGHT", 0.0),)),
    "noise levels drawn independently": Arm(
        patches=((training_loss.NoiseDistribution, "draw", independent_noise),)
    ),
    "atoms in random order": Arm(patches=((dataset, "split", shuffled_slots),)),
    "without random turns": Arm(patches=((training_loss, "random_orthogonal", no_turns),)),
}


@contextlib.contextmanager
def without(arm: Arm) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in arm.patches:
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield


def run(name: str, arm: Arm, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains and samples an arm, or reads what an earlier run found."""
    folder = arguments.work / f"{arguments.molecules}-{list(ARMS).index(name)}"
    found = folder / f"quality-{arguments.samples}.json"
    if found.exists():
        return dict(json.loads(found.read_text()))
    config = MoleculeTrainingConfig.model_validate(
        {
            "output": folder, "molecules": arguments.molecules, "processes": 1, "network": arm.network,
            "seed": arguments.seed, "batch_size": BATCH_SIZE, "device": "cpu",
            "samples": 16, "sample_every": 10 * arguments.molecules,
        }
    )  # fmt: skip
    reports: list[float] = []
    began = time.process_time()
    with without(arm):
        path = training.train(config, lambda progress: reports.append(float(progress.held_out_loss or 0)))
        seconds = time.process_time() - began
        backbone = MoleculeBackboneConfig(
            kind="molecule", checkpoint=str(path), steps=arguments.steps, precision="bfloat16"
        ).build("cpu")
        assert isinstance(backbone, MoleculeBackbone)
        sampled = quality.sample_molecules(backbone, range(arguments.samples))
    result = {
        "strict": sampled.strict,
        "decoded": sampled.decoded,
        "samples": sampled.count,
        "held_out_loss": reports[-1],
        "cpu_seconds": seconds,
    }
    write_atomically(found, json.dumps(result).encode())
    return result


def main() -> None:
    """Runs the arms, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", type=int, default=60_000, help="seen by each arm")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--record", action="store_true", help="write the section of RESULTS.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in arguments.arms:
        result = run(name, ARMS[name], arguments)
        strict, decoded = (in_percent(result[key], result["samples"]) for key in ("strict", "decoded"))
        rows.append([name, strict, decoded, f"{result['held_out_loss']:.3f}", f"{result['cpu_seconds']:.0f}"])
        print(rows[-1], flush=True)
    left_out = [name for name in ARMS if name not in arguments.arms]
    header = ["arm", "strictly valid", "decoded", "held-out loss", "CPU seconds of training"]
    body = "\n".join(
        [
            f"`python benchmarks/ablation.py --molecules {arguments.molecules} --samples {arguments.samples} "
            f"--steps {arguments.steps} --record`, one run of seed {arguments.seed} an arm in batches of "
            f"{BATCH_SIZE}, the same draws for all. "
            f"{describe_machine(1)}. Intervals are 95% (Wilson) and of the sampling alone; another seed of the "
            "training would differ too. Losses of arms with other terms or units are not comparable.",
            "",
            markdown_table(header, rows),
            *(["", f"Arms that were not run: {'; '.join(left_out)}."] if left_out else []),
        ]
    )
    if arguments.record:
        write_section(HEADING, body)


if __name__ == "__main__":
    main()
