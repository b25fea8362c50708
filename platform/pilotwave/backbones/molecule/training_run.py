"""A training run of a molecule model in memory: steps, reports, measurements, and what it leaves on the disk.

A checkpoint is written every ``checkpoint_seconds`` and before each measurement, which may take longer than that,
so a killed run loses no more than a minute of training; a measurement that was cut off is made when it is resumed.

May import torch, the modules beside it, and :mod:`pilotwave.training`.
"""

from __future__ import annotations

import math
import time as clock

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed, nn

from pilotwave.backbones.molecule import training_card, training_data, training_loss
from pilotwave.backbones.molecule.backbone import MoleculeBackbone
from pilotwave.backbones.molecule.dataset import MoleculeDataset
from pilotwave.backbones.molecule.network import MoleculeNetwork
from pilotwave.backbones.molecule.training_config import MoleculeTrainingConfig, learning_rate_factor
from pilotwave.backbones.molecule.training_measurement import SHOWN, Measurement, measure
from pilotwave.backbones.molecule.training_optimizers import average_gradients, make_optimizers
from pilotwave.backbones.molecule.training_state import (
    CHECKPOINT_NAME,
    read_checkpoint,
    starting_weights,
    weights_path,
)
from pilotwave.errors import InputError
from pilotwave.storage import save_checkpoint
from pilotwave.training.card import write_card
from pilotwave.training.collapse import CollapseMonitor, DiversityVerdict
from pilotwave.training.device import describe_device
from pilotwave.training.ema import ExponentialMovingAverage
from pilotwave.training.history import ComputeLog, TrainingHistory
from pilotwave.training.progress import TrainingProgress, TrainingWatcher
from pilotwave.training.weights import write_weights

HELD_OUT_MOLECULES = 1024
HELD_OUT_SEED = 20_001
GRADIENT_NORM_LIMIT = 2.0


class TrainingRun:
    """One process of a training run; rank 0 reports and writes, all decide alike.

    Args:
        config: What to train.
        rank: Of this process, from 0.
        world: How many processes there are; a process group joins them if there are several.
        device: Where the network is.
    """

    def __init__(self, config: MoleculeTrainingConfig, rank: int, world: int, device: torch.device) -> None:
        if device.type == "cpu":
            torch.set_num_threads(config.threads)
        self.config, self.rank, self.world, self.device = config, rank, world, device
        self.identity = training_data.identity_of(config)
        self.noise = training_loss.NoiseDistribution(
            config.log_noise_mean, config.log_noise_spread, config.network.largest_noise
        )
        self.data = training_data.load(config, TrainingWatcher())
        self.known = set(self.data.molecules.smiles.tolist())
        self.held_out = self._held_out_batch(self.data.held_out)
        real = self.data.real_held_out
        self.real_held_out = None if real is None else self._held_out_batch(real)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = MoleculeNetwork(config.network).to(device)
            self.averaged = MoleculeNetwork(config.network).to(device).eval()
        self.average = ExponentialMovingAverage(self.network, config.ema_decay)
        self.optimizers = make_optimizers(self.network, config)
        self.step, self.measured_step, self.finished = 0, 0, False
        self.losses: list[float] = []  # since the last report
        self.history, self.compute = TrainingHistory(), ComputeLog()
        self.monitor = CollapseMonitor(
            self.data.diversity(config.samples, config.seed), config.collapse_below, armed=config.start is not None
        )
        self.good_seen: int | None = None  # when the weights on the disk were written
        self._restore()
        self.forward: training_loss.Denoiser = (
            torch.compile(self.network, dynamic=True) if config.compiled else self.network
        )

    def _held_out_batch(self, molecules: MoleculeDataset) -> training_loss.TrainingBatch:
        first = molecules.select(np.arange(min(HELD_OUT_MOLECULES, len(molecules))))
        generator = torch.Generator().manual_seed(HELD_OUT_SEED)
        return training_loss.make_batch(first, self.config.network, self.noise, generator, self.device)

    def _restore(self) -> None:
        state = read_checkpoint(self.config)
        if state is None:
            if self.config.start is not None:
                self.network.load_state_dict(starting_weights(self.config))
                self.average = ExponentialMovingAverage(self.network, self.config.ema_decay)
            return
        self.step = int(state["step"])
        self.measured_step = int(state.get("measured_step", self.step))
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.losses = list(state.get("losses", []))
        self.history, self.compute = TrainingHistory(state.get("history", [])), ComputeLog(state.get("compute", []))
        self.monitor.restore(state.get("monitor", self.monitor.state()))
        self.good_seen, self.finished = state.get("good_seen"), bool(state.get("finished", False))

    @property
    def seen(self) -> int:
        """Training molecules so far."""
        return self.step * self.config.batch_size

    def to_the_end(self, watcher: TrainingWatcher) -> bool:
        """Trains until the budget is spent (True) or until it is paused or stopped (False)."""
        config = self.config
        if self.finished and self.seen >= config.molecules:
            return True
        self.compute.begin(describe_device(self.device, config.threads, self.world))
        started = self._saved = self._reported = clock.monotonic()
        self._reported_step = self.step
        self.finished = False
        while self.seen < config.molecules:
            if self.step and self._passed(config.sample_every) and self.measured_step != self.step:
                self._measure_and_report(watcher, first_seed=0)
            self.losses.append(self._take_step())
            if self.seen >= config.molecules:
                break
            self._after_a_step(watcher)
            if self._must_stop(clock.monotonic() - started, watcher):
                self._save()
                return False
        self._measure_and_report(watcher, first_seed=0)
        if self.monitor.low_running:  # once, or it would have been stopped: look again, at other samples
            self._measure_and_report(watcher, first_seed=config.samples)
        self.finished = True
        self._save()
        return True

    def _after_a_step(self, watcher: TrainingWatcher) -> None:
        if self.rank == 0:
            watcher.tick(self.seen, self.config.molecules, self.losses[-1])
        if not self._passed(self.config.sample_every) and self._passed(self.config.report_every):
            self._report(watcher)
        if clock.monotonic() - self._saved > self.config.checkpoint_seconds:
            self._save()

    def _passed(self, every: int) -> bool:
        """Whether the last step crossed a multiple of `every` molecules."""
        return self.seen // every > (self.seen - self.config.batch_size) // every

    def _must_stop(self, elapsed: float, watcher: TrainingWatcher) -> bool:
        """Rank 0 decides for all, so that no process waits for one that has left."""
        minutes = self.config.pause_after_minutes
        stop = watcher.must_stop() or (minutes is not None and elapsed > 60 * minutes)
        if self.world == 1:
            return stop
        flag = torch.tensor([float(stop)])
        distributed.broadcast(flag, 0)
        return bool(flag.item())

    def _take_step(self) -> float:
        value = 0.0
        for part, rows in self._parts():
            key = np.random.SeedSequence((self.config.seed, self.step, part)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(key[0] >> 1))
            molecules = self.data.molecules.select(rows)
            batch = training_loss.make_batch(molecules, self.config.network, self.noise, generator, self.device)
            loss = training_loss.loss_of(self.forward, batch, self.config.network) / self.config.size_groups
            loss.backward()  # type: ignore[no-untyped-call]
            value += float(loss.detach())
        if self.world > 1:
            average_gradients(self.network, self.world)
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
        rows = self.data.rows(self.step, self.config.batch_size, self.config.seed)
        if self.config.size_groups > 1:
            rows = rows[np.argsort(self.data.molecules.atoms[rows], kind="stable")]
        parts = list(enumerate(np.array_split(rows, self.world * self.config.size_groups)))
        return parts[self.rank :: self.world]

    def _measure_and_report(self, watcher: TrainingWatcher, first_seed: int) -> None:
        """Samples with the averaged weights, reports, writes weights and card; or stops a collapse.

        Raises:
            CollapseError: The samples were not varied enough, on two measurements running.
        """
        self._save()  # sampling takes a while
        self.measured_step = self.step
        watcher.announce(f"drawing {self.config.samples} samples to measure them", passing=True)
        self.average.copy_to(self.averaged)
        backbone = MoleculeBackbone(
            self.averaged,
            self.data.atom_counts(),
            steps=self.config.sample_steps,
            precision="bfloat16",
            device=str(self.device),
            name=self.config.model,
        )
        seeds = range(first_seed, first_seed + self.config.samples)
        measurement = measure(backbone, seeds, self.known, self.rank, self.world)
        verdict = self.monitor.observe(measurement.diversity())
        if self.rank == 0:
            self._write_down(measurement, verdict, watcher)
        if self.monitor.collapsed:
            if self.rank != 0:
                raise SystemExit(0)  # rank 0 says it
            self._save()
            kept = None
            if self.good_seen is not None:
                kept = f"{weights_path(self.config)} ({self.good_seen:,} molecules seen)"
            raise self.monitor.error(verdict, kept, _remedy(self.config))

    def _write_down(self, measurement: Measurement, verdict: DiversityVerdict, watcher: TrainingWatcher) -> None:
        warning = f"low diversity of samples: {verdict.text}" if verdict.low else ""
        report = self._progress(measurement.quality(), measurement, warning)
        self.history.add(report)
        if not verdict.low:
            self._write_weights(report)
        card = training_card.describe(
            self.config, self.network, self.data, self.seen, self.compute, self.history, measurement, warning
        )
        write_card(card, self.config.output)
        watcher(report)

    def _report(self, watcher: TrainingWatcher) -> None:
        if self.rank != 0:
            return
        self.average.copy_to(self.averaged)
        report = self._progress({}, None, "")
        self.history.add(report)
        watcher(report)

    @torch.no_grad()
    def _progress(self, quality: dict[str, float], measurement: Measurement | None, note: str) -> TrainingProgress:
        """Makes a report since the last one and starts anew; the averaged network is up to date."""
        now = clock.monotonic()
        speed = (self.step - self._reported_step) * self.config.batch_size / max(now - self._reported, 1e-9)
        losses, self.losses = self.losses, []
        self._reported, self._reported_step = now, self.step
        if measurement is not None and self.real_held_out is not None:
            quality = quality | {"real_held_out_loss": self._loss_on(self.real_held_out)}
        return TrainingProgress(
            seen=self.seen,
            total=self.config.molecules,
            loss=float(np.mean(losses)) if losses else math.nan,
            held_out_loss=self._loss_on(self.held_out),
            per_second=speed,
            seconds_left=max(self.config.molecules - self.seen, 0) / max(speed, 1e-9),
            quality=quality,
            samples=() if measurement is None else measurement.samples[:SHOWN],
            note=note,
        )

    def _loss_on(self, batch: training_loss.TrainingBatch) -> float:
        return float(training_loss.loss_of(self.averaged, batch, self.config.network))

    def _save(self) -> None:
        if self.rank != 0:
            return
        state = {
            "identity": self.identity,
            "step": self.step,
            "measured_step": self.measured_step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "losses": self.losses,
            "history": self.history.state(),
            "compute": self.compute.state(),
            "monitor": self.monitor.state(),
            "good_seen": self.good_seen,
            "finished": self.finished,
        }
        save_checkpoint(self.config.output / CHECKPOINT_NAME, state)
        self._saved = clock.monotonic()

    def _write_weights(self, report: TrainingProgress) -> None:
        write_weights(
            weights_path(self.config),
            self.averaged.state_dict(),
            model=self.config.model,
            config={"network": self.config.network.model_dump(), "atom_counts": self.data.atom_counts()},
            progress={
                "seen": report.seen,
                "held_out_loss": report.held_out_loss,
                **report.quality,
                "training": self.identity,
            },
        )
        self.good_seen = report.seen


def _remedy(config: MoleculeTrainingConfig) -> str:
    if config.own_data is None:
        return "lower the learning rates, or collapse_below if few samples are enough for you"
    return "raise real_share, or train on more varied molecules"


__all__ = ["TrainingRun"]
