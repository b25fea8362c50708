"""LiDAR: contract, the gradient of the expected future reward, its references, better than chance."""

import pytest
import torch
from pydantic import ValidationError

from pilotwave.algorithms.lidar import LidarConfig
from pilotwave.algorithms.random_search import RandomSearchConfig
from pilotwave.backbones.analytic import AnalyticBackboneConfig
from pilotwave.testing.algorithm_contract import (
    AlgorithmContract,
    distance_to_corner,
    generated,
    observed,
    setting_of,
    small_backbone,
)
from pilotwave.testing.hidden_target import batch_means, distance_to_hidden_sample
from pilotwave.types import Draw


def lidar(setting, **options):
    return LidarConfig(kind="lidar", **options).build(setting)


class TestLidar(AlgorithmContract):
    learns_from_earlier_answers = False

    def make_algorithm(self, setting):
        return lidar(setting, lookahead_samples=3)


class TestLidarWithAllReferences(AlgorithmContract):
    def make_algorithm(self, setting):
        return lidar(setting, lookahead_samples=3, references="all", noise_limit=1.5)


def expected_future_reward(x, signal, sigma, points, rewards):
    """log E[exp(lambda r(x_0)) | x_t] over points that are equally likely a priori."""
    closeness = -(x - signal * points).square().sum(dim=1) / (2 * sigma**2)
    return torch.logsumexp(rewards + closeness, dim=0) - torch.logsumexp(closeness, dim=0)


def test_it_is_the_gradient_of_the_expected_future_reward():
    """Every edited noise against automatic differentiation of the reward, shifted as Tweedie's formula says."""
    backbone, weight, scale = small_backbone(), 2.0, 1.5
    algorithm = lidar(setting_of(backbone), lookahead_samples=7, reward_weight=weight, scale=scale)
    told = observed(backbone, algorithm.ask(7), distance_to_corner)
    algorithm.tell(told)
    points = torch.stack([item.candidate.latent for item in told]).double().flatten(1)
    losses = torch.tensor([item.loss for item in told], dtype=torch.float64)
    rewards = -weight * (losses - losses.mean()) / losses.std(correction=0)
    draws, batch = generated(backbone, algorithm.ask(3))
    for slot, draw in enumerate(draws):
        noise, expected = backbone.draw_noise([draw]), []

        def hook(state, clean, drawn, expected=expected):
            x = state.noisy.double().flatten().requires_grad_()
            expected_future_reward(x, state.signal_level, state.noise_level, points, rewards).backward()
            shift = state.noise_level**2 / state.signal_level * scale * x.grad.reshape(drawn.shape)
            expected.append((drawn + state.clean_weight / state.noise_weight * shift).float())
            return expected[-1]

        latent = backbone.sample(noise, batch.conditions[:1], noise_hook=hook)[0]
        torch.testing.assert_close(batch.noise_sequence[1:4, slot], torch.cat(expected), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(batch.latents[slot], latent, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(batch.noise_sequence[1, slot], noise[1, 0], atol=1e-3)


def is_guided(backbone, proposal):
    draws, batch = generated(backbone, proposal)
    return not torch.equal(batch.noise_sequence, backbone.draw_noise(draws))


def test_guidance_begins_when_enough_unguided_samples_have_answers():
    backbone = small_backbone()
    algorithm = lidar(setting_of(backbone), lookahead_samples=8)
    proposals = [algorithm.ask(5) for _ in range(2)]
    told = [observed(backbone, proposal, distance_to_corner) for proposal in proposals]
    algorithm.tell(told[1])
    assert not is_guided(backbone, algorithm.ask(5))
    algorithm.tell(told[0][:2])
    assert not is_guided(backbone, algorithm.ask(5))
    algorithm.tell(told[0])
    assert is_guided(backbone, algorithm.ask(5))


@pytest.mark.parametrize("references", ["unguided", "all"])
def test_answers_to_guided_samples_change_the_guidance_only_if_asked_to(references):
    backbone = small_backbone()
    algorithm = lidar(setting_of(backbone), lookahead_samples=8, references=references)
    unguided = [algorithm.ask(5) for _ in range(2)]
    told = [item for proposal in unguided for item in observed(backbone, proposal, distance_to_corner)]
    algorithm.tell(told[:9])
    guided = algorithm.ask(5)
    draws = [Draw.of(9, 9, slot) for slot in range(4)]
    algorithm.tell(observed(backbone, guided, distance_to_corner))
    after = algorithm.ask(5).plan.generate(backbone, draws).latents
    before = guided.plan.generate(backbone, draws).latents
    assert torch.equal(before, after) == (references == "unguided")
    algorithm.tell(told)  # the last unguided answer comes late and counts all the same
    assert not torch.equal(algorithm.ask(5).plan.generate(backbone, draws).latents, after)


@pytest.mark.parametrize("options", [{}, {"references": "all", "reward_weight": 1.0}])
def test_it_finds_a_hidden_target_that_random_search_does_not(options):
    backbone = AnalyticBackboneConfig(kind="analytic", dim=32, components=6).build()
    for seed in range(3):
        score = distance_to_hidden_sample(backbone, seed)
        setting = setting_of(backbone, batch_size=16)
        guided = batch_means(lidar(setting, **options), backbone, score, rounds=8)
        unguided = batch_means(RandomSearchConfig(kind="random").build(setting), backbone, score, rounds=8)
        assert guided[:4] == unguided[:4]
        assert sum(guided[-4:]) / 4 < min(unguided) - 0.5


@pytest.mark.parametrize("change", [lambda y: 1e6 * y, lambda y: y + 1e4, lambda y: 1e-200 * y])
def test_scale_and_shift_of_the_score_make_no_difference(change):
    backbone = small_backbone()
    plain, changed = (lidar(setting_of(backbone), lookahead_samples=5) for _ in range(2))
    for _ in range(3):
        proposals = [algorithm.ask(5) for algorithm in (plain, changed)]
        batches = [generated(backbone, proposal)[1] for proposal in proposals]
        torch.testing.assert_close(batches[0].latents, batches[1].latents, rtol=1e-4, atol=1e-4)
        plain.tell(observed(backbone, proposals[0], distance_to_corner))
        changed.tell(observed(backbone, proposals[0], lambda x: change(distance_to_corner(x))))


@pytest.mark.parametrize(
    "bad", [{"lookahead_samples": 1}, {"reward_weight": 0.0}, {"scale": -1.0}, {"references": "best"}]
)
def test_impossible_options_are_refused(bad):
    with pytest.raises(ValidationError):
        LidarConfig(kind="lidar", **bad)
