"""The judge: a small classifier that says what a picture shows, to measure image models by.

It must never guide, steer, filter or be trained against: a model that is optimised for its own judge pleases the
judge, and its agreement means nothing any more. It shares nothing with the generators: another network, another
split of the training pictures, another seed (see :mod:`pilotwave.backbones.image.judge_training`). Its
probabilities are calibrated by one temperature (Guo et al., "On calibration of modern neural networks", 2017), so
that of the pictures it is 80% sure of about 80% are what it says.

May import torch, numpy, pydantic, the modules beside it and :mod:`pilotwave.training`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from pilotwave.backbones.image.dataset import to_latents
from pilotwave.backbones.image.network import PictureFormat
from pilotwave.errors import CheckpointError
from pilotwave.training.weights import read_weights

MODEL = "judge"
BUILTIN_JUDGE = Path(__file__).parent / "weights" / "judge.safetensors"
_CHUNK = 500


class JudgeNetworkConfig(BaseModel):
    """The shape of the judge; stored in the header of the weights.

    Attributes:
        widths: Channels at full, half and quarter size.
        features: Numbers that describe a picture, of which the classes are a linear function; Fréchet distances
            are taken between them. Few, so that a few hundred pictures tell their covariance.
        dropout: Share of the features hidden in training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: tuple[int, int, int] = Field(default=(24, 64, 128))
    features: int = Field(default=32, ge=2, le=512)
    dropout: float = Field(default=0.2, ge=0, lt=1)


class JudgeNetwork(nn.Module):
    """Pictures to features and logits.

    Args:
        config: Its shape.
        picture: What it judges.
    """

    def __init__(self, config: JudgeNetworkConfig, picture: PictureFormat) -> None:
        super().__init__()
        self.config, self.picture = config, picture
        small, middle, large = config.widths
        self.body = nn.Sequential(
            *_layer(picture.channels, small, side=5, stride=2 if picture.side > 32 else 1),
            *_layer(small, middle, stride=2),
            *_layer(middle, middle),
            *_layer(middle, large, stride=2),
            *_layer(large, large),
        )
        self.describe = nn.Linear(2 * large, config.features)
        self.classify = nn.Linear(config.features, len(picture.class_names))

    def features(self, pictures: Tensor) -> Tensor:
        """Returns what it sees in pictures (batch, channels, side, side) from -1 to 1: (batch, features)."""
        seen = self.body(pictures)
        return functional.silu(self.describe(torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1)))

    def forward(self, pictures: Tensor) -> Tensor:
        """Returns uncalibrated logits (batch, classes)."""
        described = functional.dropout(self.features(pictures), self.config.dropout, self.training)
        logits: Tensor = self.classify(described)
        return logits


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the judge says of pictures.

    Attributes:
        probabilities: Calibrated, float64 of shape (n, classes).
        features: float64 of shape (n, features).
    """

    probabilities: npt.NDArray[np.float64]
    features: npt.NDArray[np.float64]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The most probable class of each, shape (n,)."""
        most_probable: npt.NDArray[np.int64] = np.argmax(self.probabilities, axis=1)
        return most_probable


@dataclass(frozen=True, eq=False)
class Judge:
    """A trained judge.

    Attributes:
        network: In evaluation mode.
        temperature: Logits are divided by it.
        measured: Its accuracy and calibration error on pictures nobody trained on, as its training found them.
    """

    network: JudgeNetwork
    temperature: float
    measured: Mapping[str, Any]

    @property
    def picture(self) -> PictureFormat:
        """What it judges."""
        return self.network.picture

    @torch.no_grad()
    def __call__(self, images: npt.NDArray[np.uint8]) -> Judgement:
        """Judges pictures, uint8 of shape (n, side, side, channels).

        Raises:
            ValueError: They are of another size or have other channels.
        """
        expected = (self.picture.side, self.picture.side, self.picture.channels)
        if images.shape[1:] != expected:
            raise ValueError(f"expected pictures of shape {expected}, got {images.shape[1:]}")
        parts = [self.network.features(to_latents(images[i : i + _CHUNK])) for i in range(0, len(images), _CHUNK)]
        features = torch.cat(parts) if parts else torch.zeros(0, self.network.config.features)
        logits = self.network.classify(features).double() / self.temperature
        return Judgement(torch.softmax(logits, 1).numpy(), features.double().numpy())


def read_judge(path: Path = BUILTIN_JUDGE) -> Judge:
    """Reads a judge; the shipped one judges 28x28 pictures of clothing.

    Raises:
        CheckpointError: The file is missing, damaged or no judge.
    """
    weights = read_weights(path, model=MODEL)
    try:
        picture = PictureFormat.model_validate(weights.config["picture"])
        network = JudgeNetwork(JudgeNetworkConfig.model_validate(weights.config["network"]), picture)
        network.load_state_dict(dict(weights.tensors))
        temperature = float(weights.config["temperature"])
    except (KeyError, ValueError, ValidationError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"the weights at {path} do not fit the judge ({reason}); train it again") from error
    return Judge(network.eval().requires_grad_(False), temperature, weights.progress)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Returns the temperature with the least cross entropy, by golden section over its logarithm.

    Args:
        logits: (n, classes), of pictures that were not trained on.
        labels: int64 (n,).
    """
    low, high = -3.0, 3.0
    ratio = (5**0.5 - 1) / 2

    def loss(log_temperature: float) -> float:
        return float(functional.cross_entropy(logits.double() / np.exp(log_temperature), labels))

    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def expected_calibration_error(
    probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], bins: int = 15
) -> float:
    """Returns the mean gap between how sure the judge is and how often it is right, over bins of confidence.

    Args:
        probabilities: (n, classes).
        labels: The true classes, (n,).
        bins: Equal widths of confidence from 0 to 1 (Guo et al., 2017).
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    places = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = [
        abs(confidence[inside].mean() - right[inside].mean()) * inside.sum()
        for inside in (places == place for place in np.unique(places))
    ]
    return float(sum(gaps) / max(len(labels), 1))


def _layer(width_in: int, width_out: int, side: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(width_in, width_out, side, stride=stride, padding=side // 2, bias=False)
    return [convolution, nn.BatchNorm2d(width_out), nn.SiLU()]


__all__ = [
    "BUILTIN_JUDGE",
    "MODEL",
    "Judge",
    "JudgeNetwork",
    "JudgeNetworkConfig",
    "Judgement",
    "expected_calibration_error",
    "fit_temperature",
    "read_judge",
]
