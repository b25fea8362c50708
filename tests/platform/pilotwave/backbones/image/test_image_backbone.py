"""The image model as a backbone: schedule, classes, guidance, decoding, refusals, and what it draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pilotwave.backbones.image import dataset
from pilotwave.backbones.image.backbone import BUILTIN_WEIGHTS, ImageBackbone, ImageBackboneConfig, image_schedule
from pilotwave.backbones.image.judge import read_judge
from pilotwave.backbones.image.quality import measure_quality
from pilotwave.errors import CheckpointError
from pilotwave.protocols import Backbone, StepState
from pilotwave.samples import ImageSample, Invalid
from pilotwave.testing.backbone_contract import BackboneContract
from pilotwave.training.weights import Weights, read_weights, write_weights
from pilotwave.types import Draw

DRAWS = [Draw.of(0, 0, slot) for slot in range(6)]
INSTALLED = (dataset.DEBIAN_FOLDER / "train-images-idx3-ubyte.gz").is_file()


@pytest.fixture(scope="module")
def weights() -> Weights:
    return read_weights(BUILTIN_WEIGHTS, model="image")


@pytest.fixture(scope="module")
def backbone(weights: Weights) -> ImageBackbone:
    return ImageBackbone(ImageBackboneConfig(kind="image", steps=4), weights, "cpu")


@pytest.fixture(scope="module")
def make(weights: Weights) -> Callable[..., ImageBackbone]:
    def build(**options: object) -> ImageBackbone:
        return ImageBackbone(ImageBackboneConfig.model_validate({"kind": "image", **options}), weights, "cpu")

    return build


class TestImageBackboneContract(BackboneContract):
    def make_backbone(self) -> Backbone:
        return ImageBackboneConfig(kind="image", steps=4).build("cpu")


class TestGuidedImageBackboneContract(BackboneContract):
    def make_backbone(self) -> Backbone:
        return ImageBackboneConfig(kind="image", steps=3, guidance_scale=2.0, classes=("bag", 9)).build("cpu")


def test_the_shipped_weights_are_small_and_say_how_far_they_came(weights: Weights) -> None:
    assert BUILTIN_WEIGHTS.stat().st_size < 15_000_000
    assert weights.progress["images_seen"] >= 60_000
    assert 0.0 < weights.progress["held_out_loss"] < 0.3


@settings(deadline=None)
@given(steps=st.integers(1, 200))
def test_the_schedule_walks_the_quarter_circle_in_equal_angles(steps: int) -> None:
    schedule = image_schedule(steps)
    assert len(schedule.steps) == steps
    assert schedule.steps[0].signal_level == 0.0
    for place, step in enumerate(schedule.steps):
        angle = math.pi / 2 * (steps - place) / steps
        assert step.signal_level == pytest.approx(math.cos(angle), abs=1e-12)
        assert step.noise_level == pytest.approx(math.sin(angle), abs=1e-12)
        assert step.timestep == steps - place - 1
    last = schedule.steps[-1]
    assert (last.clean_weight, last.noisy_weight, last.noise_weight) == pytest.approx((1.0, 0.0, 0.0))


@settings(deadline=None)
@given(steps=st.integers(2, 100), place=st.floats(0, 1, exclude_max=True))
def test_a_step_keeps_the_forward_process(steps: int, place: float) -> None:
    """If x_t = cos x_0 + sin noise and the prediction is x_0, then x_s has the levels of s: signal and variance."""
    schedule = image_schedule(steps)
    index = int(place * (steps - 1))
    step, following = schedule.steps[index], schedule.steps[index + 1]
    signal = step.clean_weight + step.noisy_weight * step.signal_level
    variance = (step.noisy_weight * step.noise_level) ** 2 + step.noise_weight**2
    assert signal == pytest.approx(following.signal_level, abs=1e-9)
    assert variance == pytest.approx(following.noise_level**2, abs=1e-9)


def test_the_hook_sees_and_shifts_the_clean_picture(backbone: ImageBackbone) -> None:
    noise, classes = backbone.draw_noise(DRAWS[:2]), backbone.draw_conditions(DRAWS[:2])
    seen: list[StepState] = []

    def all_bright(state: StepState, clean: torch.Tensor) -> torch.Tensor:
        seen.append(state)
        assert clean.abs().max() <= 1.0
        return torch.full_like(clean, 0.5)

    latents = backbone.sample(noise, classes, all_bright)
    assert [state.index for state in seen] == [0, 1, 2, 3]
    torch.testing.assert_close(latents, torch.full_like(latents, 0.5))


def test_shifting_the_whole_noise_sequence_leads_to_a_target(make: Callable[..., ImageBackbone]) -> None:
    """Fast Direct's guided noise optimisation with a known target: the model can be steered through its noise."""
    backbone = make(steps=5)
    draws = [Draw.of(5, 0, slot) for slot in range(4)]
    classes = torch.tensor([[0], [1], [8], [9]])
    target = backbone.sample(backbone.draw_noise(DRAWS[:4]), classes)
    noise = backbone.draw_noise(draws)
    norms = noise.flatten(2).norm(dim=2)[..., None, None, None]
    distances = []
    for _ in range(5):
        latents = backbone.sample(noise, classes)
        distances.append(float((latents - target).flatten(1).norm(dim=1).mean()))
        shifted = noise[:-1] + 0.3 * (target - latents)
        noise[:-1] = shifted * norms[:-1] / shifted.flatten(2).norm(dim=2)[..., None, None, None]
    assert distances[-1] < 0.6 * distances[0]


def test_guidance_of_zero_forgets_the_class_and_of_one_is_none(make: Callable[..., ImageBackbone]) -> None:
    unguided = make(steps=2)
    noise = unguided.draw_noise(DRAWS[:1]).repeat(1, 2, 1, 1, 1)
    classes = torch.tensor([[1], [9]])
    forgotten = make(steps=2, guidance_scale=0.0).sample(noise, classes)
    torch.testing.assert_close(forgotten[0], forgotten[1], atol=1e-4, rtol=0)
    plain = unguided.sample(noise, classes)
    assert (plain[0] - plain[1]).abs().max() > 0.5
    almost = make(steps=2, guidance_scale=1.0001).sample(noise, classes)
    torch.testing.assert_close(plain, almost, atol=0.01, rtol=0)


def test_only_the_chosen_classes_are_drawn(make: Callable[..., ImageBackbone]) -> None:
    draws = [Draw.of(3, 0, slot) for slot in range(200)]
    conditions = make(classes=["sandal", 9]).draw_conditions(draws)
    assert conditions.shape == (200, 1)
    assert conditions.dtype == torch.int64
    assert set(conditions.flatten().tolist()) == {5, 9}
    assert set(make().draw_conditions(draws).flatten().tolist()) == set(range(10))


def test_the_fingerprint_follows_what_changes_samples(make: Callable[..., ImageBackbone], weights: Weights) -> None:
    prints = [make(**options).fingerprint for options in ({}, {"steps": 7}, {"guidance_scale": 2.0})]
    assert len(set(prints)) == 3
    assert make(classes=["bag"]).fingerprint == prints[0]
    other = Weights(weights.tensors, weights.config, weights.progress, "another")
    assert ImageBackbone(ImageBackboneConfig(kind="image"), other, "cpu").fingerprint != prints[0]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), label=st.integers(0, 9))
def test_decoding_inverts_the_scaling_of_training(backbone: ImageBackbone, seed: int, label: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    latent = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1.0
    (sample,) = backbone.decode(latent, torch.tensor([[label]]))
    assert isinstance(sample, ImageSample)
    np.testing.assert_array_equal(sample.pixels, pixels)
    assert sample.class_name == dataset.CLASS_NAMES[label]


def test_decoding_clamps_and_refuses_what_is_not_a_number(backbone: ImageBackbone) -> None:
    latents = torch.stack([torch.full((1, 28, 28), 7.0), torch.full((1, 28, 28), -7.0), torch.zeros(1, 28, 28)])
    latents[2, 0, 3, 3] = float("nan")
    white, black, broken = backbone.decode(latents, torch.zeros(3, 1, dtype=torch.int64))
    assert isinstance(white, ImageSample)
    assert isinstance(black, ImageSample)
    assert white.pixels.min() == 255
    assert black.pixels.max() == 0
    assert isinstance(broken, Invalid)
    assert broken.reason == "the latent is not finite"


def test_wrong_shapes_and_classes_are_refused(backbone: ImageBackbone) -> None:
    noise = backbone.draw_noise(DRAWS[:2])
    with pytest.raises(ValueError, match="shape"):
        backbone.sample(noise[1:], torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="conditions of shape"):
        backbone.sample(noise, torch.zeros(2, dtype=torch.int64))
    for label in (-1, 10):
        with pytest.raises(ValueError, match="classes from 0 to 9"):
            backbone.sample(noise, torch.tensor([[0], [label]]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"classes": ["sandle"]}, "did you mean 'sandal'"),
        ({"classes": ["spaceship"]}, "one of: t-shirt"),
        ({"classes": [10]}, "from 0 to 9"),
        ({"classes": []}, "at least 1"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"guidance": 2}, "not permitted"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        ImageBackboneConfig.model_validate({"kind": "image", **options})


def test_a_wrong_checkpoint_is_refused_in_one_line(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "weights.safetensors"
    tensors = dict(weights.tensors)

    def refusal() -> str:
        with pytest.raises(CheckpointError) as caught:
            ImageBackboneConfig(kind="image", checkpoint=str(path)).build("cpu")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such file" in refusal()
    path.write_bytes(BUILTIN_WEIGHTS.read_bytes()[:100_000])
    assert "truncated" in refusal()
    for model, config, kept, expected in (
        ("molecule", weights.config, tensors, "of model 'molecule'"),
        ("image", weights.config, dict(list(tensors.items())[1:]), "do not fit"),
        ("image", {**weights.config, "network": {"widths": [32, 64]}}, tensors, "do not fit"),
        ("image", {**weights.config, "picture": {"side": 27}}, tensors, "do not fit"),
        ("image", {}, tensors, "do not fit"),
    ):
        write_weights(path, kept, model=model, config=config, progress={})
        assert expected in refusal()


@pytest.mark.skipif(not INSTALLED, reason="the Debian package dataset-fashion-mnist is not installed")
def test_the_shipped_weights_give_the_recorded_quality(
    make: Callable[..., ImageBackbone], record_property: Callable[[str, object], None]
) -> None:
    """As benchmarks/RESULTS.md has it for 10 steps: 93.6% (91.1-95.4), corrected Fréchet distance 2.36."""
    held_out = dataset.load("held-out").select(np.arange(2500))
    found = measure_quality(make(steps=10, precision="bfloat16"), read_judge(), held_out, 500)
    record_property("judge_agreement", found.agreement)
    record_property("corrected_frechet_distance", found.frechet)
    assert found.agreement > 0.91
    assert found.frechet < 3.2
    assert found.diversity > 0.2


def test_reduced_precision_draws_nearly_the_same_pictures(make: Callable[..., ImageBackbone]) -> None:
    exact, reduced = make(steps=4), make(steps=4, precision="bfloat16")
    assert exact.fingerprint != reduced.fingerprint
    noise, classes = exact.draw_noise(DRAWS), exact.draw_conditions(DRAWS)
    difference = (exact.sample(noise, classes) - reduced.sample(noise, classes)).square().mean().sqrt()
    assert 0.0 < difference < 0.1
