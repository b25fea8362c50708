"""Trains an image model; ``pilotwave train image`` runs this.

Every batch (pictures, times, noise, dropped classes) follows from the seed and the number of the step alone, so
a run that was killed and started again ends bit for bit where an undisturbed one ends. The output folder holds
the checkpoint, the averaged weights of the last measurement, a page of samples and, at the end, a model card.

``torch.compile`` is not used: on the CPU it took half a minute to two minutes and gained nothing (within 6%).

May import torch, the modules beside it, :mod:`pilotwave.training` and :mod:`pilotwave.storage`.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pilotwave.backbones.image.evaluation import Evaluation, save_page
from pilotwave.backbones.image.model_card import Card, described
from pilotwave.backbones.image.network import ImageNetwork, ImageNetworkConfig, velocity_loss
from pilotwave.backbones.image.sources import Source
from pilotwave.backbones.image.stored import header_of, read_start
from pilotwave.backbones.image.training_config import FREE, EmojiTrainingConfig, ImageTrainingConfig, rate_factor
from pilotwave.backbones.image.training_data import TrainingData
from pilotwave.errors import CheckpointError, InputError
from pilotwave.storage import load_checkpoint, save_checkpoint
from pilotwave.training.device import choose_device
from pilotwave.training.ema import ExponentialMovingAverage
from pilotwave.training.progress import TrainingProgress
from pilotwave.training.weights import write_weights

CHECKPOINT_NAME = "checkpoint.pt"
PAGE_NAME = "samples.png"
PAGE_COLUMNS = 10


def train(config: ImageTrainingConfig, progress: Callable[[TrainingProgress], None]) -> Path:
    """Trains, or continues where the checkpoint in the output folder stands.

    Args:
        config: What to train.
        progress: Called about every ``report_every`` pictures and at the end.

    Returns:
        The path of the finished weights, ``<output>/image.safetensors``.

    Raises:
        CheckpointError: The output folder holds a damaged checkpoint or one of another run, or the start is of
            another model.
        InputError: The data is not there, the loss is no longer finite, or fine-tuning lost its diversity.
        StorageError: A checkpoint could not be written.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        run = _Run(config)
        run.resume()
        run.to_the_end(progress)
        path = run.write_weights()
        run.card(path).write()
        return path
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
    """A training run in memory: network, optimizers, average and the step reached."""

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
        self.step, self.seconds = 0, 0.0
        self.held_out_loss: float | None = None
        self.measures: dict[str, float] = {}

    @property
    def checkpoint(self) -> Path:
        return self.config.output / CHECKPOINT_NAME

    @property
    def seen(self) -> int:
        """Training pictures so far."""
        return self.step * self.config.batch_size

    def to_the_end(self, progress: Callable[[TrainingProgress], None]) -> None:
        config = self.config
        losses: list[float] = []
        started = reported = saved = clock.monotonic()
        before, reported_step = self.seconds, self.step
        if config.fine_tunes and self.step == 0:
            self.write_weights()  # the last good weights until there are better ones
        while self.step < config.steps:
            losses.append(self.one_step())
            last = self.step == config.steps
            self.seconds = before + clock.monotonic() - started
            if last or self._passes(config.evaluate_every):
                self.evaluate()
                self.write_weights()
            if last or self._passes(config.report_every):
                per_second = (self.step - reported_step) * config.batch_size / (clock.monotonic() - reported)
                progress(self._report(sum(losses) / len(losses), per_second))
                losses, reported_step, reported = [], self.step, clock.monotonic()
            if last or clock.monotonic() - saved >= config.checkpoint_seconds:
                self.save()
                saved = clock.monotonic()

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

    def evaluate(self) -> None:
        """Measures the averaged weights and writes a page of their samples.

        Raises:
            InputError: Fine-tuning lost its diversity; the weights written before stay.
        """
        self.held_out_loss = self.evaluation.loss(self.average.average)
        look = self.evaluation.look(self.average.average)
        self.measures = look.measures
        save_page(look.pixels, self.config.output / PAGE_NAME, PAGE_COLUMNS)
        diversity, least = look.measures["relative_diversity"], self.config.collapse_below
        if self.config.fine_tunes and diversity < least:
            raise InputError(
                f"fine-tuning collapsed after {self.seen:,} pictures: its samples vary {diversity:.2f} times as "
                f"much as the data, and {least:g} is the least; the last good weights are in {self.config.output}; "
                "give more varied pictures, a larger real_share or smaller learning rates"
            )

    def save(self) -> None:
        state = {
            "identity": self.identity,
            "step": self.step,
            "seconds": self.seconds,
            "held_out_loss": self.held_out_loss,
            "measures": self.measures,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
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
        self.step, self.seconds = state["step"], state["seconds"]
        self.held_out_loss, self.measures = state["held_out_loss"], state["measures"]

    def write_weights(self) -> Path:
        path = self.config.output / f"{self.config.model}.safetensors"
        write_weights(
            path,
            self.average.average,
            model=self.config.model,
            config=header_of(self.network),
            progress={
                "images_seen": self.seen,
                "images_budget": self.config.images,
                "held_out_loss": self.held_out_loss,
                **self.measures,
                "training": self.identity,
            },
        )
        return path

    def card(self, path: Path) -> Card:
        """Returns the model card, from what this run knows."""
        real = self.data.real_source
        data = [described(self.source)]
        if real is not None:
            data.append(f"{100 * self.data.real_share:.0f}% of every batch are real pictures of {described(real)}")
        elif self.config.fine_tunes:
            data.append(
                "No real pictures were mixed in: none fit, or real_share is 0. Nothing guards the next one."
            )
        names = self.network.picture.class_names
        quality = [
            f"Loss on held-out pictures, averaged weights: {self.held_out_loss:.4f}."
            if self.held_out_loss is not None
            else "Not measured.",
            *(f"{_in_words(name, self.config.samples)}: {value:.2f}." for name, value in self.measures.items()),
        ]
        return Card(
            title=f"An image model ({self.config.model})",
            purpose=f"Draws pictures of {', '.join(names[:20])}{' ...' if len(names) > 20 else ''} from noise, to "
            "be steered by pilotwave.",
            weights=path,
            parameters=sum(value.numel() for value in self.network.parameters()),
            data=data,
            licence=self.source.licence,
            settings={key: value for key, value in self.identity.items() if key not in ("network", "data")}
            | {f"network {key}": value for key, value in self.identity["network"].items()},
            seen=self.seen,
            epochs=self.seen * (1 - self.data.real_share) / len(self.data.own),
            seconds=self.seconds,
            device=str(self.device),
            threads=self.config.threads,
            quality=quality,
            limits=[
                "It draws what it was shown: no other classes, no other size.",
                "Steered hard, it leaves what it learned; look at pictures that please the oracle.",
                "Whether it copies training pictures was not measured by this command.",
            ],
        )

    def _passes(self, every: int) -> bool:
        """Whether the last step crossed a multiple of so many pictures."""
        return self.seen // every > (self.seen - self.config.batch_size) // every

    def _report(self, loss: float, per_second: float) -> TrainingProgress:
        total = self.config.steps * self.config.batch_size
        quality = {"epochs": self.seen / len(self.data.own), "rate": rate_factor(self.config, self.step - 1)}
        return TrainingProgress(
            seen=self.seen,
            total=total,
            loss=loss,
            held_out_loss=self.held_out_loss,
            per_second=per_second,
            seconds_left=(total - self.seen) / per_second,
            quality=quality | self.measures,
        )


def _first_network(config: ImageTrainingConfig, source: Source) -> tuple[ImageNetwork, str | None]:
    """Returns the network a run begins with, and the fingerprint of the weights it starts from."""
    picture = source.train.picture
    if config.start is not None:
        return read_start(config.start, config.model, picture, config.network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return ImageNetwork(config.network or ImageNetworkConfig(), picture), None


def _differing(stored: Any, wanted: dict[str, Any]) -> str:
    if not isinstance(stored, dict):
        return "all of it"
    return ", ".join(sorted(key for key in wanted | stored if stored.get(key) != wanted.get(key)))


def _in_words(measure: str, samples: int) -> str:
    words = {
        "relative_diversity": "Diversity of the samples relative to the data's",
        "judge_agreement": "Share of samples that the judge takes for their class",
    }
    return f"{words[measure]} ({samples} samples, 10 steps)"


__all__ = ["FREE", "EmojiTrainingConfig", "ImageTrainingConfig", "make_optimizers", "rate_factor", "train"]
