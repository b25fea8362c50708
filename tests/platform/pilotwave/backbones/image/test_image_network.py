"""The network: folding is an exact rearrangement, any size of picture passes, the loss is what it says."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.backbones.image.network import (
    ImageNetwork,
    ImageNetworkConfig,
    PictureFormat,
    fold,
    levels,
    unfold,
    velocity_loss,
)

SMALL = ImageNetworkConfig(widths=(8, 16), blocks=(1, 2), head_width=8, embedding=8)


@settings(deadline=None)
@given(factor=st.integers(1, 4), cells=st.integers(1, 4), width=st.integers(1, 3))
def test_folding_keeps_every_pixel_and_comes_back(factor: int, cells: int, width: int) -> None:
    pictures = torch.randn(2, cells * factor, cells * factor, width)
    folded = fold(pictures, factor)
    assert folded.shape == (2, cells, cells, factor * factor * width)
    corner = pictures[:, :factor, :factor].reshape(2, -1)
    assert torch.equal(folded[:, 0, 0], corner)
    assert torch.equal(unfold(folded, factor), pictures)


@settings(max_examples=10, deadline=None)
@given(side=st.sampled_from([16, 20, 28, 36, 64, 128]), channels=st.sampled_from([1, 3]), classes=st.integers(1, 3))
def test_any_picture_passes_and_a_new_network_predicts_nothing(side: int, channels: int, classes: int) -> None:
    picture = PictureFormat(channels=channels, side=side, class_names=tuple("abc"[:classes]))
    network = ImageNetwork(SMALL, picture)
    noisy = torch.randn(2, *picture.latent_shape)
    velocity = network(noisy, torch.tensor([0.1, 0.9]), torch.tensor([0, network.no_class]))
    assert velocity.shape == noisy.shape
    assert (velocity == 0).all()


def test_class_and_time_change_the_prediction_once_trained() -> None:
    torch.manual_seed(0)
    network = ImageNetwork(SMALL, PictureFormat(channels=1, side=16, class_names=("a", "b")))
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    noisy = torch.randn(1, 1, 16, 16).repeat(4, 1, 1, 1)
    velocity = network(noisy, torch.tensor([0.3, 0.3, 0.3, 0.6]), torch.tensor([0, 1, 0, 0]))
    torch.testing.assert_close(velocity[0], velocity[2])
    assert (velocity[0] - velocity[1]).abs().max() > 1e-3
    assert (velocity[0] - velocity[3]).abs().max() > 1e-3


def test_a_perfect_prediction_has_no_loss() -> None:
    clean, noise, time = torch.randn(5, 1, 16, 16), torch.randn(5, 1, 16, 16), torch.rand(5)
    signal, spread = (level.view(-1, 1, 1, 1) for level in levels(time))

    class Knowing(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, time: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            torch.testing.assert_close(noisy, signal * clean + spread * noise)
            return signal * noise - spread * clean

    labels = torch.zeros(5, dtype=torch.int64)
    assert velocity_loss(Knowing(), clean, noise, time, labels).max() < 1e-10
    nothing = torch.nn.Module()
    nothing.forward = lambda noisy, time, labels: torch.zeros_like(noisy)  # type: ignore[method-assign]
    expected = (signal * noise - spread * clean).square().flatten(1).mean(1)
    torch.testing.assert_close(velocity_loss(nothing, clean, noise, time, labels), expected)


@given(time=st.floats(0, 1))
def test_signal_and_noise_levels_lie_on_the_quarter_circle(time: float) -> None:
    signal, noise = levels(torch.tensor([time], dtype=torch.float64))
    assert float(signal**2 + noise**2) == pytest.approx(1.0)
    assert float(noise) == pytest.approx(math.sin(time * math.pi / 2), abs=1e-9)
