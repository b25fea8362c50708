"""Averaged weights against their definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pilotwave.training.ema import ExponentialMovingAverage


def moved(network: nn.Linear, step: int) -> nn.Linear:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network


def test_the_average_follows_its_recursion() -> None:
    network = nn.Linear(3, 2)
    average = ExponentialMovingAverage(network, decay=0.9)
    expected = network.weight.detach().double().clone()
    for step in range(1, 200):
        average.update(moved(network, step))
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach().double()
    torch.testing.assert_close(average.average["weight"].double(), expected, atol=1e-5, rtol=1e-5)
    target = nn.Linear(3, 2)
    average.copy_to(target)
    assert torch.equal(target.weight, average.average["weight"])


def test_a_network_that_stands_still_is_its_own_average() -> None:
    network = nn.Linear(4, 4)
    average = ExponentialMovingAverage(network, decay=0.99)
    for _ in range(50):
        average.update(network)
    torch.testing.assert_close(average.average["weight"], network.weight.detach())


def test_a_restored_average_continues_exactly() -> None:
    network = nn.Linear(3, 2)
    whole = ExponentialMovingAverage(network, decay=0.95)
    first = ExponentialMovingAverage(network, decay=0.95)
    for step in range(5):
        moved(network, step)
        whole.update(network)
        first.update(network)
    second = ExponentialMovingAverage(nn.Linear(3, 2), decay=0.95)
    second.load_state_dict(first.state_dict())
    for step in range(5, 9):
        moved(network, step)
        whole.update(network)
        second.update(network)
    assert torch.equal(whole.average["weight"], second.average["weight"])
    assert torch.equal(whole.average["bias"], second.average["bias"])


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="decay"):
        ExponentialMovingAverage(nn.Linear(1, 1), decay=1.0)
    average = ExponentialMovingAverage(nn.Linear(1, 1), decay=0.5)
    other = ExponentialMovingAverage(nn.Sequential(nn.Linear(1, 1)), decay=0.5)
    with pytest.raises(ValueError, match="another network"):
        average.load_state_dict(other.state_dict())
