"""DDPO: contract, its loss value by value, what clipping does, brighter pictures, a whole campaign."""

import math

import pytest
import torch

from pilotwave import optimize
from pilotwave.algorithms.ddpo import DDPOConfig
from pilotwave.algorithms.policy import StepDensities
from pilotwave.algorithms.policy_training import RATIO_SCALE
from pilotwave.errors import InputError
from pilotwave.testing.algorithm_contract import AlgorithmContract, observed, setting_of
from pilotwave.testing.small_networks import small_image_backbone
from pilotwave.types import Draw

FRESH = [Draw.of(77, 0, slot) for slot in range(64)]


def ddpo(setting, **options):
    return DDPOConfig(kind="ddpo", **options).build(setting)


class TestDDPO(AlgorithmContract):
    learns_from_earlier_answers = False

    def make_backbone(self, conditional=False):
        return small_image_backbone(classes=2 if conditional else 1)

    def make_algorithm(self, setting):
        return ddpo(setting)


def densities(batch, dim, seed, size=1.0):
    random = torch.Generator().manual_seed(seed)
    drawn, edited, shift = (torch.randn(batch, dim, generator=random).double() for _ in range(3))
    return StepDensities(drawn, drawn + 0.3 * edited, (size * shift).requires_grad_())


def log_density(noise):
    return sum(-0.5 * float(value) ** 2 - 0.5 * math.log(2 * math.pi) for value in noise)


@pytest.mark.parametrize("size", [0.01, 0.3, 3.0])
def test_the_loss_is_the_clipped_objective_sample_by_sample(size) -> None:
    step = densities(6, 40, seed=1, size=size)
    advantages = torch.tensor([1.0, -1.0, 0.5, -2.0, 0.0, 3.0]).double()
    total, clipped = 0.0, 0
    rows = (step.drawn, step.edited, step.shift.detach(), advantages)
    for drawn, edited, shift, advantage in zip(*rows, strict=True):
        ratio = math.exp((log_density(edited - shift) - log_density(drawn)) / 16384)
        bounded = min(max(ratio, 1 - 1e-4), 1 + 1e-4)
        clipped += bounded != ratio
        total += 16384 * max(-float(advantage) * ratio, -float(advantage) * bounded) / 6
    assert (clipped == 6) == (size == 3.0)
    loss = ddpo(setting_of(small_image_backbone())).step_loss(step, advantages)
    assert loss.item() == pytest.approx(total, rel=1e-9)


def test_the_gradient_is_the_policy_gradient_until_the_ratio_is_clipped() -> None:
    algorithm = ddpo(setting_of(small_image_backbone()))
    drawn = torch.randn(2, 30, generator=torch.Generator().manual_seed(4)).double()
    shift = torch.zeros(2, 30, dtype=torch.float64, requires_grad=True)
    algorithm.step_loss(StepDensities(drawn, drawn, shift), torch.tensor([2.0, -1.0]).double()).backward()
    score = drawn  # d log N(edited - shift) / d shift at shift 0
    torch.testing.assert_close(shift.grad, -torch.tensor([[2.0], [-1.0]]).double() * score / 2)
    far = (0.5 * drawn).requires_grad_()  # makes the actions more probable by more than 1.6 nats
    step = StepDensities(drawn, drawn, far)
    assert step.log_ratio.min() > RATIO_SCALE * 1e-4
    algorithm.step_loss(step, torch.tensor([2.0, -1.0]).double()).backward()
    assert not far.grad[0].any()  # good enough already
    assert far.grad[1].any()  # too probable for a bad sample


def brightness_gained(algorithm, backbone, rounds, batch):
    """How much brighter the trained policy's samples are than the base model's, in standard deviations of these."""
    for _ in range(rounds):
        algorithm.tell(observed(backbone, algorithm.ask(batch), darkness))
    plans = [algorithm.ask(batch).plan, type(algorithm.ask(batch).plan)(4, None)]
    trained, base = (-darkness(plan.generate(backbone, FRESH).latents) for plan in plans)
    return float((trained - base).mean() / base.std())


def darkness(latents):
    return -latents.flatten(1).double().mean(1)


def test_samples_get_brighter() -> None:
    backbone = small_image_backbone(steps=4)
    assert brightness_gained(ddpo(setting_of(backbone, 16)), backbone, rounds=10, batch=16) > 0.5


def test_a_campaign_runs_and_goes_on_after_a_restart(tmp_path) -> None:
    def run(queries):
        return optimize(
            small_image_backbone(),
            lambda image: float(image.pixels.mean()),
            queries=queries,
            batch_size=4,
            algorithm="ddpo",
            run_dir=tmp_path / "run",
        )

    assert len(run(8).best(100)) == 8
    assert run(16).outcome.spent == 16


def test_a_campaign_on_a_backbone_without_a_network_ends_before_a_query(tmp_path) -> None:
    asked = []
    with pytest.raises(InputError, match="a network to adapt"):
        optimize("analytic", asked.append, queries=4, batch_size=4, algorithm="ddpo", run_dir=tmp_path / "run")
    assert not asked
