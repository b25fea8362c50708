"""Twelve tasks on the built-in image model: JPEG size, naturalness, ratings, hidden targets, symmetry.

After the Fast Direct paper's image tasks: its prompts are pairs here, a class that the model is told and another
that the judge looks for; its 45 training and 16 unseen prompts are six and four classes. 10 sampler steps in
bfloat16, batches of 32. Quality without a reference is that of :mod:`pilotwave.bench.naturalness`, since BRISQUE's
implementations bring OpenCV and a model of large photographs. May import numpy, the backbones and pilotwave.bench.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from pilotwave.backbones.image import dataset
from pilotwave.backbones.image.backbone import ImageBackboneConfig
from pilotwave.backbones.image.dataset import CLASS_NAMES, LabelledImages
from pilotwave.backbones.image.judge import Judge, read_judge
from pilotwave.bench.measures import measure_by_judge
from pilotwave.bench.naturalness import Naturalness
from pilotwave.bench.objectives import (
    Floats,
    JudgeObjective,
    OracleObjective,
    asymmetry,
    contrast,
    distance_to,
    mean_value,
    of_arrays,
    rating,
)
from pilotwave.bench.task import Measure, Objective, Suite, Task
from pilotwave.bench.threads import one_thread
from pilotwave.protocols import Backbone

STEPS = 10
MEASURED_AGAINST = 10_000
"""Real pictures, of those the model was trained on, that distances are taken to."""
FITTED = 2_000
"""Held-out pictures whose local statistics say what is natural."""
TOPS = ("t-shirt", "pullover", "dress", "coat", "shirt")
SEEN = ("t-shirt", "trouser", "pullover", "sandal", "sneaker", "bag")
UNSEEN = tuple(name for name in CLASS_NAMES if name not in SEEN)


@functools.cache
def model(device: str, classes: tuple[str, ...] | None) -> Backbone:
    """Loads the built-in model for some of its classes, or all."""
    return ImageBackboneConfig(kind="image", steps=STEPS, precision="bfloat16", classes=classes).build(device)


@functools.cache
def judge() -> Judge:
    """Loads the judge."""
    return read_judge()


@functools.cache
def real() -> LabelledImages:
    """Returns the first pictures that the model was trained on."""
    train = dataset.load("train")
    return LabelledImages(train.images[:MEASURED_AGAINST], train.labels[:MEASURED_AGAINST])


@functools.cache
def held_out() -> LabelledImages:
    """Returns the pictures that neither the model nor the judge was trained on."""
    return dataset.load("held-out")


@functools.cache
@one_thread()
def naturalness() -> Naturalness:
    """Fits the statistics of real pictures."""
    return Naturalness.fit(held_out().images[:FITTED, :, :, 0] / 255.0)


@functools.cache
def _measure() -> Measure:
    return measure_by_judge(judge(), real().images)


def _task(
    name: str,
    title: str,
    objective: Callable[[], Objective],
    classes: tuple[str, ...] | None = None,
    unseen: tuple[str, ...] | None = None,
) -> Task:
    return Task(
        name,
        "images",
        title,
        "image",
        "image",
        backbone=lambda device: model(device, classes),
        objective=objective,
        measure=_measure,
        unseen=None if unseen is None else lambda device: model(device, unseen),
        unguided=384,
    )


def _jpeg(sign: int) -> Callable[[], Objective]:
    return lambda: OracleObjective("jpeg", sign, isolation="thread")


def _hidden(class_name: str, place: int) -> Callable[[], Objective]:
    """The target is a held-out picture of a class."""

    def build() -> Objective:
        pictures = held_out()
        chosen = pictures.images[pictures.labels == CLASS_NAMES.index(class_name)][place]
        return of_arrays(distance_to(chosen / 255.0))()

    return build


def _rated(*wanted: str) -> Callable[[], Objective]:
    return lambda: JudgeObjective(judge(), wanted, rating)


def _unnatural() -> Objective:
    def loss(arrays: Floats) -> Floats:
        return naturalness().distance(arrays[..., 0])

    return of_arrays(loss)()


def _rated_task(told: Sequence[str], wanted: Sequence[str], title: str = "") -> Task:
    name = f"{'-or-'.join(told)}-as-{'-or-'.join(wanted)}"
    title = title or f"{' or '.join(told)} rated as {' or '.join(wanted)}"
    return _task(name, title, _rated(*wanted), tuple(told))


TASKS = (
    _task("compressible", "compressible", _jpeg(1)),
    _task("incompressible", "incompressible", _jpeg(-1)),
    _task("natural", "natural local statistics", _unnatural),
    _rated_task(["shirt"], ["t-shirt"]),
    _rated_task(["sneaker"], ["ankle-boot"]),
    _rated_task(["t-shirt"], ["dress"]),
    _rated_task(["pullover"], ["coat"]),
    _task("short-sleeved", "coat or dress rated as short-sleeved", _rated("t-shirt"), ("coat", "dress")),
    _task("hidden-bag", "bag, hidden target", _hidden("bag", 10), ("bag",)),
    _task("hidden-dress", "dress, hidden target", _hidden("dress", 20), ("dress",)),
    _task("symmetric", "symmetric tops", of_arrays(asymmetry), TOPS),
    _task("unseen-classes", "compressible, four classes unseen", _jpeg(1), SEEN, UNSEEN),
)

HELD_OUT = (
    _task("contrast", "contrast", of_arrays(contrast(-1))),
    _task("dark", "dark", of_arrays(mean_value(1))),
    _rated_task(["dress"], ["coat"]),
    _task("hidden-boot", "ankle boot, hidden target", _hidden("ankle-boot", 30), ("ankle-boot",)),
)

SUITE = Suite("images", TASKS, HELD_OUT)

__all__ = ["SUITE", "held_out", "judge", "model", "naturalness", "real"]
