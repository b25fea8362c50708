"""Training-free guidance: contract, a transcription of the formulas, schedules, invariances, better than chance."""

import math

import pytest
import torch
from pydantic import ValidationError

from pilotwave.algorithms.guided_sampling import seeded_normals
from pilotwave.algorithms.random_search import RandomSearchConfig
from pilotwave.algorithms.tfg import TrainingFreeGuidanceConfig
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


def tfg(setting, **options):
    return TrainingFreeGuidanceConfig(kind="tfg", **options).build(setting)


class TestTrainingFreeGuidance(AlgorithmContract):
    def make_algorithm(self, setting):
        return tfg(setting)


class TestWithoutSmoothing(AlgorithmContract):
    def make_algorithm(self, setting):
        return tfg(setting, smoothing=0.0, schedule="increase", iterations=1, noise_limit=1.5)


def posterior_mean(x, points, targets, lengthscale, noise):
    """Of an RBF process with unit output scale, by an explicit inverse; differentiable in x (n, dim)."""

    def kernel(a, b):
        return torch.exp(-(a[:, None] - b).square().sum(dim=2) / (2 * lengthscale**2))

    inverse = torch.linalg.inv(kernel(points, points) + noise * torch.eye(len(points)))
    return kernel(x, points) @ inverse @ targets


def signal_levels(backbone):
    """Of every step, as the sampler itself goes through them."""
    levels, draws = [], [Draw.of(0, 0, 0)]

    def hook(state, clean):
        levels.append(state.signal_level)
        return clean

    backbone.sample(backbone.draw_noise(draws), backbone.draw_conditions(draws), hook=hook)
    return levels


@pytest.mark.parametrize("schedule", ["increase", "constant"])
@pytest.mark.parametrize(("smoothing", "perturbations"), [(0.0, 1), (0.7, 3)])
def test_it_is_the_paper_s_formulas_value_by_value(schedule, smoothing, perturbations):
    backbone, mu, noise_variance, iterations = small_backbone(), 0.08, 0.05, 3
    algorithm = tfg(
        setting_of(backbone),
        step_size=mu,
        iterations=iterations,
        schedule=schedule,
        smoothing=smoothing,
        perturbations=perturbations,
        noise=noise_variance,
    )
    told = observed(backbone, algorithm.ask(7), distance_to_corner)
    algorithm.tell(told)
    points = torch.stack([item.candidate.latent for item in told]).double().flatten(1)
    losses = torch.tensor([item.loss for item in told], dtype=torch.float64)
    targets = (losses - losses.mean()) / losses.std(correction=0)
    draws, batch = generated(backbone, algorithm.ask(3))
    levels = signal_levels(backbone)
    for slot, draw in enumerate(draws):
        noise, expected = backbone.draw_noise([draw]), []

        def hook(state, clean, drawn, draw=draw, expected=expected):
            share = state.signal_level**2  # the analytic backbone preserves the variance
            growth = share / levels[state.index + 1] ** 2
            delta = seeded_normals(draw.seed, "smoothing", state.index, (perturbations, 12)).double()
            x = clean.double().flatten()
            for _ in range(iterations):
                x = x.detach().requires_grad_()
                near = x + smoothing * math.sqrt(1 - share) * delta
                means = posterior_mean(near, points, targets, math.sqrt(12), noise_variance)
                (torch.logsumexp(-means, dim=0) - math.log(perturbations)).backward()
                x = x.detach() + mu * 12 * (growth if schedule == "increase" else 1.0) * x.grad
            shift = x.detach().reshape(drawn.shape) - clean
            expected.append((drawn + state.clean_weight / state.noise_weight * shift).float())
            return expected[-1]

        latent = backbone.sample(noise, batch.conditions[:1], noise_hook=hook)[0]
        torch.testing.assert_close(batch.noise_sequence[1:4, slot], torch.cat(expected), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(batch.latents[slot], latent, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(batch.noise_sequence[3, slot], noise[3, 0], atol=1e-2)


@pytest.mark.parametrize("options", [{}, {"schedule": "increase", "smoothing": 0.0, "step_size": 0.2}])
def test_it_finds_a_hidden_target_that_random_search_does_not(options):
    backbone = AnalyticBackboneConfig(kind="analytic", dim=32, components=6).build()
    for seed in range(3):
        score = distance_to_hidden_sample(backbone, seed)
        setting = setting_of(backbone, batch_size=16)
        guided = batch_means(tfg(setting, **options), backbone, score, rounds=8)
        unguided = batch_means(RandomSearchConfig(kind="random").build(setting), backbone, score, rounds=8)
        assert guided[0] == unguided[0]
        assert sum(guided[-3:]) / 3 < min(unguided) - 0.5


@pytest.mark.parametrize("change", [lambda y: 1e6 * y, lambda y: y + 1e4, lambda y: 1e-200 * y])
def test_scale_and_shift_of_the_score_make_no_difference(change):
    backbone = small_backbone()
    plain, changed = tfg(setting_of(backbone)), tfg(setting_of(backbone))
    for _ in range(3):
        proposals = [algorithm.ask(5) for algorithm in (plain, changed)]
        batches = [generated(backbone, proposal)[1] for proposal in proposals]
        torch.testing.assert_close(batches[0].latents, batches[1].latents, rtol=1e-4, atol=1e-4)
        plain.tell(observed(backbone, proposals[0], distance_to_corner))
        changed.tell(observed(backbone, proposals[0], lambda x: change(distance_to_corner(x))))


def test_a_sample_does_not_depend_on_its_batch():
    backbone = small_backbone()
    algorithm = tfg(setting_of(backbone), smoothing=1.0)
    algorithm.tell(observed(backbone, algorithm.ask(8), distance_to_corner))
    plan = algorithm.ask(4).plan
    draws = [Draw.of(3, 1, slot) for slot in range(4)]
    together, alone = plan.generate(backbone, draws), plan.generate(backbone, draws[2:3])
    torch.testing.assert_close(together.latents[2], alone.latents[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        {"step_size": 0.0},
        {"iterations": 0},
        {"schedule": "decrease"},
        {"smoothing": -0.1},
        {"perturbations": 0},
        {"noise": 0.0},
        {"lengthscale": 0.0},
        {"rho": 1.0},
    ],
)
def test_impossible_options_are_refused(bad):
    with pytest.raises(ValidationError):
        TrainingFreeGuidanceConfig(kind="tfg", **bad)
