"""Seven tasks on models with an exact denoiser, plain, with noisy answers, and with failing ones.

The models are mixtures of low-rank Gaussians fitted to digits (8x8, from scikit-learn) and to Fashion-MNIST
(28x28, from the Debian package), K = 8 DDIM steps, batches of 32. May import numpy, torch, the backbones and
pilotwave.bench; scikit-learn when a task of digits is built.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pilotwave.backbones.analytic import AnalyticBackbone
from pilotwave.backbones.image import dataset
from pilotwave.backbones.image.judge import read_judge
from pilotwave.bench.measures import measure_by_mixture
from pilotwave.bench.objectives import (
    Floats,
    JudgeObjective,
    LossOfArrays,
    OracleObjective,
    coarse_rating,
    contrast,
    cross_entropy,
    distance_to,
    mean_value,
    of_arrays,
)
from pilotwave.bench.task import Measure, Objective, Suite, Task
from pilotwave.bench.threads import one_thread
from pilotwave.errors import MissingDependencyError

STEPS = 8
FITTED_DIGITS, FITTED_PICTURES = 1500, 4000
"""What the models are fitted to; hidden targets are taken from the rest."""
LARGEST_INK = 16.0
"""Of scikit-learn's digits."""


@functools.cache
def digits() -> tuple[Floats, npt.NDArray[np.int64]]:
    """Returns 1,797 digits, (count, 8, 8) from 0 to 1, and what they are.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError(
            "the digits need scikit-learn, which is not installed; run: pip install 'pilotwave[bench]'"
        ) from error
    loaded: Any = load_digits()
    return np.asarray(loaded.images, dtype=np.float64) / LARGEST_INK, np.asarray(loaded.target, dtype=np.int64)


@functools.cache
def fashion() -> npt.NDArray[np.uint8]:
    """Returns the 10,000 held-out pictures, (count, 28, 28); the judge never saw them."""
    return dataset.load("held-out").images[..., 0]


@functools.cache
@one_thread()
def digits_model(device: str = "cpu") -> AnalyticBackbone:
    """Fits the mixture to digits."""
    return AnalyticBackbone.fit(digits()[0][:FITTED_DIGITS], components=20, rank=8, steps=STEPS)


@functools.cache
@one_thread()
def fashion_model(device: str = "cpu") -> AnalyticBackbone:
    """Fits the mixture to pictures of clothes."""
    return AnalyticBackbone.fit(fashion()[:FITTED_PICTURES], components=10, rank=16, steps=STEPS, decode="image")


@functools.cache
@one_thread()
def classifier() -> Any:
    """Returns a logistic regression that tells digits apart, trained on all of them."""
    from sklearn.linear_model import LogisticRegression

    arrays, labels = digits()
    return LogisticRegression(C=2.0, max_iter=1000).fit(arrays.reshape(len(arrays), -1), labels)


def digit_entropy(digit: int) -> LossOfArrays:
    """Returns the classifier's cross entropy of a digit, in nats."""

    def loss(arrays: Floats) -> Floats:
        return cross_entropy(classifier().predict_proba(arrays.reshape(len(arrays), -1))[:, digit])

    return loss


def _digits_task(name: str, title: str, loss: Callable[[], LossOfArrays]) -> Task:
    return Task(
        name,
        "analytic",
        title,
        "array",
        "digits",
        backbone=lambda device: digits_model(),
        objective=lambda: of_arrays(loss())(),
        measure=lambda: _measure(digits_model(), digits()[0][:FITTED_DIGITS]),
    )


def _fashion_task(name: str, title: str, objective: Callable[[], Objective]) -> Task:
    return Task(
        name,
        "analytic",
        title,
        "image",
        "fashion",
        backbone=lambda device: fashion_model(),
        objective=objective,
        measure=lambda: _measure(fashion_model(), fashion()[:FITTED_PICTURES] / 255.0),
    )


def _measure(model: AnalyticBackbone, data: Floats) -> Measure:
    points = (data - data.mean()) / data.std()  # as the model's latents are
    return measure_by_mixture(model.mixture, torch.from_numpy(points.reshape(len(points), -1)).float())


def _digit_target(place: int) -> LossOfArrays:
    return distance_to(digits()[0][FITTED_DIGITS + place])


def _fashion_target(place: int) -> Objective:
    return of_arrays(distance_to(fashion()[FITTED_PICTURES + place][..., None] / 255.0))()


def _judged(class_name: str) -> Objective:
    return JudgeObjective(read_judge(), [class_name], cross_entropy)


PLAIN = (
    _digits_task("digits-hidden", "digits, hidden target", lambda: _digit_target(0)),
    _fashion_task("fashion-hidden", "clothes, hidden target", lambda: _fashion_target(0)),
    _digits_task("digits-class", "digits, class 3", lambda: digit_entropy(3)),
    _digits_task(
        "digits-rating", "digits, rated 1-9", lambda: lambda arrays: coarse_rating(digit_entropy(8)(arrays))
    ),
    _fashion_task("fashion-jpeg", "clothes, JPEG size", lambda: OracleObjective("jpeg", 1, isolation="thread")),
    _digits_task("digits-brightness", "digits, brightness", lambda: mean_value(-1)),
    _fashion_task("fashion-class", "clothes, sandals", lambda: _judged("sandal")),
)

HELD_OUT = (
    _digits_task("digits-hidden-other", "digits, another hidden target", lambda: _digit_target(100)),
    _fashion_task("fashion-hidden-other", "clothes, another hidden target", lambda: _fashion_target(1000)),
    _digits_task("digits-class-other", "digits, class 5", lambda: digit_entropy(5)),
    _fashion_task("fashion-contrast", "clothes, contrast", of_arrays(contrast(-1))),
)

SUITE = Suite(
    "analytic",
    (*PLAIN, *(variant for task in PLAIN for variant in task.disturbed())),
    HELD_OUT,
    unsuitable=frozenset({"ddpo", "dpok", "d3po"}),  # there is no network to adapt
)

__all__ = ["SUITE", "classifier", "digits", "digits_model", "fashion", "fashion_model"]
