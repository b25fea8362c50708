"""How good an image model is: agreement with a judge, corrected Fréchet distance, diversity, copying.

The Fréchet distance of finite samples is too large by a term that goes as one over their number and depends on the
model, so that raw distances do not even rank models fairly (Chong and Forsyth, "Effectively unbiased FID and
inception score and where to find them", CVPR 2020). As they do, it is measured at several sizes and a line in
1/size is followed to 1/size = 0. Here both sets shrink together, because the reference is finite too.

May import torch, numpy, the modules beside it and pilotwave's samples and types.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pilotwave.backbones.image.backbone import ImageBackbone
from pilotwave.backbones.image.dataset import LabelledImages
from pilotwave.backbones.image.judge import Judge, Judgement
from pilotwave.samples import ImageSample
from pilotwave.training.proportions import wilson_interval
from pilotwave.types import Draw

Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float64]

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Sizes at which the Fréchet distance is taken, as shares of both sets."""
REPEATS = 200
"""Random subsets per size; with 8 the result of 500 samples varied by 0.6 from seed to seed, with 200 by 0.1."""


@dataclass(frozen=True)
class ImageQuality:
    """What was measured on samples of one model.

    Attributes:
        count: Samples drawn; classes take turns.
        agreeing: Of them, how many the judge takes for the class that was asked for.
        by_class: The share of these by class.
        confidence: The judge's mean calibrated probability of the class that was asked for.
        frechet: Corrected squared Fréchet distance of the judge's features to the real pictures'.
        frechet_uncorrected: The same, as finite samples give it.
        frechet_floor: Corrected distance between two halves of the real pictures; zero but for chance.
        diversity: Mean root mean square distance of two samples of a class, pixels from 0 to 1.
        real_diversity: The same of as many real pictures.
    """

    count: int
    agreeing: int
    by_class: tuple[float, ...]
    confidence: float
    frechet: float
    frechet_uncorrected: float
    frechet_floor: float
    diversity: float
    real_diversity: float

    @property
    def agreement(self) -> float:
        """Share of samples that the judge takes for their class."""
        return self.agreeing / self.count

    @property
    def agreement_interval(self) -> tuple[float, float]:
        """The 95% interval of :attr:`agreement` (Wilson)."""
        return wilson_interval(self.agreeing, self.count)


def measure_quality(
    backbone: ImageBackbone, judge: Judge, real: LabelledImages, count: int = 500, seed: int = 1_000_000
) -> ImageQuality:
    """Draws samples, classes in turn, and measures them.

    Args:
        backbone: Samples as it is configured: its steps, its guidance.
        judge: Of the same kind of pictures; it must have had no part in making them.
        real: Pictures that neither was trained on.
        count: Of samples.
        seed: Of the draws.

    Raises:
        ValueError: Model, judge and real pictures differ in size, channels or classes.
    """
    if not backbone.picture == judge.picture == real.picture:
        raise ValueError(
            f"expected a judge and pictures of {backbone.picture}, got {judge.picture} and {real.picture}"
        )
    asked, pixels = draw_in_turns(backbone, count, seed)
    return assess(asked, pixels, judge, real, seed)


def assess(
    asked: npt.NDArray[np.int64],
    pixels: Pixels,
    judge: Judge,
    real: LabelledImages,
    seed: int = 0,
    judged_real: Judgement | None = None,
) -> ImageQuality:
    """Measures pictures that were drawn already; see :func:`measure_quality`.

    Args:
        asked: The class that each was asked to show, (count,).
        pixels: uint8 (count, side, side, channels).
        judge: Of such pictures.
        real: Such pictures, that neither model nor judge was trained on.
        seed: Of random subsets.
        judged_real: What the judge says of the real pictures, if it was asked already.
    """
    count, judged = len(asked), judge(pixels)
    judged_real = judge(real.images) if judged_real is None else judged_real
    right = judged.labels == asked
    first, second = halves(judged_real.features, seed)
    return ImageQuality(
        count=count,
        agreeing=int(right.sum()),
        by_class=tuple(float(right[asked == label].mean()) for label in np.unique(asked)),
        confidence=float(judged.probabilities[np.arange(count), asked].mean()),
        frechet=corrected_frechet_distance(judged.features, judged_real.features, seed),
        frechet_uncorrected=frechet_distance(judged.features, judged_real.features),
        frechet_floor=corrected_frechet_distance(first[:count], second, seed),
        diversity=diversity(pixels, asked),
        real_diversity=diversity(*alike(real, asked)),
    )


def draw_in_turns(
    backbone: ImageBackbone, count: int, seed: int, batch: int = 50
) -> tuple[npt.NDArray[np.int64], Pixels]:
    """Draws samples whose classes take turns.

    Returns:
        The classes asked for, (count,), and the pictures, uint8 (count, side, side, channels).

    Raises:
        ValueError: A sample is not finite: the weights are unusable.
    """
    draws = [Draw.of(seed, 0, slot) for slot in range(count)]
    asked = torch.arange(count) % len(backbone.picture.class_names)
    pixels: list[Pixels] = []
    for start in range(0, count, batch):
        conditions = asked[start : start + batch, None]
        latents = backbone.sample(backbone.draw_noise(draws[start : start + batch]), conditions)
        decoded = backbone.decode(latents, conditions)
        pixels += [sample.pixels for sample in decoded if isinstance(sample, ImageSample)]
    if len(pixels) != count:
        raise ValueError(f"{count - len(pixels)} of {count} samples are not finite: the weights are unusable")
    return asked.numpy(), np.stack(pixels)


def frechet_distance(one: Features, other: Features) -> float:
    """Returns the squared Fréchet distance of the Gaussians that fit two sets of features (n, d), n > d."""
    mean = one.mean(0) - other.mean(0)
    first, second = np.cov(one.T), np.cov(other.T)
    # the trace of (first @ second)^(1/2), from the eigenvalues of a similar, symmetric matrix
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    return float(mean @ mean + np.trace(first) + np.trace(second) - 2 * cross)


def corrected_frechet_distance(one: Features, other: Features, seed: int = 0, repeats: int = REPEATS) -> float:
    """Returns the squared Fréchet distance that infinitely many of both would have, by extrapolation in 1/size.

    Args:
        one: Features (n, d); n of several times d, or the line is no line yet.
        other: Features (m, d).
        seed: Of the random subsets.
        repeats: Random subsets per size.

    Returns:
        The intercept of the line; by chance a little below zero where the distributions are equal.
    """
    random = np.random.default_rng(seed)
    inverse, distances = [], []
    for share in SHARES:
        sizes = [max(2, round(share * len(each))) for each in (one, other)]
        for _ in range(1 if share == 1.0 else repeats):
            parts = [
                each[random.choice(len(each), size, replace=False)]
                for each, size in zip((one, other), sizes, strict=True)
            ]
            inverse.append(1.0 / share)
            distances.append(frechet_distance(*parts))
    _, intercept = np.polyfit(inverse, distances, 1)
    return float(intercept)


def halves(features: Features, seed: int = 0) -> tuple[Features, Features]:
    """Splits a set in two at random."""
    order = np.random.default_rng(seed).permutation(len(features))
    return features[order[: len(order) // 2]], features[order[len(order) // 2 :]]


def diversity(pixels: Pixels, labels: npt.NDArray[np.int64]) -> float:
    """Returns the mean distance of two pictures of one class (root mean square, pixels from 0 to 1).

    Args:
        pixels: (n, side, side, channels).
        labels: (n,); a class of one picture has no pairs and does not count.
    """
    distances = []
    for label in np.unique(labels):
        inside = torch.from_numpy(pixels[labels == label]).flatten(1).double() / 255
        if len(inside) > 1:
            distances.append(float(torch.pdist(inside).mean()) / math.sqrt(inside.shape[1]))
    return float(np.mean(distances)) if distances else 0.0


def alike(real: LabelledImages, asked: npt.NDArray[np.int64]) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Returns real pictures, and their labels, with as many of each class as were asked for (or all there are)."""
    rows = [np.flatnonzero(real.labels == label)[: int((asked == label).sum())] for label in np.unique(asked)]
    chosen = real.select(np.concatenate(rows))
    return chosen.images, chosen.labels


def nearest_distances(pixels: Pixels, known: Pixels) -> npt.NDArray[np.float64]:
    """Returns how far each picture is from the nearest known one (root mean square, pixels from 0 to 1), (n,)."""
    points = torch.from_numpy(pixels).flatten(1).float() / 255
    nearest = torch.full((len(points),), torch.inf)
    for part in torch.split(torch.from_numpy(known).flatten(1), 5000):
        nearest = torch.minimum(nearest, torch.cdist(points, part.float() / 255).amin(1))
    return nearest.double().numpy() / math.sqrt(points.shape[1])


def describe(quality: ImageQuality, class_names: Sequence[str]) -> list[str]:
    """Returns the measurement in words, a line each, for a model card."""
    low, high = (100 * bound for bound in quality.agreement_interval)
    worst = int(np.argmin(quality.by_class))
    least = f"{class_names[worst]}, {100 * quality.by_class[worst]:.0f}%"
    return [
        f"The judge agrees with the class asked for in {100 * quality.agreement:.1f}% of {quality.count} samples "
        f"(95% interval {low:.1f}-{high:.1f}); least for {least}.",
        f"Fréchet distance of the judge's features to held-out pictures, corrected for finite samples: "
        f"{quality.frechet:.2f} (between two halves of the real pictures {quality.frechet_floor:.2f}).",
        f"Diversity within a class: {quality.diversity:.3f} (real pictures {quality.real_diversity:.3f}).",
    ]


__all__ = [
    "ImageQuality",
    "alike",
    "assess",
    "corrected_frechet_distance",
    "describe",
    "diversity",
    "draw_in_turns",
    "frechet_distance",
    "halves",
    "measure_quality",
    "nearest_distances",
]
