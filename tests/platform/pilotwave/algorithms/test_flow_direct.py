"""Flow-Direct: contract, a transcription of the formulas, invariances, better than chance, guidance that lasts."""

import math

import pytest
import torch
from pydantic import ValidationError

from pilotwave.algorithms.flow_direct import FlowDirectConfig
from pilotwave.algorithms.guided_sampling import seeded_normals
from pilotwave.algorithms.random_search import RandomSearchConfig
from pilotwave.algorithms.scored_archive import ScoredArchive
from pilotwave.backbones.analytic import AnalyticBackboneConfig
from pilotwave.protocols import StepState
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


def flow_direct(setting, **options):
    return FlowDirectConfig(kind="flow-direct", **options).build(setting)


class TestFlowDirect(AlgorithmContract):
    def make_algorithm(self, setting):
        return flow_direct(setting, field_size=4)


class TestFlowDirectAsInThePaper(AlgorithmContract):
    def make_algorithm(self, setting):
        return flow_direct(setting, path_noise="drawn", field_size=None, noise_limit=1.2)


def softmax(numbers):
    top = max(numbers)
    exponents = [math.exp(number - top) for number in numbers]
    return [exponent / sum(exponents) for exponent in exponents]


def transcription(x, signal, sigma, points, noises, rewards):
    """The field at one noisy sample, point by point."""
    dim = x.numel()
    logits = []
    for point, noise in zip(points, noises, strict=True):
        offset = x.double() - (signal * point.double() + sigma * noise.double())
        logits.append(-float(offset.square().sum()) / (2 * sigma**2 * math.sqrt(dim)))
    p = softmax(logits)
    q = softmax([logit + reward for logit, reward in zip(logits, rewards, strict=True)])
    return sum((b - a) * point.double() for a, b, point in zip(p, q, points, strict=True))


@pytest.mark.parametrize("path_noise", ["zero", "drawn"])
@pytest.mark.parametrize(("field_size", "fields"), [(None, [slice(0, 7)]), (3, [slice(0, 3), slice(3, 7)])])
def test_it_is_the_paper_s_formulas_value_by_value(path_noise, field_size, fields):
    """Every edited noise is the drawn one plus clean_weight / noise_weight times the sum of the fields."""
    backbone, strength = small_backbone(), 0.8
    algorithm = flow_direct(setting_of(backbone), strength=strength, path_noise=path_noise, field_size=field_size)
    told = observed(backbone, algorithm.ask(7), distance_to_corner)
    algorithm.tell(told)
    losses = [item.loss for item in told]
    mean = sum(losses) / 7
    spread = math.sqrt(sum((loss - mean) ** 2 for loss in losses) / 7)
    rewards = [(mean - loss) / spread for loss in losses]
    points = [item.candidate.latent for item in told]

    def noises_at(step):
        if path_noise == "zero":
            return [torch.zeros(3, 4)] * 7
        return [seeded_normals(item.candidate.seed, "path noise", step, (12,)).reshape(3, 4) for item in told]

    proposal = algorithm.ask(3)
    draws, batch = generated(backbone, proposal)
    for slot, draw in enumerate(draws):
        noise, expected = backbone.draw_noise([draw]), []

        def hook(state, clean, drawn, expected=expected):
            noises = noises_at(state.index)
            tilt = sum(
                transcription(
                    state.noisy[0], state.signal_level, state.noise_level, points[f], noises[f], rewards[f]
                )
                for f in fields
            )
            expected.append(drawn[0] + (state.clean_weight / state.noise_weight * strength * tilt).float())
            return expected[-1][None]

        latent = backbone.sample(noise, batch.conditions[:1], noise_hook=hook)[0]
        torch.testing.assert_close(batch.noise_sequence[1:4, slot], torch.stack(expected), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(batch.latents[slot], latent, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(batch.noise_sequence[1, slot], noise[1, 0], atol=1e-3)


def test_a_shift_of_the_clean_latent_is_the_field_over_one_minus_t_in_the_velocity():
    """x_t = t x_1 + (1 - t) eps: an Euler step at v + tilt / (1 - t) ends where one at x_1 + tilt does."""
    x, clean, tilt = torch.randn(3, 12, generator=torch.Generator().manual_seed(0)).double()
    t, step = 0.3, 0.1
    in_velocity = x + step * ((clean - x) / (1 - t) + tilt / (1 - t))
    in_clean = x + step * ((clean + tilt) - x) / (1 - t)
    torch.testing.assert_close(in_velocity, in_clean)


def test_large_archives_are_taken_in_blocks_and_high_dimensions_in_float32():
    random = torch.Generator().manual_seed(1)
    for count, shape in ((2500, (6,)), (40, (5000,))):
        latents, noisy = torch.randn(count, *shape, generator=random), torch.randn(2, *shape, generator=random)
        rewards = torch.randn(count, generator=random).double()
        state = StepState(0, 2, noisy, noise_level=0.8, signal_level=0.6, clean_weight=1.0, noise_weight=1.0)
        archive = ScoredArchive(latents, rewards, torch.zeros(count, 0, dtype=torch.int64), aligned=False)
        tilt = archive.tilt(small_backbone(), state, noisy, torch.zeros(2, 0), 1 / math.sqrt(shape[0]))
        offsets = (noisy[:, None] - 0.6 * latents).double().square().sum(dim=2)
        logits = -offsets / (2 * 0.8**2 * math.sqrt(shape[0]))
        weights = torch.softmax(logits + rewards, 1) - torch.softmax(logits, 1)
        torch.testing.assert_close(tilt, (weights @ latents.double()).float(), rtol=1e-3, atol=1e-4)


def test_it_finds_a_hidden_target_that_random_search_does_not():
    backbone = AnalyticBackboneConfig(kind="analytic", dim=32, components=6).build()
    for seed in range(3):
        score = distance_to_hidden_sample(backbone, seed)
        setting = setting_of(backbone, batch_size=16)
        guided = batch_means(flow_direct(setting), backbone, score, rounds=8)
        unguided = batch_means(RandomSearchConfig(kind="random").build(setting), backbone, score, rounds=8)
        assert guided[0] == unguided[0]
        assert sum(guided[-3:]) / 3 < min(unguided) - 0.5


def test_a_class_of_which_nothing_was_judged_is_guided_by_the_others():
    backbone = small_backbone(conditional=True)
    algorithm = flow_direct(setting_of(backbone))
    told = observed(backbone, algorithm.ask(30), distance_to_corner)
    algorithm.tell([item for item in told if int(item.candidate.condition) != 1])
    draws, batch = generated(backbone, algorithm.ask(20))
    start = backbone.draw_noise(draws)
    assert {0, 1, 2} == set(batch.conditions[:, 0].tolist())
    assert all(not torch.equal(batch.noise_sequence[:, place], start[:, place]) for place in range(20))


def test_what_was_learnt_guides_further_samples_without_a_query():
    backbone = AnalyticBackboneConfig(kind="analytic", dim=32, components=6).build()
    algorithm, score = flow_direct(setting_of(backbone)), distance_to_hidden_sample(backbone, 0)
    batch_means(algorithm, backbone, score, rounds=8)
    means = [float(score(generated(backbone, algorithm.ask(16))[1].latents).mean()) for _ in range(4)]
    assert max(means) < -0.8


@pytest.mark.parametrize("change", [lambda y: 1e6 * y, lambda y: y + 1e4, lambda y: 1e-200 * y])
def test_scale_and_shift_of_the_score_make_no_difference(change):
    backbone = small_backbone()
    plain, changed = flow_direct(setting_of(backbone)), flow_direct(setting_of(backbone))
    for _ in range(3):
        proposals = [algorithm.ask(5) for algorithm in (plain, changed)]
        batches = [generated(backbone, proposal)[1] for proposal in proposals]
        torch.testing.assert_close(batches[0].latents, batches[1].latents, rtol=1e-4, atol=1e-4)
        plain.tell(observed(backbone, proposals[0], distance_to_corner))
        changed.tell(observed(backbone, proposals[0], lambda x: change(distance_to_corner(x))))


def test_a_sample_does_not_depend_on_its_batch():
    backbone = small_backbone()
    algorithm = flow_direct(setting_of(backbone), path_noise="drawn")
    algorithm.tell(observed(backbone, algorithm.ask(8), distance_to_corner))
    plan = algorithm.ask(4).plan
    draws = [Draw.of(3, 1, slot) for slot in range(4)]
    together, alone = plan.generate(backbone, draws), plan.generate(backbone, draws[2:3])
    torch.testing.assert_close(together.latents[2], alone.latents[0], rtol=1e-5, atol=1e-5)


def test_equal_scores_and_a_single_answer_guide_nowhere():
    backbone = small_backbone()
    for count in (1, 5):
        algorithm = flow_direct(setting_of(backbone))
        algorithm.tell(observed(backbone, algorithm.ask(count), lambda x: torch.full((len(x),), 7.0)))
        proposal = algorithm.ask(5)
        draws, batch = generated(backbone, proposal)
        assert torch.equal(batch.noise_sequence, backbone.draw_noise(draws))


@pytest.mark.parametrize(
    "bad",
    [{"strength": 0.0}, {"strength": float("inf")}, {"field_size": 1}, {"path_noise": "own"}, {"noise_limit": 0.0}],
)
def test_impossible_options_are_refused(bad):
    with pytest.raises(ValidationError):
        FlowDirectConfig(kind="flow-direct", **bad)
