"""Trains the built-in image model; ``pilotwave train image`` runs this.

Every batch (pictures, times, noise, dropped classes) follows from the seed and the number of the step alone, so
a run that was killed and started again ends bit for bit where an undisturbed one ends. May import torch, the
modules beside it, :mod:`pilotwave.training` and :mod:`pilotwave.storage`.
"""

from __future__ import annotations

import contextlib
import copy
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pilotwave.backbones.image import dataset
from pilotwave.backbones.image.network import LATENT_SHAPE, ImageNetwork, ImageNetworkConfig, velocity_loss
from pilotwave.errors import CheckpointError, InputError
from pilotwave.storage import load_checkpoint, save_checkpoint
from pilotwave.training.device import choose_device
from pilotwave.training.ema import ExponentialMovingAverage
from pilotwave.training.progress import TrainingProgress
from pilotwave.training.weights import write_weights

CHECKPOINT_NAME = "checkpoint.pt"
WEIGHTS_NAME = "image.safetensors"
MODEL = "image"
_BATCH, _ORDER = 1, 2  # what a random stream is for


class ImageTrainingConfig(BaseModel):
    """What a training run is made of. A run is the same run if only the fields of :data:`FREE` differ."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: Path = Field(description="Folder of the checkpoint and of the finished weights.")
    data: Path | None = Field(
        default=None, description="Folder of the four idx files; the Debian package dataset-fashion-mnist if none."
    )
    images: int = Field(
        default=600_000,
        ge=1,
        description="Budget: training pictures seen, repetitions counted; the schedule is laid out over it. "
        "It may be changed when a run is continued.",
    )
    batch_size: int = Field(default=64, ge=1, le=8192, description="Pictures per optimizer step.")
    learning_rate: float = Field(default=1e-3, gt=0, le=1, description="At its height.")
    warm_up: float = Field(default=0.03, ge=0, le=0.5, description="Share of the budget in which the rate rises.")
    decay: float = Field(
        default=0.5, ge=0, le=0.5, description="Share of the budget, at its end, in which the rate falls to zero."
    )
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="Of the averaged weights, which are kept.")
    class_dropout: float = Field(
        default=0.1, ge=0, le=1, description="Share of pictures whose class is hidden, for guidance."
    )
    precision: Literal["bfloat16", "float32"] = Field(
        default="bfloat16", description="Of the network's products; parameters are float32."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of everything random.")
    network: ImageNetworkConfig = Field(default=ImageNetworkConfig(), description="The denoiser's shape.")
    device: str = Field(default="auto", description="auto (a GPU if there is one), cpu or cuda.")
    threads: int = Field(default=1, ge=1, le=256, description="CPU threads.")
    checkpoint_seconds: float = Field(
        default=30.0, ge=0, le=60, description="A killed run loses at most this and the step in flight."
    )
    report_every: int = Field(default=6_400, ge=1, description="Pictures between two reports.")
    evaluate_every: int = Field(
        default=64_000, ge=1, description="Pictures between two measurements on held-out pictures."
    )

    @property
    def steps(self) -> int:
        """How many optimizer steps the budget allows."""
        return -(-self.images // self.batch_size)


FREE = frozenset(
    {"output", "data", "images", "device", "threads", "checkpoint_seconds", "report_every", "evaluate_every"}
)
"""Fields that may change when a run is continued: where and how long, not what. The data is known by digest."""


def train(config: ImageTrainingConfig, progress: Callable[[TrainingProgress], None]) -> Path:
    """Trains, or continues where the checkpoint in the output folder stands.

    Args:
        config: What to train.
        progress: Called about every ``report_every`` pictures and at the end.

    Returns:
        The path of the finished weights, ``<output>/image.safetensors``.

    Raises:
        CheckpointError: The output folder holds a damaged checkpoint or one of another run.
        InputError: The data is not there, or the loss is no longer finite.
        StorageError: A checkpoint could not be written.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        run = _Run(config)
        run.resume()
        run.to_the_end(progress)
        return run.write_weights()
    finally:
        torch.set_num_threads(threads_before)


def learning_rate(config: ImageTrainingConfig, step: int) -> float:
    """Returns the rate of a step, 0 <= step < steps: linear up, constant, linear down to zero."""
    done = step / config.steps
    up = (done + 1 / config.steps) / config.warm_up if config.warm_up else 1.0
    down = (1.0 - done) / config.decay if config.decay else 1.0
    return config.learning_rate * min(1.0, up, down)


class _Run:
    """A training run in memory: network, optimizer, average and the step reached."""

    def __init__(self, config: ImageTrainingConfig) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.data = dataset.load("train", config.data)
        self.identity = _identity(config, self.data)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = ImageNetwork(config.network).to(self.device)
        self.average = ExponentialMovingAverage(self.network, config.ema_decay)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
        self.held_out = _HeldOut(config, self.network, self.device)
        self.step = 0
        self.held_out_loss: float | None = None
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None

    @property
    def checkpoint(self) -> Path:
        return self.config.output / CHECKPOINT_NAME

    def to_the_end(self, progress: Callable[[TrainingProgress], None]) -> None:
        config = self.config
        losses: list[float] = []
        reported_step, reported, saved = self.step, clock.monotonic(), clock.monotonic()
        while self.step < config.steps:
            losses.append(self.one_step())
            last = self.step == config.steps
            if last or self._passes(config.evaluate_every):
                self.held_out_loss = self.held_out.loss(self.average)
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
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        clean, noise, time, labels = (tensor.to(self.device) for tensor in self.batch(self.step))
        with _autocast(self.device, self.config.precision):
            loss = velocity_loss(self.network, clean, noise, time, labels).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.network)
        self.step += 1
        value = loss.item()
        if not np.isfinite(value):
            raise InputError(
                f"the training loss is {value} at step {self.step}: it diverged; choose a learning_rate below "
                f"{self.config.learning_rate:g} and another output folder"
            )
        return value

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns clean pictures, noise, times and labels of a step, from the seed and the step alone."""
        size = self.config.batch_size
        random = np.random.default_rng((self.config.seed, _BATCH, step))
        rows = self._rows(step)
        clean = _to_latents(self.data.images[rows])
        noise = torch.from_numpy(random.standard_normal(clean.shape, dtype=np.float32))
        # one time in each of `size` equal strata: the same mean with far less spread between batches
        time = (torch.arange(size) + torch.from_numpy(random.random(size, dtype=np.float32))) / size
        hidden = torch.from_numpy(random.random(size) < self.config.class_dropout)
        labels = torch.from_numpy(self.data.labels[rows]).masked_fill(hidden, self.network.no_class)
        return clean, noise, time, labels

    def _rows(self, step: int) -> npt.NDArray[np.int64]:
        """Which pictures a step sees: epochs without gaps, each in its own order."""
        size, count = self.config.batch_size, len(self.data)
        positions = np.arange(step * size, (step + 1) * size)
        rows = np.empty(size, dtype=np.int64)
        for epoch in np.unique(positions // count):
            if self._order is None or self._order[0] != epoch:
                self._order = (int(epoch), self._shuffled(int(epoch)))
            inside = positions // count == epoch
            rows[inside] = self._order[1][positions[inside] % count]
        return rows

    def _shuffled(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self.config.seed, _ORDER, epoch)).permutation(len(self.data))

    def save(self) -> None:
        state = {
            "identity": self.identity,
            "step": self.step,
            "held_out_loss": self.held_out_loss,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
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
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.held_out_loss = state["step"], state["held_out_loss"]

    def write_weights(self) -> Path:
        path = self.config.output / WEIGHTS_NAME
        write_weights(
            path,
            self.average.average,
            model=MODEL,
            config=self.config.network.model_dump(mode="json"),
            progress={
                "images_seen": self.step * self.config.batch_size,
                "images_budget": self.config.images,
                "held_out_loss": self.held_out_loss,
                "training": self.identity,
            },
        )
        return path

    def _passes(self, every: int) -> bool:
        """Whether the last step crossed a multiple of so many pictures."""
        seen = self.step * self.config.batch_size
        return seen // every > (seen - self.config.batch_size) // every

    def _report(self, loss: float, per_second: float) -> TrainingProgress:
        seen, total = self.step * self.config.batch_size, self.config.steps * self.config.batch_size
        return TrainingProgress(
            seen=seen,
            total=total,
            loss=loss,
            held_out_loss=self.held_out_loss,
            per_second=per_second,
            seconds_left=(total - seen) / per_second,
            quality={"epochs": seen / len(self.data), "learning_rate": learning_rate(self.config, self.step - 1)},
        )


class _HeldOut:
    """Measures the averaged weights on pictures that training never sees, always with the same noise."""

    def __init__(
        self, config: ImageTrainingConfig, network: ImageNetwork, device: torch.device, count: int = 1000
    ) -> None:
        data = dataset.load("held-out", config.data)
        count = min(count, len(data))
        generator = torch.Generator().manual_seed(0)
        clean = _to_latents(data.images[:count])
        noise = torch.randn(clean.shape, generator=generator)
        time = (torch.randperm(count, generator=generator) + 0.5) / count
        labels = torch.from_numpy(data.labels[:count])
        self.batches = list(
            zip(*(torch.split(part.to(device), 250) for part in (clean, noise, time, labels)), strict=True)
        )
        self.network = copy.deepcopy(network)
        self.precision = config.precision
        self.device = device

    @torch.no_grad()
    def loss(self, average: ExponentialMovingAverage) -> float:
        average.copy_to(self.network)
        with _autocast(self.device, self.precision):
            losses = [velocity_loss(self.network, *batch) for batch in self.batches]
        return float(torch.cat(losses).mean())


def _to_latents(images: npt.NDArray[np.uint8]) -> Tensor:
    """Turns pictures of shape (n, 28, 28) into latents from -1 to 1."""
    return torch.from_numpy(images).float().view(-1, *LATENT_SHAPE) / 127.5 - 1.0


@contextlib.contextmanager
def _autocast(device: torch.device, precision: str) -> Iterator[None]:
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


def _identity(config: ImageTrainingConfig, data: dataset.LabelledImages) -> dict[str, Any]:
    """Returns what makes two runs the same run."""
    return config.model_dump(mode="json", exclude=set(FREE)) | {"data": data.digest()}


def _differing(stored: Any, wanted: dict[str, Any]) -> str:
    if not isinstance(stored, dict):
        return "all of it"
    return ", ".join(sorted(key for key in wanted | stored if stored.get(key) != wanted.get(key)))


__all__ = ["FREE", "ImageTrainingConfig", "learning_rate", "train"]
