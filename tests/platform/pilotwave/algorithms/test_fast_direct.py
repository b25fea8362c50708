"""Fast Direct: contract, a transcription of the formulas, defaults, conditions, symmetry, better than chance."""

import dataclasses
import math

import pytest
import torch
from pydantic import ValidationError

from pilotwave.algorithms.fast_direct import FastDirectConfig
from pilotwave.algorithms.fast_direct_plan import BestGuide, FastDirectPlan, move_noise
from pilotwave.algorithms.random_search import RandomSearchConfig
from pilotwave.backbones.analytic import AnalyticBackbone, AnalyticBackboneConfig, synthetic_clusters
from pilotwave.config.components import AlgorithmSetting
from pilotwave.testing.algorithm_contract import (
    AlgorithmContract,
    distance_to_corner,
    generated,
    observed,
    setting_of,
    small_backbone,
)
from pilotwave.testing.hidden_target import batch_means, distance_to_hidden_sample
from pilotwave.types import Draw, Observation, Status


def fast_direct(setting, **options):
    return FastDirectConfig(kind="fast-direct", **options).build(setting)


class TestWithProcess(AlgorithmContract):
    def make_algorithm(self, setting):
        return fast_direct(setting)


class TestWithStandardisedScores(AlgorithmContract):
    def make_algorithm(self, setting):
        return fast_direct(setting, scores="standardised", max_repetitions=2, noise=0.01)


class TestWithBest(AlgorithmContract):
    def make_algorithm(self, setting):
        return fast_direct(setting, surrogate="best", step_size=0.2)


class TestAligned(AlgorithmContract):
    def make_algorithm(self, setting):
        molecule = dataclasses.replace(setting, media="molecule")
        return fast_direct(molecule, surrogate="gaussian-process", step_size=0.3)


def transcription(backbone, alpha, rounds, batch, score, outputscale, noise_variance, pseudo="process"):
    """The paper's formulas, sample by sample and point by point, with nothing shared or batched."""
    known_x, known_y, history = [], [], []

    def gradient(x):
        points = torch.stack(known_x).double().flatten(1)
        count, dim = points.shape
        kernel = torch.zeros(count, count, dtype=torch.float64)
        for i in range(count):
            for j in range(count):
                kernel[i, j] = outputscale * math.exp(-float((points[i] - points[j]).square().sum()) / (2 * dim))
        noisy = kernel + noise_variance * torch.eye(count)
        weights = torch.linalg.inv(noisy) @ torch.tensor(known_y, dtype=torch.float64)
        total = torch.zeros(dim, dtype=torch.float64)
        for weight, point in zip(weights, points, strict=True):
            offset = x.double().flatten() - point
            total -= weight * outputscale * torch.exp(-offset.square().sum() / (2 * dim)) * offset / dim
        return total.reshape(x.shape).float()

    for number in range(rounds):
        finished = []
        for slot in range(batch):
            draw = [Draw.of(3, number, slot)]
            epsilon, condition = backbone.draw_noise(draw), backbone.draw_conditions(draw)
            norms = [float(step.norm()) for step in epsilon]
            for _ in range(number + 1):
                x = backbone.sample(epsilon, condition)[0]
                target = x
                if known_x and pseudo == "process":
                    target = x - gradient(x)
                elif known_x:
                    target = known_x[min(range(len(known_y)), key=known_y.__getitem__)]
                made_by = epsilon
                epsilon = torch.stack(
                    [
                        step + alpha * (target - x) if norm > 0 else step
                        for step, norm in zip(epsilon, norms, strict=True)
                    ]
                )
                epsilon = torch.stack(
                    [
                        step * (norm / float(step.norm())) if norm > 0 else step
                        for step, norm in zip(epsilon, norms, strict=True)
                    ]
                )
            finished.append((made_by[:, 0], x))
        history.append(finished)
        for _, x in finished:
            known_x.append(x)
            known_y.append(float(score(x[None])[0]))
    return history


@pytest.mark.parametrize("pseudo", ["process", "best"])
def test_it_is_the_paper_s_formulas_value_by_value(pseudo):
    backbone, alpha, noise_variance = small_backbone(), 0.4, 0.01
    algorithm = fast_direct(
        setting_of(backbone),
        step_size=alpha,
        noise=noise_variance,
        surrogate="gaussian-process" if pseudo == "process" else "best",
    )
    expected = transcription(backbone, alpha, 5, 3, distance_to_corner, math.log(2), noise_variance, pseudo)
    for number, finished in enumerate(expected):
        proposal = algorithm.ask(3)
        _, batch = generated(backbone, proposal)
        assert batch.passes == number + 1
        for slot, (epsilon, x) in enumerate(finished):
            torch.testing.assert_close(batch.noise_sequence[:, slot], epsilon, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(batch.latents[slot], x, rtol=1e-3, atol=1e-3)
        algorithm.tell(observed(backbone, proposal, distance_to_corner))


@pytest.mark.parametrize("options", [{}, {"scores": "standardised"}, {"surrogate": "best", "step_size": 0.1}])
def test_it_finds_a_hidden_target_that_random_search_does_not(options):
    backbone = AnalyticBackboneConfig(kind="analytic", dim=32, components=6).build()
    for seed in range(3):
        score = distance_to_hidden_sample(backbone, seed)
        setting = setting_of(backbone, batch_size=16)
        guided = batch_means(fast_direct(setting, **options), backbone, score, rounds=10)
        unguided = batch_means(RandomSearchConfig(kind="random").build(setting), backbone, score, rounds=10)
        assert min(guided[5:]) < min(unguided) - 1.0
        assert guided[-1] < -1.0


def test_repetitions_grow_with_the_rounds_up_to_a_bound():
    backbone = small_backbone()
    for bound, expected in ((None, [1, 2, 3, 4, 5]), (3, [1, 2, 3, 3, 3])):
        algorithm = fast_direct(setting_of(backbone), max_repetitions=bound)
        passes = []
        for _ in range(5):
            proposal = algorithm.ask(2)
            passes.append(generated(backbone, proposal)[1].passes)
            algorithm.tell(observed(backbone, proposal, distance_to_corner))
        assert passes == expected


def test_without_an_answer_the_sampler_runs_once():
    backbone = small_backbone()
    algorithm = fast_direct(setting_of(backbone))
    assert [generated(backbone, algorithm.ask(2))[1].passes for _ in range(3)] == [1, 1, 1]


def test_noise_keeps_its_norm_per_step_and_sample():
    backbone = small_backbone()
    algorithm = fast_direct(setting_of(backbone), step_size=5.0)
    for _ in range(4):
        proposal = algorithm.ask(5)
        draws, batch = generated(backbone, proposal)
        start = backbone.draw_noise(draws)
        torch.testing.assert_close(batch.noise_sequence.flatten(2).norm(dim=2), start.flatten(2).norm(dim=2))
        algorithm.tell(observed(backbone, proposal, distance_to_corner))
    assert not torch.allclose(batch.noise_sequence, start)


def test_moving_noise_spares_what_is_unused_and_survives_anything():
    start = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(0))
    start[:, 1, 4:] = 0.0
    directions = torch.ones(3, 6)
    moved = move_noise(start, start, directions, 0.5)
    assert (moved[:, 1, 4:] == 0).all()
    expected = start[2, 0] + 0.5
    torch.testing.assert_close(moved[2, 0], expected * start[2, 0].norm() / expected.norm())
    directions[0], directions[2, 0] = 3e38, float("nan")
    moved = move_noise(start, start, directions, 80.0)
    assert moved.isfinite().all()
    torch.testing.assert_close(moved[:, 0], start[:, 0].norm(dim=1, keepdim=True).expand(4, 6) / 6**0.5)
    torch.testing.assert_close(moved[:, 2], start[:, 2])


def test_the_best_target_has_the_sample_s_condition():
    backbone = small_backbone(conditional=True)
    algorithm = fast_direct(setting_of(backbone), surrogate="best", step_size=0.3)
    observations = observed(backbone, algorithm.ask(40), distance_to_corner)
    only = [item for item in observations if int(item.candidate.condition) != 2]
    assert {int(item.candidate.condition) for item in observations} == {0, 1, 2}
    algorithm.tell(only)
    proposal = algorithm.ask(30)
    draws, batch = generated(backbone, proposal)
    unguided = backbone.sample(backbone.draw_noise(draws), batch.conditions)
    for kind in (0, 1):
        best = min((item for item in only if int(item.candidate.condition) == kind), key=lambda item: item.loss)
        chosen = batch.conditions[:, 0] == kind
        before, after = (
            (latents[chosen] - best.candidate.latent).flatten(1).norm(dim=1)
            for latents in (unguided, batch.latents)
        )
        assert (after < before).all()
    unknown = batch.conditions[:, 0] == 2
    assert unknown.any()
    torch.testing.assert_close(batch.latents[unknown], unguided[unknown])


def test_equal_bests_are_chosen_by_name_whatever_the_order():
    backbone = small_backbone()
    algorithms = [fast_direct(setting_of(backbone), surrogate="best", step_size=0.3) for _ in range(2)]
    observations = observed(backbone, algorithms[0].ask(6), lambda latents: torch.ones(len(latents)))
    algorithms[1].ask(6)
    algorithms[0].tell(observations)
    algorithms[1].tell(observations[::-1])
    first, second = (generated(backbone, algorithm.ask(4))[1].latents for algorithm in algorithms)
    assert torch.equal(first, second)


class PlanarPoints(AnalyticBackbone):
    """Latents are six points in the plane about their centre, which have no frame: aligned by Kabsch's rotation."""

    def align(self, moving, fixed, conditions=None):
        left, _, right = torch.linalg.svd(moving.mT @ fixed)
        sign = torch.det(left @ right).sign()
        flip = torch.stack([torch.ones_like(sign), sign], dim=1)
        return moving @ (left * flip[:, None, :] @ right)


def planar_backbone():
    shape = torch.randn(6, 2, generator=torch.Generator().manual_seed(3))
    noise = 0.3 * torch.randn(400, 6, 2, generator=torch.Generator().manual_seed(4))
    angles = 2 * math.pi * torch.rand(400, generator=torch.Generator().manual_seed(5))
    rotation = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], dim=1).reshape(-1, 2, 2)
    data = (shape + noise) @ rotation
    return PlanarPoints.fit((data - data.mean(dim=1, keepdim=True)).numpy(), components=24, rank=4)


def rotated(latent, angle):
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return latent @ turn


@pytest.mark.parametrize("surrogate", ["best", "gaussian-process"])
def test_with_symmetry_the_frame_of_an_answer_does_not_matter(surrogate):
    """Rotating every judged latent changes no pseudo-target (the process: but for one common reference)."""
    backbone = planar_backbone()
    setting = AlgorithmSetting(backbone.latent_shape, backbone.steps, "molecule", 8, 0)
    batches = []
    for turned in (False, True):
        algorithm = fast_direct(setting, surrogate=surrogate, step_size=0.3, noise=0.1)
        told = []
        for i, item in enumerate(observed(backbone, algorithm.ask(8), distance_to_corner)):
            angle = (i + 1) * 0.7 if turned else 0.0
            fields = {**vars(item.candidate), "latent": rotated(item.candidate.latent, angle)}
            told.append(Observation(type(item.candidate)(**fields), Status.OK, item.loss))
        algorithm.tell(told)
        batches.append(generated(backbone, algorithm.ask(8))[1].latents)
    torch.testing.assert_close(batches[0], batches[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("surrogate", ["best", "gaussian-process"])
def test_with_symmetry_it_still_finds_better_shapes(surrogate):
    backbone = planar_backbone()
    setting = AlgorithmSetting(backbone.latent_shape, backbone.steps, "molecule", 16, 0)

    def width(latents):
        """A loss that no rotation changes: the distance between the first two points, wanted small."""
        return (latents[:, 0] - latents[:, 1]).norm(dim=1).double()

    guided = batch_means(
        fast_direct(setting, surrogate=surrogate, step_size=0.2, noise=0.1), backbone, width, rounds=10
    )
    unguided = batch_means(RandomSearchConfig(kind="random").build(setting), backbone, width, rounds=10)
    assert guided[-1] < 0.7 * min(unguided)


def test_molecules_of_other_sizes_are_no_targets():
    """A latent with unused slots is only drawn towards its like, and its unused slots stay empty."""
    best = {(2,): torch.ones(3, 2), (3,): -torch.ones(3, 2)}
    guide = BestGuide(best).bind(small_backbone())
    targets = guide(torch.zeros(3, 3, 2), torch.tensor([[3], [2], [1]]))
    torch.testing.assert_close(targets, torch.stack([best[(3,)], best[(2,)], torch.zeros(3, 2)]))


def test_defaults_follow_the_reference_by_media():
    image = fast_direct(AlgorithmSetting((4, 128, 128), 8, "image", 32, 0))
    assert (image.step_size, image.surrogate, image.aligned) == (80.0, "gaussian-process", False)
    assert (image.settings.noise, image.settings.scaling) == (1e-4, "raw")
    molecule = fast_direct(AlgorithmSetting((9, 13), 50, "molecule", 16, 0))
    assert (molecule.step_size, molecule.surrogate, molecule.aligned) == (0.1, "best", True)
    assert molecule.settings.noise == 1.0
    chosen = fast_direct(AlgorithmSetting((9, 13), 50, "molecule", 16, 0), step_size=0.5, noise=0.0)
    assert (chosen.step_size, chosen.settings.noise) == (0.5, 0.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"step_size": 0.0},
        {"step_size": -1.0},
        {"step_size": float("nan")},
        {"step_size": float("inf")},
        {"max_repetitions": 0},
        {"noise": -1e-3},
        {"lengthscale": 0.0},
        {"surrogate": "forest"},
        {"scores": "ranked"},
        {"alpha": 1.0},
    ],
)
def test_impossible_options_are_refused(bad):
    with pytest.raises(ValidationError):
        FastDirectConfig(kind="fast-direct", **bad)


def test_a_latent_that_is_not_finite_is_not_learnt():
    backbone = small_backbone()
    algorithm, plain = fast_direct(setting_of(backbone)), fast_direct(setting_of(backbone))
    observations = observed(backbone, algorithm.ask(5), distance_to_corner)
    plain.ask(5)
    broken = type(observations[0].candidate)(
        **{**vars(observations[0].candidate), "query_id": "x", "latent": torch.full((3, 4), float("nan"))}
    )
    algorithm.tell([Observation(broken, Status.OK, -100.0), *observations])
    plain.tell(observations)
    left, right = (generated(backbone, one.ask(5))[1].latents for one in (algorithm, plain))
    assert torch.equal(left, right)


def test_a_failure_that_succeeds_later_is_learnt():
    backbone = small_backbone()
    algorithm, plain = fast_direct(setting_of(backbone)), fast_direct(setting_of(backbone))
    observations = observed(backbone, algorithm.ask(5), distance_to_corner)
    plain.ask(5)
    algorithm.tell([Observation(item.candidate, Status.FAILED, None) for item in observations])
    for one in (algorithm, plain):
        one.tell(observations)
    left, right = (generated(backbone, one.ask(5))[1].latents for one in (algorithm, plain))
    assert torch.equal(left, right)


def test_a_state_of_other_latents_is_refused():
    state = fast_direct(setting_of(small_backbone())).state_dict()
    other = AnalyticBackbone.fit(synthetic_clusters(5, 2, 1, seed=0, count=50), components=2, rank=1)
    with pytest.raises(ValueError, match="expected a state of latents of shape"):
        fast_direct(setting_of(other)).load_state_dict(state)


def test_a_plan_is_asked_for_repetitions_it_can_do():
    plan = FastDirectPlan(repetitions=1, step_size=1.0, guide=None)
    assert plan.generate(small_backbone(), [Draw("q", 1)]).passes == 1
