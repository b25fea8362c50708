"""DPOK: contract, its loss value by value, the divergence holds it back, brighter pictures."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pilotwave.algorithms.dpok import DPOKConfig
from pilotwave.algorithms.policy import PolicyPlan, StepDensities
from pilotwave.testing.algorithm_contract import AlgorithmContract, observed, setting_of
from pilotwave.testing.small_networks import small_image_backbone
from pilotwave.types import Draw

FRESH = [Draw.of(77, 0, slot) for slot in range(64)]


def dpok(setting, **options):
    return DPOKConfig(kind="dpok", **options).build(setting)


class TestDPOK(AlgorithmContract):
    learns_from_earlier_answers = False

    def make_backbone(self, conditional=False):
        return small_image_backbone(classes=2 if conditional else 1)

    def make_algorithm(self, setting):
        return dpok(setting)


@pytest.mark.parametrize("size", [0.01, 0.3, 3.0])
def test_the_loss_is_the_penalised_objective_sample_by_sample(size) -> None:
    random = torch.Generator().manual_seed(3)
    drawn, edited, shift = (torch.randn(5, 40, generator=random).double() for _ in range(3))
    step = StepDensities(drawn, drawn + 0.3 * edited, size * shift)
    advantages = torch.tensor([1.0, -1.0, 0.5, -2.0, 3.0]).double()
    standard = Normal(torch.zeros(40).double(), 1.0)
    total = 0.0
    for row, advantage in enumerate(advantages.tolist()):
        policy = Normal(step.shift[row], 1.0)  # of the base model's noise
        log_ratio = policy.log_prob(step.edited[row]).sum() - standard.log_prob(step.drawn[row]).sum()
        ratio = min(max(math.exp(float(log_ratio) / 16384), 1 - 1e-4), 1 + 1e-4)
        divergence = float(kl_divergence(policy, standard).sum())
        total += (-16384 * advantage * ratio + 0.25 * divergence) / 5
    loss = dpok(setting_of(small_image_backbone()), kl_weight=0.25).step_loss(step, advantages)
    assert float(loss) == pytest.approx(total, rel=1e-9)


def darkness(latents):
    return -latents.flatten(1).double().mean(1)


def trained(rounds, **options):
    """Brightness gained over the base model in its deviations, and the squared shift of the noise."""
    backbone = small_image_backbone(steps=4)
    algorithm = dpok(setting_of(backbone, 16), **options)
    for _ in range(rounds):
        algorithm.tell(observed(backbone, algorithm.ask(16), darkness))
    after, base = (plan.generate(backbone, FRESH) for plan in (algorithm.ask(16).plan, PolicyPlan(4, None)))
    gained = (darkness(base.latents) - darkness(after.latents)) / darkness(base.latents).std()
    return float(gained.mean()), float((after.noise_sequence - base.noise_sequence).square().mean())


def test_samples_get_brighter_and_a_heavy_penalty_keeps_them_near_the_base_model() -> None:
    gained, moved = trained(rounds=6)
    held, held_moved = trained(rounds=6, kl_weight=10.0)
    assert gained > 0.5
    assert held < 0.5 * gained
    assert held_moved < 0.3 * moved
