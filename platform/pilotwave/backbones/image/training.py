"""Trains an image model; ``pilotwave train image`` runs this.

Every batch (pictures, times, noise, dropped classes) follows from the seed and the number of the step alone, so
a run that was killed and started again ends bit for bit where an undisturbed one ends. The output folder holds
the checkpoint, the averaged weights of the last measurement whose samples were varied enough, and a model card.

``torch.compile`` is not used: on the CPU it took half a minute to two minutes and gained nothing (within 6%).

May import torch, the modules beside it, :mod:`pilotwave.training` and :mod:`pilotwave.storage`.
"""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pilotwave.backbones.image.evaluation import Evaluation, Look
from pilotwave.backbones.image.network import ImageNetwork, ImageNetworkConfig, velocity_loss
from pilotwave.backbones.image.sources import Source
from pilotwave.backbones.image.stored import MODEL, header_of, read_start
from pilotwave.backbones.image.training_card import describe_model
from pilotwave.backbones.image.training_config import FREE, EmojiTrainingConfig, ImageTrainingConfig, rate_factor
from pilotwave.backbones.image.training_data import TrainingData
from pilotwave.errors import CheckpointError, InputError
from pilotwave.storage import load_checkpoint, save_checkpoint
from pilotwave.training.card import write_card
from pilotwave.training.collapse import CollapseMonitor, DiversityVerdict
from pilotwave.training.device import choose_device, describe_device
from pilotwave.training.ema import ExponentialMovingAverage
from pilotwave.training.history import ComputeLog, TrainingHistory
from pilotwave.training.progress import TrainingProgress, TrainingWatcher, watcher_of
from pilotwave.training.weights import write_weights

CHECKPOINT_NAME = "checkpoint.pt"
SHOWN = 40
"""Samples of a measurement that a report carries."""
REMEDY = "give more varied pictures, a larger real_share or smaller learning rates"


def train(config: ImageTrainingConfig, progress: Callable[[TrainingProgress], None]) -> Path:
    """Trains, or continues where the checkpoint in the output folder stands.

    Args:
        config: What to train.
        progress: Called about every ``report_every`` pictures, at every measurement and at the end; a
            :class:`TrainingWatcher` can also stop the run.

    Returns:
        The path of the finished weights, ``<output>/image.safetensors``; of the checkpoint if the run was stopped.

    Raises:
        CheckpointError: The output folder holds a damaged checkpoint or one of another run, or the start is of
            another model.
        CollapseError: The samples lost their variety; the last good weights are kept.
        InputError: The data is not there, or the loss is no longer finite.
        StorageError: A checkpoint could not be written.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        run = _Run(config)
        run.resume()
        return run.weights if run.to_the_end(watcher_of(progress)) else run.checkpoint
    finally:
        torch.set_num_threads(threads_before)


def make_optimizers(network: ImageNetwork, config: ImageTrainingConfig) -> list[torch.optim.Optimizer]:
    """Makes Muon for the matrices of the blocks and of attention, and AdamW for all other parameters."""
    trunk = ("before.", "middle.", "attention.", "after.")
    named = list(network.named_parameters())
    matrices = [
        value
        for name, value in named
        if name.startswith(trunk) and value.ndim == 2 and not name.endswith("modulate.weight")
    ]
    chosen = {id(value) for value in matrices}
    others = [value for _, value in named if id(value) not in chosen]
    muon = torch.optim.Muon(
        matrices, lr=config.matrix_learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(others, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["highest_lr"] = group["lr"]
    return [muon, adam]


class _Run:
    """A training run in memory: network, optimizers, average, the step reached and what was measured."""

    def __init__(self, config: ImageTrainingConfig) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.source = config.own_source()
        network, start = _first_network(config, self.source)
        self.network = network.to(self.device)
        self.data = TrainingData(config, self.source, network.picture)
        self.identity = config.model_dump(mode="json", exclude=set(FREE)) | {
            "network": network.config.model_dump(mode="json"),
            "start": start,
            "data": self.data.digest(),
        }
        self.average = ExponentialMovingAverage(self.network, config.ema_decay)
        self.optimizers = make_optimizers(self.network, config)
        self.evaluation = Evaluation(
            self.network, self.data.held_out, self.data.some(), config.samples, config.precision, self.device
        )
        self.monitor = CollapseMonitor(
            self.evaluation.data_diversity, config.collapse_below, armed=config.start is not None
        )
        self.history, self.compute = TrainingHistory(), ComputeLog()
        self.step, self.good_seen = 0, 0
        self.losses: list[float] = []  # since the last report
        self._reported, self._reported_step = clock.monotonic(), 0

    @property
    def checkpoint(self) -> Path:
        return self.config.output / CHECKPOINT_NAME

    @property
    def weights(self) -> Path:
        return self.config.output / f"{self.config.model}.safetensors"

    @property
    def seen(self) -> int:
        """Training pictures so far."""
        return self.step * self.config.batch_size

    def to_the_end(self, watcher: TrainingWatcher) -> bool:
        """Trains until the budget is spent (True) or until the watcher stops it (False)."""
        config, total = self.config, self.config.steps * self.config.batch_size
        self.compute.begin(describe_device(self.device, config.threads))
        self._reported, self._reported_step = clock.monotonic(), self.step
        saved = clock.monotonic()
        if self.step == 0 and config.start is not None:
            self.write_weights({}, None)  # the last good weights until there are better ones
        while self.step < config.steps:
            self.losses.append(self.one_step())
            last = self.step == config.steps
            watcher.tick(self.seen, total, self.losses[-1])
            if last or self._passes(config.evaluate_every):
                self.measure(watcher)
                if last and self.monitor.low_running:  # once, or it would have been stopped: look again
                    self.measure(watcher, again=True)
            elif self._passes(config.report_every):
                report = self._progress(None, None, "")
                self.history.add(report)
                watcher(report)
            stop = watcher.must_stop()
            if last or stop or clock.monotonic() - saved >= config.checkpoint_seconds:
                self.save()
                saved = clock.monotonic()
            if stop and not last:
                return False
        return True

    def one_step(self) -> float:
        """Takes one optimizer step and returns its loss."""
        factor = rate_factor(self.config, self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["highest_lr"] * factor
        clean, noise, time, labels = (tensor.to(self.device) for tensor in self.data.batch(self.step))
        reduced = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
            loss = velocity_loss(self.network, clean, noise, time, labels).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.average.update(self.network)
        self.step += 1
        value = loss.item()
        if not np.isfinite(value):
            raise InputError(
                f"the training loss is {value} at step {self.step}: it diverged; choose a learning_rate below "
                f"{self.config.learning_rate:g} or a matrix_learning_rate below "
                f"{self.config.matrix_learning_rate:g}, and another output folder"
            )
        return value

    def measure(self, watcher: TrainingWatcher, *, again: bool = False) -> None:
        """Measures the averaged weights, reports, and writes them and their card if their samples vary enough.

        Raises:
            CollapseError: They did not, on two measurements running; the weights written before stay.
        """
        watcher.announce(f"drawing {self.config.samples} samples to measure them", passing=True)
        loss = self.evaluation.loss(self.average.average)
        look = self.evaluation.look(self.average.average, again=again)
        verdict = self.monitor.observe(look.diversity)
        report = self._progress(loss, look, _warning(verdict))
        self.history.add(report)
        if not verdict.low:
            self.write_weights(look.measures, loss)
        card = describe_model(
            self.config,
            self.network,
            self.source,
            self.data,
            self.seen,
            self.compute,
            self.history,
            look,
            report.note,
        )
        write_card(card, self.config.output)
        watcher(report)
        if self.monitor.collapsed:
            self.save()
            raise self.monitor.error(verdict, f"{self.weights} ({self.good_seen:,} pictures seen)", REMEDY)

    def save(self) -> None:
        state = {
            "identity": self.identity,
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "losses": self.losses,
            "history": self.history.state(),
            "compute": self.compute.state(),
            "monitor": self.monitor.state(),
            "good_seen": self.good_seen,
        }
        save_checkpoint(self.checkpoint, state)

    def resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = load_checkpoint(self.checkpoint)
        if state.get("identity") != self.identity:
            differing = _differing(state.get("identity"), self.identity)
            raise CheckpointError(
                f"{self.checkpoint} belongs to another training run (different: {differing}); "
                "choose another output folder, or the same settings to continue it"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.good_seen, self.losses = state["step"], state["good_seen"], list(state["losses"])
        self.history, self.compute = TrainingHistory(state["history"]), ComputeLog(state["compute"])
        self.monitor.restore(state["monitor"])

    def write_weights(self, measures: dict[str, float], held_out_loss: float | None) -> None:
        write_weights(
            self.weights,
            self.average.average,
            model=MODEL,
            config=header_of(self.network),
            progress={
                "images_seen": self.seen,
                "images_budget": self.config.images,
                "held_out_loss": held_out_loss,
                **measures,
                "training": self.identity,
            },
        )
        self.good_seen = self.seen

    def _passes(self, every: int) -> bool:
        """Whether the last step crossed a multiple of so many pictures."""
        return self.seen // every > (self.seen - self.config.batch_size) // every

    def _progress(self, held_out_loss: float | None, look: Look | None, note: str) -> TrainingProgress:
        """Makes a report since the last one and starts anew."""
        total, now = self.config.steps * self.config.batch_size, clock.monotonic()
        per_second = (self.step - self._reported_step) * self.config.batch_size / max(now - self._reported, 1e-9)
        losses, self.losses = self.losses, []
        self._reported, self._reported_step = now, self.step
        return TrainingProgress(
            seen=self.seen,
            total=total,
            loss=float(np.mean(losses)) if losses else math.nan,
            held_out_loss=held_out_loss,
            per_second=per_second,
            seconds_left=(total - self.seen) / max(per_second, 1e-9),
            quality={} if look is None else look.measures,
            samples=() if look is None else look.samples(SHOWN),
            note=note,
        )


def _warning(verdict: DiversityVerdict) -> str:
    return f"low diversity of samples: {verdict.text}" if verdict.low else ""


def _first_network(config: ImageTrainingConfig, source: Source) -> tuple[ImageNetwork, str | None]:
    """Returns the network a run begins with, and the fingerprint of the weights it starts from."""
    picture = source.train.picture
    if config.start is not None:
        return read_start(config.start, picture, config.network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return ImageNetwork(config.network or ImageNetworkConfig(), picture), None


def _differing(stored: Any, wanted: dict[str, Any]) -> str:
    if not isinstance(stored, dict):
        return "all of it"
    return ", ".join(sorted(key for key in wanted | stored if stored.get(key) != wanted.get(key)))


__all__ = ["FREE", "EmojiTrainingConfig", "ImageTrainingConfig", "make_optimizers", "rate_factor", "train"]
