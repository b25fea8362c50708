"""D3PO: contract, its loss pair by pair, brighter pictures."""

import math

import pytest
import torch
from torch.distributions import Normal

from pilotwave.algorithms.d3po import D3POConfig
from pilotwave.algorithms.policy import PolicyPlan, StepDensities
from pilotwave.testing.algorithm_contract import AlgorithmContract, observed, setting_of
from pilotwave.testing.small_networks import small_image_backbone
from pilotwave.types import Draw

FRESH = [Draw.of(77, 0, slot) for slot in range(64)]


def d3po(setting, **options):
    return D3POConfig(kind="d3po", **options).build(setting)


class TestD3PO(AlgorithmContract):
    learns_from_earlier_answers = False

    def make_backbone(self, conditional=False):
        return small_image_backbone(classes=2 if conditional else 1)

    def make_algorithm(self, setting):
        return d3po(setting)


@pytest.mark.parametrize("clip_range", [0.1, 1e-5])
def test_the_loss_is_the_preference_loss_pair_by_pair(clip_range) -> None:
    random = torch.Generator().manual_seed(3)
    drawn, shift = (torch.randn(5, 40, generator=random).double() for _ in range(2))
    step = StepDensities(drawn, drawn, 0.5 * shift)
    advantages = torch.tensor([1.0, -1.0, 0.5, 0.5, 3.0]).double()
    standard = Normal(torch.zeros(40).double(), 1.0)
    evidence, bounded = [], 0
    for row in range(5):
        log_ratio = (Normal(step.shift[row], 1.0).log_prob(drawn[row]) - standard.log_prob(drawn[row])).sum()
        ratio = math.exp(float(log_ratio) / 16384)
        clipped = min(max(ratio, 1 - clip_range), 1 + clip_range)
        bounded += clipped != ratio
        evidence.append(0.1 * 16384 * math.log(clipped))
    assert (bounded > 0) == (clip_range == 1e-5)
    pairs = [
        -math.log(1 / (1 + math.exp(evidence[j] - evidence[i])))
        for i in range(5)
        for j in range(5)
        if advantages[i] > advantages[j]
    ]
    assert len(pairs) == 9
    loss = d3po(setting_of(small_image_backbone()), clip_range=clip_range).step_loss(step, advantages)
    assert float(loss) == pytest.approx(sum(pairs) / 9, rel=1e-9)


def test_no_pair_is_no_loss() -> None:
    shift = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    step = StepDensities(torch.ones(3, 4).double(), torch.ones(3, 4).double(), shift)
    loss = d3po(setting_of(small_image_backbone())).step_loss(step, torch.ones(3).double())
    loss.backward()
    assert loss.item() == 0.0
    assert not shift.grad.any()


def test_samples_get_brighter() -> None:
    backbone = small_image_backbone(steps=4)
    algorithm = d3po(setting_of(backbone, 16))
    for _ in range(10):
        algorithm.tell(observed(backbone, algorithm.ask(16), darkness))
    after, base = (plan.generate(backbone, FRESH).latents for plan in (algorithm.ask(16).plan, PolicyPlan(4, None)))
    assert float((darkness(base) - darkness(after)).mean() / darkness(base).std()) > 0.5


def darkness(latents):
    return -latents.flatten(1).double().mean(1)
