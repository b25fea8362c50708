"""Measures of image models: the corrected Fréchet distance on Gaussians of known distance, and the rest."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.backbones.image import dataset, quality
from pilotwave.backbones.image.backbone import ImageBackbone, ImageBackboneConfig
from pilotwave.backbones.image.judge import read_judge

INSTALLED = (dataset.DEBIAN_FOLDER / "train-images-idx3-ubyte.gz").is_file()
WIDTH = 8


def gaussian(count: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return shift + scale * np.random.default_rng(seed).standard_normal((count, WIDTH))


def true_distance(shift: float, scale: float) -> float:
    return WIDTH * (shift**2 + (scale - 1) ** 2)


@settings(max_examples=20, deadline=None)
@given(shift=st.floats(-2, 2), scale=st.floats(0.3, 3))
def test_many_samples_give_the_known_distance_of_gaussians(shift: float, scale: float) -> None:
    found = quality.frechet_distance(gaussian(20_000, 0, shift, scale), gaussian(20_000, 1))
    assert found == pytest.approx(true_distance(shift, scale), rel=0.1, abs=0.1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_distance_is_symmetric_and_zero_to_itself(seed: int) -> None:
    one, other = gaussian(100, seed, 0.3, 2.0), gaussian(120, seed + 1)
    assert quality.frechet_distance(one, other) == pytest.approx(quality.frechet_distance(other, one))
    assert quality.frechet_distance(one, one) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.2, 1.0), (0.0, 1.3), (0.3, 0.7)])
@pytest.mark.parametrize("count", [100, 300])
def test_extrapolation_removes_the_bias_of_finite_samples(shift: float, scale: float, count: int) -> None:
    """Over many repetitions the raw distance is too large, and the extrapolated one is right."""
    pairs = [(gaussian(count, 2 * seed, shift, scale), gaussian(count, 2 * seed + 1)) for seed in range(60)]
    truth = true_distance(shift, scale)
    raw = np.array([quality.frechet_distance(*pair) for pair in pairs]) - truth
    corrected = np.array([quality.corrected_frechet_distance(*pair, seed=1, repeats=8) for pair in pairs]) - truth
    standard_error = corrected.std() / math.sqrt(len(pairs))
    assert raw.mean() > 3 * raw.std() / math.sqrt(len(pairs))
    assert abs(corrected.mean()) < 0.25 * raw.mean() + 4 * standard_error


def test_the_raw_bias_goes_as_one_over_the_number() -> None:
    def bias(count: int) -> float:
        return float(
            np.mean(
                [quality.frechet_distance(gaussian(count, 2 * s), gaussian(count, 2 * s + 1)) for s in range(80)]
            )
        )

    assert bias(100) / bias(400) == pytest.approx(4.0, rel=0.3)


def test_diversity_is_the_mean_distance_within_classes() -> None:
    pixels = np.zeros((4, 4, 4, 1), dtype=np.uint8)
    pixels[1], pixels[3] = 255, 51
    assert quality.diversity(pixels, np.array([0, 0, 1, 1])) == pytest.approx((1.0 + 0.2) / 2)
    assert quality.diversity(pixels[:2], np.array([0, 1])) == 0.0


def test_copies_are_near_and_others_far() -> None:
    known = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
    far = np.random.default_rng(1).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    distances = quality.nearest_distances(np.concatenate([known[7:8], far]), known)
    assert distances[0] == pytest.approx(0.0, abs=1e-3)
    by_hand = np.sqrt(np.square(far[:, None] / 255.0 - known[None] / 255.0).mean((2, 3, 4))).min(1)
    np.testing.assert_allclose(distances[1:], by_hand, atol=1e-5)


def test_pictures_of_another_kind_are_refused() -> None:
    backbone = ImageBackboneConfig(kind="image", steps=1).build("cpu")
    assert isinstance(backbone, ImageBackbone)
    others = dataset.LabelledImages(np.zeros((4, 32, 32, 3), np.uint8), np.zeros(4, np.int64), ("a",))
    with pytest.raises(ValueError, match="judge and pictures"):
        quality.measure_quality(backbone, read_judge(), others, 4)


@pytest.mark.skipif(not INSTALLED, reason="the Debian package dataset-fashion-mnist is not installed")
def test_a_model_that_draws_one_picture_is_found_out() -> None:
    """Real pictures score best; one picture per class agrees with the judge, but its distance tells."""
    held_out, train, judge = dataset.load("held-out"), dataset.load("train"), read_judge()
    held_out = held_out.select(np.arange(1500))
    asked = np.arange(400) % 10
    of_each = [np.flatnonzero(train.labels == label) for label in range(10)]
    real = train.images[[of_each[label][place // 10] for place, label in enumerate(asked)]]
    single = train.images[[of_each[label][1] for label in asked]]
    good, collapsed = (quality.assess(asked, pixels, judge, held_out) for pixels in (real, single))
    assert good.agreement > 0.85
    assert good.diversity == pytest.approx(good.real_diversity, rel=0.1)
    assert abs(good.frechet) < 1.5  # of so few pictures it is zero but for chance
    assert collapsed.diversity < 0.01 * collapsed.real_diversity
    assert collapsed.frechet > 10.0
