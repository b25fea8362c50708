"""Objectives of the comparison, all as losses: targets, classes, ratings, and oracles of a campaign file.

May import numpy, torch for annotations, the execution of oracles, :mod:`pilotwave.config`, samples and types.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pilotwave.backbones.image.judge import Judge
from pilotwave.bench.task import Objective
from pilotwave.config import registry
from pilotwave.config.components import OracleConfig
from pilotwave.execution.oracle_host import open_oracle_host
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample, ImageSample, Sample

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float64]
LossOfArrays = Callable[[Floats], Floats]
"""From samples as numbers, (count, *shape), to losses (count,)."""

LEAST_PROBABILITY = 1e-6
"""Below it a class is as good as impossible; keeps cross entropies finite."""
RATING_BOUNDS = (0.01, 0.1, 0.5, 0.9)
"""Probabilities that part the five ratings."""


class ArrayObjective:
    """A loss of decoded numbers: arrays as they are, pictures from 0 to 1."""

    def __init__(self, loss: LossOfArrays) -> None:
        self._loss = loss

    def judge(self, samples: Sequence[Sample], latents: Tensor, conditions: Tensor) -> list[float | None]:
        return [float(value) for value in self._loss(as_numbers(samples))] if samples else []

    def close(self) -> None:
        """Nothing was started."""


class OracleObjective:
    """An oracle of any installed kind, asked as in a campaign; a failure has no loss.

    Args:
        kind: Of oracle.
        sign: 1 to minimise its value, -1 to maximise it.
        settings: Its other keys in a campaign file.

    Raises:
        ConfigError: There is no such kind.
        MissingDependencyError: It needs a package that is not installed.
    """

    def __init__(self, kind: str, sign: int, **settings: Any) -> None:
        config = registry.load("oracle", kind).model_validate({"kind": kind, **settings})
        assert isinstance(config, OracleConfig)
        config.check_dependencies()
        self._sign = sign
        self._host = open_oracle_host(config, None, "bench")
        self._host.start()
        self._asked = itertools.count()

    def judge(self, samples: Sequence[Sample], latents: Tensor, conditions: Tensor) -> list[float | None]:
        values = [self._host.evaluate(sample, QueryContext(f"q{next(self._asked)}")).value for sample in samples]
        return [None if value is None else self._sign * value for value in values]

    def close(self) -> None:
        """Ends the oracle's process."""
        self._host.close()


def as_numbers(samples: Sequence[Sample]) -> Floats:
    """Returns arrays or pictures as numbers, float64 (count, *shape); pictures are divided by 255."""
    rows = []
    for sample in samples:
        if isinstance(sample, ArraySample):
            rows.append(sample.array.astype(np.float64))
        elif isinstance(sample, ImageSample):
            rows.append(sample.pixels / 255.0)
        else:
            raise ValueError(f"expected arrays or pictures, got {sample.media}")
    return np.stack(rows)


def distance_to(target: Floats) -> LossOfArrays:
    """Returns the root mean square difference to a target that nobody is told, of shape (*shape,)."""

    def loss(arrays: Floats) -> Floats:
        return np.asarray(np.sqrt(np.square(arrays - target).reshape(len(arrays), -1).mean(axis=1)))

    return loss


def mean_value(sign: int) -> LossOfArrays:
    """Returns sign times the mean over each array: -1 asks for bright pictures."""
    return lambda arrays: np.asarray(sign * arrays.reshape(len(arrays), -1).mean(axis=1))


def contrast(sign: int) -> LossOfArrays:
    """Returns sign times the standard deviation within each array: -1 asks for contrast."""
    return lambda arrays: np.asarray(sign * arrays.reshape(len(arrays), -1).std(axis=1))


def asymmetry(arrays: Floats) -> Floats:
    """Returns the mean squared difference of each picture (count, height, width, ...) and its mirror image."""
    return np.asarray(np.square(arrays - arrays[:, :, ::-1]).reshape(len(arrays), -1).mean(axis=1))


def cross_entropy(probabilities: Floats) -> Floats:
    """Returns -log p in nats, (count,), for the probability (count,) of what is wanted."""
    return np.asarray(-np.log(np.clip(probabilities, LEAST_PROBABILITY, 1.0)))


def coarse_rating(entropies: Floats, levels: int = 9) -> Floats:
    """Returns ratings from 1 to ``levels``, negated: the best for 0 nats, one less for every nat more."""
    return np.asarray(-np.clip(levels - np.rint(entropies), 1, levels))


def rating(probabilities: Floats) -> Floats:
    """Returns ratings from 1 to 5, negated, for the probability (count,) of what is wanted.

    The twelve prompts of the Fast Direct paper are rated so by a vision-language model; here by a calibrated judge.
    """
    return np.asarray(-1.0 - np.searchsorted(np.array(RATING_BOUNDS), probabilities, side="right"))


class JudgeObjective:
    """A loss of the judge's probability that a picture shows one of some classes.

    Args:
        judge: Of pictures of this format.
        classes: Their probabilities are added.
        loss: From probabilities (count,) to losses (count,).
    """

    def __init__(self, judge: Judge, classes: Sequence[str], loss: LossOfArrays) -> None:
        self._judge, self._loss = judge, loss
        self._classes = [judge.picture.class_names.index(name) for name in classes]

    def judge(self, samples: Sequence[Sample], latents: Tensor, conditions: Tensor) -> list[float | None]:
        if not samples:
            return []
        pictures = np.rint(as_numbers(samples) * 255).astype(np.uint8)
        wanted = self._judge(pictures).probabilities[:, self._classes].sum(axis=1)
        return [float(value) for value in self._loss(wanted)]

    def close(self) -> None:
        """Nothing was started."""


def of_arrays(loss: LossOfArrays) -> Callable[[], Objective]:
    """Returns what builds the objective of a loss."""
    return lambda: ArrayObjective(loss)


__all__ = [
    "ArrayObjective",
    "JudgeObjective",
    "OracleObjective",
    "as_numbers",
    "asymmetry",
    "coarse_rating",
    "contrast",
    "cross_entropy",
    "distance_to",
    "mean_value",
    "of_arrays",
    "rating",
]
