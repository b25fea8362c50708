"""Trains the judge of image models; ``pilotwave train judge`` runs this.

The judge learns from nine tenths of the training pictures, drawn with a seed of its own, is calibrated on the last
tenth, and is measured on the held-out pictures, which neither it nor any generator is trained on. Every batch
follows from the seed and the number of the step alone. May import torch, the modules beside it,
:mod:`pilotwave.training` and :mod:`pilotwave.storage`.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from pilotwave.backbones.image.dataset import LabelledImages, to_latents
from pilotwave.backbones.image.judge import (
    MODEL,
    Judge,
    JudgeNetwork,
    JudgeNetworkConfig,
    expected_calibration_error,
    fit_temperature,
)
from pilotwave.backbones.image.sources import load_source
from pilotwave.backbones.image.training_card import NOT_OF_THE_MODEL, described, parameters_of
from pilotwave.errors import CheckpointError, InputError
from pilotwave.storage import load_checkpoint, save_checkpoint
from pilotwave.training.card import Measured, ModelCard, changed_settings, command_line, write_card
from pilotwave.training.device import describe_device
from pilotwave.training.history import ComputeLog, TrainingHistory
from pilotwave.training.progress import TrainingProgress, TrainingWatcher, watcher_of
from pilotwave.training.proportions import wilson_interval
from pilotwave.training.weights import write_weights

CHECKPOINT_NAME = "checkpoint.pt"
WEIGHTS_NAME = "judge.safetensors"
CALIBRATION_SHARE = 0.1
LARGEST_SHIFT = 2
_SPLIT, _ORDER, _BATCH = 1, 2, 3  # what a random stream is for


class JudgeTrainingConfig(BaseModel):
    """What the judge's training is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: Path = Field(description="Folder of the checkpoint and of the finished weights.")
    data: Path | None = Field(
        default=None, description="Folder of pictures, a sub-folder per class; Fashion-MNIST if none."
    )
    images: int = Field(default=320_000, ge=1, description="Budget: training pictures seen, repetitions counted.")
    batch_size: int = Field(default=128, ge=2, le=8192, description="Pictures per optimizer step.")
    learning_rate: float = Field(default=4e-3, gt=0, le=1, description="At its height.")
    seed: int = Field(
        default=20_001, ge=0, lt=2**31, description="Of the split and of everything random; not the generator's."
    )
    network: JudgeNetworkConfig = Field(default=JudgeNetworkConfig(), description="The judge's shape.")
    threads: int = Field(default=1, ge=1, le=256, description="CPU threads.")
    checkpoint_seconds: float = Field(default=30.0, ge=0, le=60, description="A killed run loses at most this.")
    report_every: int = Field(default=25_600, ge=1, description="Pictures between two reports.")

    @property
    def steps(self) -> int:
        """How many optimizer steps the budget allows."""
        return -(-self.images // self.batch_size)


FREE = frozenset({"output", "data", "threads", "checkpoint_seconds", "report_every"})
"""Fields that may change when a run is continued."""


def train(config: JudgeTrainingConfig, progress: Callable[[TrainingProgress], None]) -> Path:
    """Trains, or continues where the checkpoint in the output folder stands.

    Returns:
        The path of the finished weights, ``<output>/judge.safetensors``, whose header holds the accuracy and the
        expected calibration error on held-out pictures; of the checkpoint if the run was stopped.

    Raises:
        CheckpointError: The output folder holds a damaged checkpoint or one of another run.
        InputError: The data is not there, or has a single class.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        run = _Run(config)
        run.resume()
        finished = run.to_the_end(watcher_of(progress))
        return run.write_weights() if finished else config.output / CHECKPOINT_NAME
    finally:
        torch.set_num_threads(threads_before)


class _Run:
    def __init__(self, config: JudgeTrainingConfig) -> None:
        self.config = config
        self.source = load_source(config.data)
        self.picture = self.source.train.picture
        if len(self.picture.class_names) < 2:
            raise InputError("a judge needs two classes at least: give a folder with a sub-folder for each class")
        order = np.random.default_rng((config.seed, _SPLIT)).permutation(len(self.source.train))
        kept = max(1, round(CALIBRATION_SHARE * len(order)))
        self.calibration, self.data = self.source.train.select(order[:kept]), self.source.train.select(order[kept:])
        if not len(self.data):
            raise InputError(f"expected two pictures at least to train a judge, got {len(order)}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = JudgeNetwork(config.network, self.picture)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), weight_decay=0.05)
        self.identity = config.model_dump(mode="json", exclude=set(FREE)) | {"data": self.source.train.digest()}
        self.history, self.compute, self.step = TrainingHistory(), ComputeLog(), 0

    def to_the_end(self, watcher: TrainingWatcher) -> bool:
        """Trains until the budget is spent (True) or until the watcher stops it (False)."""
        config, total = self.config, self.config.steps * self.config.batch_size
        self.compute.begin(describe_device(torch.device("cpu"), config.threads))
        losses: list[float] = []
        saved = reported = clock.monotonic()
        reported_step = self.step
        while self.step < config.steps:
            losses.append(self.one_step())
            last, seen = self.step == config.steps, self.step * config.batch_size
            watcher.tick(seen, total, losses[-1])
            if last or seen % config.report_every < config.batch_size:
                per_second = (self.step - reported_step) * config.batch_size / (clock.monotonic() - reported)
                left = (total - seen) / max(per_second, 1e-9)
                report = TrainingProgress(seen, total, float(np.mean(losses)), None, per_second, left)
                self.history.add(report)
                watcher(report)
                losses, reported, reported_step = [], clock.monotonic(), self.step
            stop = watcher.must_stop()
            if last or stop or clock.monotonic() - saved >= config.checkpoint_seconds:
                self.save()
                saved = clock.monotonic()
            if stop and not last:
                return False
        return True

    def one_step(self) -> float:
        """Takes one optimizer step and returns its loss."""
        config = self.config
        random = np.random.default_rng((config.seed, _BATCH, self.step))
        rows = self._rows(self.step)
        pictures = _moved(to_latents(self.data.images[rows]), random)
        self.optimizer.param_groups[0]["lr"] = config.learning_rate * one_cycle(self.step / config.steps)
        self.network.train()
        with torch.random.fork_rng(devices=[]), torch.autocast("cpu", torch.bfloat16):
            torch.manual_seed(int(random.integers(2**31)))
            logits = self.network(pictures)
        loss = functional.cross_entropy(logits.float(), torch.from_numpy(self.data.labels[rows]))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return loss.item()

    def _rows(self, step: int) -> npt.NDArray[np.int64]:
        """Which pictures a step sees: every epoch all of them, in an order of its own."""
        size, count = self.config.batch_size, len(self.data)
        positions = np.arange(step * size, (step + 1) * size)
        rows = np.empty(size, dtype=np.int64)
        for epoch in np.unique(positions // count):
            inside = positions // count == epoch
            order = np.random.default_rng((self.config.seed, _ORDER, int(epoch))).permutation(count)
            rows[inside] = order[positions[inside] % count]
        return rows

    def save(self) -> None:
        state = {
            "identity": self.identity,
            "step": self.step,
            "history": self.history.state(),
            "compute": self.compute.state(),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(self.config.output / CHECKPOINT_NAME, state)

    def resume(self) -> None:
        path = self.config.output / CHECKPOINT_NAME
        if not path.exists():
            return
        state = load_checkpoint(path)
        if state.get("identity") != self.identity:
            raise CheckpointError(
                f"{path} belongs to another training run; choose another output folder, "
                "or the same settings to continue it"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.history, self.compute = TrainingHistory(state["history"]), ComputeLog(state["compute"])

    def write_weights(self) -> Path:
        self.network.eval()
        temperature = fit_temperature(
            _logits(self.network, self.calibration), torch.from_numpy(self.calibration.labels)
        )
        measured = measure(Judge(self.network, temperature, {}), self.source.held_out)
        path = self.config.output / WEIGHTS_NAME
        write_weights(
            path,
            self.network.state_dict(),
            model=MODEL,
            config={
                "network": self.config.network.model_dump(mode="json"),
                "picture": self.picture.model_dump(mode="json"),
                "temperature": temperature,
            },
            progress={"images_seen": self.step * self.config.batch_size, "training": self.identity, **measured},
        )
        write_card(self._card(temperature, measured), self.config.output)
        return path

    def _card(self, temperature: float, measured: dict[str, Any]) -> ModelCard:
        settings = changed_settings(self.config, NOT_OF_THE_MODEL)
        taught = (
            f"Of the former, {len(self.data):,} drawn with seed {self.config.seed} taught the judge and the other "
            f"{len(self.calibration):,} set its temperature, {temperature:.3f}."
        )
        of = f"{measured['measured_on']:,} held-out pictures"
        return ModelCard(
            title=WEIGHTS_NAME,
            summary="Names the class of a picture, to measure image models by. It must never guide, filter or be "
            "trained against: a model optimised for its own judge is not measured by it any more.",
            examples="pictures",
            what=[
                f"A convolutional network of {parameters_of(self.network)}, "
                f"{self.config.network.features} features of which the classes are a linear function.",
                "Probabilities are calibrated by one temperature.",
            ],
            data=[described(self.source, taught)],
            command=command_line(MODEL, settings),
            recipe=[
                f"AdamW ({self.config.learning_rate:g}, linear up and down), batches of {self.config.batch_size}, "
                f"pictures shifted by up to {LARGEST_SHIFT} pixels and mirrored; seed {self.config.seed}.",
            ],
            settings=settings,
            progress=f"Finished: {self.step * self.config.batch_size:,} pictures seen, repetitions counted.",
            compute=self.compute,
            history=self.history,
            quality=[
                Measured(
                    "accuracy",
                    measured["accuracy"],
                    wilson_interval(round(measured["accuracy"] * measured["measured_on"]), measured["measured_on"]),
                    of,
                ),
                Measured("expected calibration error, 15 bins", measured["expected_calibration_error"], None, of),
            ],
            limits=[
                "It knows the classes of its data and nothing else: of any other picture it names one of them.",
                "It is wrong about real pictures as often as stated above; agreement of samples can exceed its "
                "accuracy when a model prefers the typical.",
            ],
        )


def measure(judge: Judge, pictures: LabelledImages) -> dict[str, Any]:
    """Returns accuracy, expected calibration error and their number, on labelled pictures."""
    judged = judge(pictures.images)
    return {
        "accuracy": float(np.mean(judged.labels == pictures.labels)),
        "expected_calibration_error": expected_calibration_error(judged.probabilities, pictures.labels),
        "measured_on": len(pictures),
    }


def one_cycle(done: float) -> float:
    """Returns the share of the full learning rate: linear up over a fifth of the run, linear down to zero."""
    return min(0.05 + done / 0.2, (1.0 - done) / 0.8, 1.0)


@torch.no_grad()
def _logits(network: JudgeNetwork, pictures: LabelledImages) -> Tensor:
    return torch.cat([network(part) for part in torch.split(to_latents(pictures.images), 500)])


def _moved(pictures: Tensor, random: np.random.Generator) -> Tensor:
    """Shifts and mirrors the pictures of a batch together, so that the judge does not go by the place."""
    side = pictures.shape[-1]
    padded = functional.pad(pictures, (LARGEST_SHIFT,) * 4, mode="replicate")
    top, left = random.integers(0, 2 * LARGEST_SHIFT + 1, 2)
    moved = padded[..., top : top + side, left : left + side]
    return moved.flip(-1) if random.random() < 0.5 else moved


__all__ = ["FREE", "JudgeTrainingConfig", "measure", "one_cycle", "train"]
