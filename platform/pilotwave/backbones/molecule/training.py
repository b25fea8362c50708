"""Trains the built-in molecule model; ``pilotwave train molecule`` runs this.

One GPU, or a few CPU processes that average their gradients. Every random number of step k follows from the
seed, k and the process, and the data order from the seed and the epoch, so a run that was killed and started
again continues the same sequence. The learning rate depends on molecules seen, never on the clock: a busy
machine only delays the end.

May import torch, the modules beside it, and :mod:`pilotwave.training`.
"""

from __future__ import annotations

import signal
import tempfile
import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed, nn

from pilotwave.backbones.molecule import dataset, training_data, training_loss
from pilotwave.backbones.molecule.backbone import MoleculeBackbone, build_network, builtin_weights
from pilotwave.backbones.molecule.network import MoleculeNetwork
from pilotwave.backbones.molecule.quality import count_validity
from pilotwave.backbones.molecule.training_config import (
    FREE,
    DruglikeTrainingConfig,
    MoleculeTrainingConfig,
    identity,
    learning_rate_factor,
)
from pilotwave.errors import CheckpointError, InputError
from pilotwave.storage import load_checkpoint, save_checkpoint
from pilotwave.training.ema import ExponentialMovingAverage
from pilotwave.training.progress import TrainingProgress
from pilotwave.training.weights import read_weights, write_weights

CHECKPOINT_NAME = "checkpoint.pt"
HELD_OUT_MOLECULES = 1024
HELD_OUT_SEED = 20_001
GRADIENT_NORM_LIMIT = 2.0


def train(
    config: MoleculeTrainingConfig,
    progress: Callable[[TrainingProgress], None],
    announce: Callable[[str], None] | None = None,
) -> Path:
    """Trains, or continues where the checkpoint in the output folder stands.

    Args:
        config: What to train.
        progress: Called in this process about every ``report_every`` molecules and at the end.
        announce: Called with a line of text while data is prepared.

    Returns:
        The path of the finished weights, e.g. ``<output>/molecule.safetensors``; of the checkpoint if paused.

    Raises:
        CheckpointError: The output folder holds a damaged checkpoint or one of another run.
        InputError: QM9 is not installed, or the loss is no longer finite.
        StorageError: A checkpoint could not be written.
    """
    read_checkpoint(config)  # refuse another run's folder before any work
    training_data.load(config, announce)  # prepared once, before processes share it
    device = choose_device(config.device)
    if device.type != "cpu" or config.processes == 1:
        finished = _Run(config, 0, 1, device).to_the_end(progress)
    else:
        finished = _train_in_processes(config, progress)
    return weights_path(config) if finished else config.output / CHECKPOINT_NAME


def choose_device(name: str) -> torch.device:
    """Returns the device of that name; auto is a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(f"expected device auto, cpu or cuda, got {name!r}") from error


def data_order(places: npt.NDArray[np.int64], size: int, seed: int) -> npt.NDArray[np.int64]:
    """Maps places in the endless stream of training molecules to rows: a new permutation every epoch.

    Args:
        places: 0, 1, ... in the stream, any shape (n,).
        size: Number of training molecules.
        seed: Of the run.
    """
    rows = np.empty_like(places)
    for epoch in np.unique(places // size):
        inside = places // size == epoch
        rows[inside] = np.random.default_rng((seed, int(epoch))).permutation(size)[places[inside] % size]
    return rows


def read_checkpoint(config: MoleculeTrainingConfig) -> dict[str, Any] | None:
    """Loads the checkpoint of this run, or None if there is none.

    Raises:
        CheckpointError: It is damaged, or of another run; the message names what differs.
    """
    path = config.output / CHECKPOINT_NAME
    if not path.exists():
        return None
    state = load_checkpoint(path)
    theirs, ours = state.get("identity", {}), identity(config)
    different = [f"{key} = {theirs.get(key)} (now {ours[key]})" for key in ours if theirs.get(key) != ours[key]]
    if different:
        raise CheckpointError(
            f"the checkpoint in {config.output} is of another run: {', '.join(different)}; "
            "choose another output folder or the settings it was started with"
        )
    return state


def _train_in_processes(config: MoleculeTrainingConfig, progress: Callable[[TrainingProgress], None]) -> bool:
    """Runs rank 0 here and starts the other ranks; they end when rank 0 does."""
    context = torch.multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="pilotwave-train-") as folder:
        meeting_point = str(Path(folder) / "rendezvous")
        others = [
            context.Process(target=_train_rank, args=(config, rank, meeting_point), daemon=True)
            for rank in range(1, config.processes)
        ]
        for process in others:
            process.start()
        try:
            return _train_rank(config, 0, meeting_point, progress)
        except BaseException:
            for process in others:  # they wait for this process's gradients, and would complain at length
                process.kill()
            raise
        finally:
            for process in others:
                process.join(timeout=60)
                process.kill()


def _train_rank(
    config: MoleculeTrainingConfig,
    rank: int,
    meeting_point: str,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> bool:
    if rank > 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides when all end
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=config.processes
    )
    try:
        return _Run(config, rank, config.processes, torch.device("cpu")).to_the_end(progress)
    finally:
        distributed.destroy_process_group()


class _Run:
    """One process of a training run; rank 0 reports and writes."""

    def __init__(self, config: MoleculeTrainingConfig, rank: int, world: int, device: torch.device) -> None:
        if device.type == "cpu":
            torch.set_num_threads(config.threads)
        self.config, self.rank, self.world, self.device = config, rank, world, device
        self.noise = training_loss.NoiseDistribution(
            config.log_noise_mean, config.log_noise_spread, config.network.largest_noise
        )
        self.data, held_out = dataset.split(training_data.load(config))
        if not len(self.data) or not len(held_out):
            raise InputError(
                f"expected molecules to train on and to hold out, got {len(self.data)} and {len(held_out)}"
            )
        self.held_out = training_loss.make_batch(
            held_out.select(np.arange(min(HELD_OUT_MOLECULES, len(held_out)))),
            config.network,
            self.noise,
            torch.Generator().manual_seed(HELD_OUT_SEED),
            device,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = MoleculeNetwork(config.network).to(device)
            self.averaged = MoleculeNetwork(config.network).to(device).eval()
        if config.start is not None:
            self.network.load_state_dict(starting_weights(config))
        self.forward: training_loss.Denoiser = (
            torch.compile(self.network, dynamic=True) if config.compiled else self.network
        )
        self.average = ExponentialMovingAverage(self.network, config.ema_decay)
        self.optimizers = make_optimizers(self.network, config)
        self.step = 0
        self._restore()

    def _restore(self) -> None:
        state = read_checkpoint(self.config)
        if state is None:
            return
        self.step = int(state["step"])
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    @property
    def seen(self) -> int:
        """Training molecules so far."""
        return self.step * self.config.batch_size

    def to_the_end(self, progress: Callable[[TrainingProgress], None] | None) -> bool:
        """Trains until the budget is spent (True) or until the pause (False)."""
        started = saved = reported = clock.monotonic()
        losses: list[float] = []
        while self.seen < self.config.molecules:
            losses.append(self._take_step())
            if self.seen >= self.config.molecules:
                break
            measure = self._passed(self.config.sample_every)
            if measure or self._passed(self.config.report_every):
                validity = self._validity() if measure else {}
                self._report(losses, clock.monotonic() - reported, validity, progress)
                losses, reported = [], clock.monotonic()
            if clock.monotonic() - saved > self.config.checkpoint_seconds:
                self._save()
                saved = clock.monotonic()
            if self._must_pause(clock.monotonic() - started):
                self._save()
                return False
        report = self._report(losses, clock.monotonic() - reported, self._validity(), progress)
        self._save()
        if report is not None:
            self._write_weights(report)
        return True

    def _passed(self, every: int) -> bool:
        """Whether the last step crossed a multiple of `every` molecules."""
        return self.seen // every > (self.seen - self.config.batch_size) // every

    def _must_pause(self, elapsed: float) -> bool:
        """Rank 0's clock decides for all, so that no process waits for one that has left."""
        if self.config.pause_after_minutes is None:
            return False
        flag = torch.tensor([float(elapsed > 60 * self.config.pause_after_minutes)])
        if self.world > 1:
            distributed.broadcast(flag, 0)
        return bool(flag.item())

    def _take_step(self) -> float:
        value = 0.0
        for part, rows in self._parts():
            key = np.random.SeedSequence((self.config.seed, self.step, part)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(key[0] >> 1))
            molecules = self.data.select(rows)
            batch = training_loss.make_batch(molecules, self.config.network, self.noise, generator, self.device)
            loss = training_loss.loss_of(self.forward, batch, self.config.network) / self.config.size_groups
            loss.backward()  # type: ignore[no-untyped-call]
            value += float(loss.detach())
        if self.world > 1:
            _average_gradients(self.network, self.world)
        nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM_LIMIT)
        factor = learning_rate_factor(self.seen, self.config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["highest_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.average.update(self.network)
        self.step += 1
        if not np.isfinite(value):
            raise InputError(f"the loss became {value} at step {self.step}; lower the learning rates")
        return value

    def _parts(self) -> list[tuple[int, npt.NDArray[np.int64]]]:
        """Returns this process's parts of the step: their numbers in the whole step, and rows of similar size."""
        places = np.arange(self.seen, self.seen + self.config.batch_size)
        rows = data_order(places, len(self.data), self.config.seed)
        if self.config.size_groups > 1:
            rows = rows[np.argsort(self.data.atoms[rows], kind="stable")]
        parts = list(enumerate(np.array_split(rows, self.world * self.config.size_groups)))
        return parts[self.rank :: self.world]

    def _validity(self) -> dict[str, float]:
        """Samples with the averaged weights, each process its share."""
        self.average.copy_to(self.averaged)
        backbone = MoleculeBackbone(
            self.averaged, dataset.atom_count_frequencies(self.data), precision="bfloat16", device=str(self.device)
        )
        share = -(-self.config.samples // self.world)
        counts = count_validity(backbone, range(self.rank * share, (self.rank + 1) * share))
        if self.world > 1:
            distributed.all_reduce(counts)
        strict, decoded, drawn = counts.tolist()
        return {"strict_validity": strict / drawn, "decoded_validity": decoded / drawn}

    @torch.no_grad()
    def _report(
        self,
        losses: list[float],
        elapsed: float,
        validity: dict[str, float],
        progress: Callable[[TrainingProgress], None] | None,
    ) -> TrainingProgress | None:
        if self.rank != 0:
            return None
        self.average.copy_to(self.averaged)
        speed = len(losses) * self.config.batch_size / max(elapsed, 1e-9)
        report = TrainingProgress(
            seen=self.seen,
            total=self.config.molecules,
            loss=float(np.mean(losses)) if losses else float("nan"),
            held_out_loss=float(training_loss.loss_of(self.averaged, self.held_out, self.config.network)),
            per_second=speed,
            seconds_left=max(self.config.molecules - self.seen, 0) / max(speed, 1e-9),
            quality=validity,
        )
        if progress is not None:
            progress(report)
        return report

    def _save(self) -> None:
        if self.rank != 0:
            return
        state = {
            "identity": identity(self.config),
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        save_checkpoint(self.config.output / CHECKPOINT_NAME, state)

    def _write_weights(self, report: TrainingProgress) -> None:
        self.average.copy_to(self.averaged)
        write_weights(
            weights_path(self.config),
            self.averaged.state_dict(),
            model=self.config.model,
            config={
                "network": self.config.network.model_dump(),
                "atom_counts": dataset.atom_count_frequencies(self.data),
            },
            progress={
                "seen": report.seen,
                "held_out_loss": report.held_out_loss,
                **report.quality,
                "training": identity(self.config),
            },
        )


def weights_path(config: MoleculeTrainingConfig) -> Path:
    """Returns where a run's finished weights go."""
    return config.output / f"{config.model}.safetensors"


def starting_weights(config: MoleculeTrainingConfig) -> dict[str, torch.Tensor]:
    """Reads the weights a run begins from.

    Raises:
        CheckpointError: They are missing, of another model, or of a network of another shape.
    """
    path = builtin_weights(config.model) if config.start == "builtin" else Path(str(config.start))
    network, _ = build_network(read_weights(path, model=config.model))
    if network.config != config.network:
        theirs, ours = network.config.model_dump(), config.network.model_dump()
        different = ", ".join(
            f"{key} = {theirs[key]} (now {ours[key]})" for key in ours if theirs[key] != ours[key]
        )
        raise CheckpointError(f"the weights at {path} are of another network: {different}")
    return network.state_dict()


def make_optimizers(network: MoleculeNetwork, config: MoleculeTrainingConfig) -> list[torch.optim.Optimizer]:
    """Makes Muon for the matrices of the transformer layers and AdamW for all other parameters."""
    named = list(network.named_parameters())
    trunk = [value for name, value in named if name.startswith("layers.") and name.endswith("weight")]
    chosen = {id(parameter) for parameter in trunk}
    others = [value for _, value in named if id(value) not in chosen]
    muon = torch.optim.Muon(trunk, lr=config.trunk_learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["highest_lr"] = group["lr"]
    return [muon, adam]


def _average_gradients(network: nn.Module, world: int) -> None:
    """Averages gradients over the processes, in one message."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    joined = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(joined)
    joined /= world
    for gradient, part in zip(gradients, torch.split(joined, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


__all__ = [
    "CHECKPOINT_NAME",
    "FREE",
    "DruglikeTrainingConfig",
    "MoleculeTrainingConfig",
    "data_order",
    "learning_rate_factor",
    "train",
]
