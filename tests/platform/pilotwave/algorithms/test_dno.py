"""Direct noise optimisation: contract, estimator and whole rounds written out, pairs, late answers, molecules."""

import dataclasses
import functools
import math
import random

import pytest
import torch
from pydantic import ValidationError

from pilotwave.algorithms.dno import DnoConfig
from pilotwave.algorithms.dno_plan import Role, estimate_gradient, perturbations, role_of
from pilotwave.algorithms.random_search import RandomSearchConfig
from pilotwave.algorithms.variation import generator_for
from pilotwave.backbones.analytic import AnalyticBackbone, synthetic_clusters
from pilotwave.backbones.molecule.backbone import MoleculeBackboneConfig
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


def dno(setting, **options):
    return DnoConfig(kind="dno", **options).build(setting)


class TestDno(AlgorithmContract):
    learns_from_earlier_answers = False

    tolerance = 0.0

    def make_algorithm(self, setting):
        return dno(setting)


class TestWithThreadsAndNoShell(AlgorithmContract):
    learns_from_earlier_answers = False

    tolerance = 0.0

    def make_algorithm(self, setting):
        return dno(setting, threads=3, keep_norm=False, regularisation=5.0, permutations=4, step_size=0.5)


class TestWithoutRegularisation(AlgorithmContract):
    learns_from_earlier_answers = False

    tolerance = 0.0

    def make_algorithm(self, setting):
        return dno(setting, threads=2, regularisation=0.0)


def test_the_estimate_is_its_formula_term_by_term():
    generator = torch.Generator().manual_seed(0)
    directions, losses = torch.randn(7, 2, 3, generator=generator), torch.randn(7, generator=generator)
    mean = sum(float(loss) for loss in losses) / 7
    for i in range(2):
        for j in range(3):
            expected = sum((float(losses[n]) - mean) * float(directions[n, i, j]) for n in range(7)) / (7 * 0.3)
            assert float(estimate_gradient(directions, losses, 0.3)[i, j]) == pytest.approx(expected)


@pytest.mark.parametrize("mirrored", [False, True])
def test_on_a_linear_function_the_estimate_converges_to_the_gradient(mirrored):
    generator = torch.Generator().manual_seed(1)
    gradient, mu = torch.randn(12, generator=generator, dtype=torch.float64), 0.2
    errors = []
    for count in (200, 20_000):
        directions = torch.randn(count, 12, generator=generator, dtype=torch.float64)
        if mirrored:
            directions = torch.cat([directions[: count // 2], -directions[: count // 2]])
        losses = 5.0 + mu * directions @ gradient
        estimate = estimate_gradient(directions, losses, mu)
        errors.append(float((estimate - gradient).norm() / gradient.norm()))
    assert errors[1] < 0.05
    # Ten times closer for a hundred times the draws.
    assert errors[1] < 0.25 * errors[0]


def test_mirrored_pairs_leave_even_terms_out():
    generator = torch.Generator().manual_seed(2)
    half = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    gradient = torch.arange(6.0, dtype=torch.float64)
    directions = torch.cat([half, -half])
    curved = 0.3 * directions @ gradient + 40 * (0.3 * directions).square().sum(dim=1)
    expected = estimate_gradient(directions, 0.3 * directions @ gradient, 0.3)
    torch.testing.assert_close(estimate_gradient(directions, curved, 0.3), expected)


def pair_directions(seeds, shape, used):
    """Directions of a batch by slot: slots 2j and 2j + 1 share that of slot 2j's seed, with opposite signs."""
    rows = []
    for slot in range(len(seeds)):
        normal = generator_for(seeds[slot - slot % 2], "perturbation").standard_normal(shape, dtype="float32")
        rows.append((-1) ** slot * torch.from_numpy(normal) * used)
    return torch.stack(rows)


def regulariser(noise, permutations, random_numbers):
    """Minus log p1 p2 of sub-vectors of four, in order and averaged over permutations (arXiv 2405.18881)."""
    orders = [torch.arange(len(noise))]
    orders += [torch.from_numpy(random_numbers.permutation(len(noise))) for _ in range(permutations)]
    total = 0.0
    for place, order in enumerate(orders):
        vectors = noise[order][: len(noise) // 4 * 4].reshape(-1, 4)
        count = len(vectors)
        first = vectors.mean(dim=0).norm()
        second = torch.linalg.matrix_norm(vectors.T @ vectors / count - torch.eye(4), ord=2)
        beyond = ((1 + second).sqrt() - 1 - math.sqrt(4 / count)).clamp(min=0)
        logs = (math.log(2) - count * first**2 / 8).clamp(max=0) + (math.log(2) - count * beyond**2 / 2).clamp(
            max=0
        )
        total = total - logs / (permutations if place else 1)
    return total


@pytest.mark.parametrize("keep_norm", [True, False])
def test_rounds_are_the_method_written_out(keep_norm):
    """One thread, four rounds of six, with automatic differentiation for the regulariser and torch's own Adam."""
    backbone, count, mu, gamma = small_backbone(), 6, 0.2, 0.7
    setting = setting_of(backbone, batch_size=count)
    algorithm = dno(setting, step_size=0.3, smoothing=mu, regularisation=gamma, permutations=3, keep_norm=keep_norm)
    unguided = observed(backbone, algorithm.ask(count), distance_to_corner)
    algorithm.tell(unguided)
    start = min(unguided, key=lambda item: item.loss).candidate.noise_sequence
    norms, used = start.flatten(1).norm(dim=1).double(), (start != 0).float()

    def on_shell(noise):
        length = noise.flatten(1).norm(dim=1).clamp(min=1e-30)
        return noise * (norms / length)[:, None, None] if keep_norm else noise

    point = start.double().requires_grad_(True)
    adam = torch.optim.Adam([point], lr=0.3, eps=1e-8 / math.sqrt(start.numel()))
    for number in range(1, 5):
        proposal = algorithm.ask(count)
        draws, batch = generated(backbone, proposal)
        directions = pair_directions([draw.seed for draw in draws], (5, 3, 4), used)
        for slot in range(count):
            expected = on_shell(point.detach() + mu * directions[slot].double())
            torch.testing.assert_close(batch.noise_sequence[:, slot].double(), expected, rtol=1e-4, atol=1e-5)
        answers = observed(backbone, proposal, distance_to_corner)
        algorithm.tell(answers)
        losses = torch.tensor([item.loss for item in answers], dtype=torch.float64)
        estimate = sum(
            (loss - losses.mean()) / (count * mu) * direction.double()
            for loss, direction in zip(losses, directions, strict=True)
        )
        numbers = generator_for(3, f"permutations of round {number - 1}, thread 0")
        (pull,) = torch.autograd.grad(regulariser(point[start != 0], 3, numbers), point)
        point.grad = estimate / estimate.norm() + gamma * pull
        adam.step()
        with torch.no_grad():
            point.copy_(on_shell(point))
    assert (point - start).norm() > 1


def test_pairs_mirror_each_other_and_threads_take_turns():
    backbone = small_backbone()
    algorithm = dno(setting_of(backbone), threads=2, keep_norm=False)
    algorithm.tell(observed(backbone, algorithm.ask(8), distance_to_corner))
    proposal = algorithm.ask(7)
    points = proposal.plan.points
    noise = generated(backbone, proposal)[1].noise_sequence
    for pair in range(3):
        middle = (noise[:, 2 * pair] + noise[:, 2 * pair + 1]) / 2
        torch.testing.assert_close(middle, points[pair % 2])
        assert (noise[:, 2 * pair] - middle).norm() > 0.1
    # The seventh has no mirror image: it perturbs the thread whose turn it is.
    assert (noise[:, 6] - points[1]).norm() < 0.2 * points[1].norm()


def test_redraws_go_their_own_way_about_a_thread():
    backbone = small_backbone()
    algorithm = dno(setting_of(backbone), threads=2, keep_norm=False)
    algorithm.tell(observed(backbone, algorithm.ask(8), distance_to_corner))
    proposal = algorithm.ask(4)
    redraws = [Draw.of(3, proposal.number, slot, attempt=1) for slot in range(4)]
    batch = proposal.plan.generate(backbone, redraws)
    seed = redraws[0].seed
    assert role_of(redraws[0].query_id, seed, proposal.plan.roles, 2) == Role(seed % 2, seed, 1.5)
    assert role_of("p0001-00.4", seed, {}, 2) == Role(seed % 2, seed, 3.0)
    assert role_of("anything", seed, {}, 2) == Role(seed % 2, seed, 1.0)
    first = generated(backbone, proposal)[1].noise_sequence
    for slot, draw in enumerate(redraws):
        point = proposal.plan.points[draw.seed % 2]
        assert 0.01 < (batch.noise_sequence[:, slot] - point).norm() / point.norm() < 0.2
        assert (first - batch.noise_sequence[:, slot : slot + 1]).flatten(2).norm(dim=2)[:4].min() > 0.01
        own = generator_for(draw.seed, "perturbation").standard_normal((5, 3, 4), dtype="float32")
        expected = point + 1.5 * 0.1 * torch.from_numpy(own) * (point != 0)
        torch.testing.assert_close(batch.noise_sequence[:, slot], expected)
        alone = proposal.plan.generate(backbone, [draw])
        assert torch.equal(alone.noise_sequence[:, 0], batch.noise_sequence[:, slot])


def test_perturbed_noise_and_points_keep_their_norm():
    backbone = small_backbone()
    algorithm = dno(setting_of(backbone), threads=2, step_size=1.0, smoothing=0.5)
    algorithm.tell(observed(backbone, algorithm.ask(6), distance_to_corner))
    starts = None
    for _ in range(5):
        proposal = algorithm.ask(6)
        norms = proposal.plan.points.flatten(2).norm(dim=2)
        starts = norms if starts is None else starts
        torch.testing.assert_close(norms, starts)
        noise = generated(backbone, proposal)[1].noise_sequence
        for slot in range(6):
            torch.testing.assert_close(noise[:, slot].flatten(1).norm(dim=1), starts[slot // 2 % 2])
        algorithm.tell(observed(backbone, proposal, distance_to_corner))


def test_late_answers_to_old_rounds_count_as_if_they_had_come_in_time():
    """The proposals in between were made without them, so both algorithms are asked the same."""
    backbone = small_backbone()
    algorithms = [dno(setting_of(backbone), threads=2) for _ in range(2)]
    first = observed(backbone, algorithms[0].ask(6), distance_to_corner)
    algorithms[1].ask(6)
    for algorithm in algorithms:
        algorithm.tell(first)
    kept = []
    for _ in range(8):
        answers = observed(backbone, algorithms[0].ask(6), distance_to_corner)
        algorithms[1].ask(6)
        kept += answers
        algorithms[0].tell(answers[:4])
        algorithms[1].tell(answers[:4])
    random.Random(0).shuffle(kept)
    for item in kept:
        algorithms[0].tell([item])
        algorithms[0].state_dict()
    algorithms[1].tell(kept)
    plans = [algorithm.ask(6).plan for algorithm in algorithms]
    assert torch.equal(plans[0].points, plans[1].points)
    early = dno(setting_of(backbone), threads=2)
    early.load_state_dict(algorithms[0].state_dict())
    early.tell(kept)
    assert torch.equal(early.ask(6).plan.points, algorithms[0].ask(6).plan.points)


def test_answers_to_what_it_never_asked_are_ignored():
    backbone = small_backbone()
    algorithm = dno(setting_of(backbone))
    answers = observed(backbone, algorithm.ask(5), distance_to_corner)
    strange = [
        Observation(dataclasses.replace(item.candidate, query_id=f"s{place}", proposal=99), Status.OK, -5.0)
        for place, item in enumerate(answers)
    ]
    algorithm.tell(strange)
    assert not len(algorithm.ask(5).plan.points)
    algorithm.tell(answers)
    best = min(answers, key=lambda item: item.loss).candidate.noise_sequence
    torch.testing.assert_close(algorithm.ask(5).plan.points[0], best)


def test_no_step_without_a_difference_between_answers():
    backbone = small_backbone()
    algorithm = dno(setting_of(backbone), regularisation=0.0)
    algorithm.tell(observed(backbone, algorithm.ask(5), distance_to_corner))
    before = algorithm.ask(4).plan.points
    proposal = algorithm.ask(4)
    algorithm.tell(observed(backbone, proposal, lambda latents: torch.ones(len(latents))))
    assert torch.equal(algorithm.ask(4).plan.points, before)


def least_of(backbone, score, seed):
    """The score of the hidden sample itself."""
    draw = Draw.of(77 + seed, 0, 0)
    return float(score(backbone.sample(backbone.draw_noise([draw]), backbone.draw_conditions([draw]))))


def one_cluster(dim=24):
    """A model whose samples differ continuously, so that a better start alone does not get far."""
    return AnalyticBackbone.fit(synthetic_clusters(dim, 1, 16, seed=2), components=1, rank=16, steps=6)


@pytest.mark.parametrize("options", [{}, {"threads": 2}, {"keep_norm": False, "regularisation": 0.0}])
def test_it_finds_a_hidden_target_that_random_search_does_not(options):
    backbone = one_cluster()
    setting = setting_of(backbone, batch_size=16)
    ratios = []
    for seed in range(3):
        score = distance_to_hidden_sample(backbone, seed)
        least = least_of(backbone, score, seed)
        guided = batch_means(dno(setting, **options), backbone, score)
        unguided = batch_means(RandomSearchConfig(kind="random").build(setting), backbone, score)
        assert guided[-1] < sum(unguided) / 12 - 1.3
        ratios.append((guided[-1] - least) / (guided[1] - least))
    # It is not the good start alone: steps take away most of what is left above the least possible score.
    assert sum(ratios) / 3 < 0.45


def test_single_queries_are_gathered_into_rounds():
    """Where one is asked at a time, two in a row make a step; it still learns."""
    backbone = one_cluster(12)
    score = distance_to_hidden_sample(backbone, 0)
    least = least_of(backbone, score, 0)
    algorithm = dno(setting_of(backbone, batch_size=1), step_size=0.1)
    means = batch_means(algorithm, backbone, score, rounds=100, batch=1)
    first, last = sum(means[1:11]) / 10 - least, sum(means[-10:]) / 10 - least
    assert last < 0.25 * first


def test_the_regulariser_keeps_free_noise_plausible():
    backbone = one_cluster()

    def brightness(latents):
        return -latents.flatten(1).double().mean(dim=1)

    lengths = []
    for gamma in (0.0, 1.0):
        algorithm = dno(setting_of(backbone, 16), keep_norm=False, regularisation=gamma, step_size=0.5)
        batch_means(algorithm, backbone, brightness, rounds=15)
        point = algorithm.ask(16).plan.points[0, :-1]
        lengths.append(float(point.square().mean()))
    assert lengths[0] > 2
    assert abs(lengths[1] - 1) < 0.4 * abs(lengths[0] - 1)


@functools.cache
def molecules():
    return MoleculeBackboneConfig(kind="molecule", steps=5).build("cpu")


def test_a_molecule_keeps_the_size_its_thread_began_with_and_padding_stays_empty():
    backbone = molecules()
    setting = AlgorithmSetting(backbone.latent_shape, 5, "molecule", 24, 3, conditions_are_free=True)

    def fewest_atoms(latents):
        return (latents != 0).any(dim=2).sum(dim=1).double() + latents.square().mean(dim=(1, 2)).double()

    algorithm = dno(setting, threads=3)
    first = observed(backbone, algorithm.ask(24), fewest_atoms)
    algorithm.tell(first)
    best = sorted(first, key=lambda item: item.loss)[:3]
    sizes = [int(item.candidate.condition) for item in best]
    assert sizes[0] < 9
    points = []
    for _ in range(3):
        proposal = algorithm.ask(6)
        points.append(proposal.plan.points)
        _, batch = generated(backbone, proposal)
        assert batch.conditions.flatten().tolist() == [sizes[slot // 2 % 3] for slot in range(6)]
        for noise, size in zip(
            batch.noise_sequence.transpose(0, 1), batch.conditions.flatten().tolist(), strict=True
        ):
            assert (noise[:, size:] == 0).all()
            assert (noise[-1] == 0).all()
            assert (noise[:5, :size] != 0).all()
        torch.testing.assert_close(backbone.sample(batch.noise_sequence, batch.conditions), batch.latents)
        algorithm.tell(observed(backbone, proposal, fewest_atoms))
    assert (points[2] - points[0]).flatten(1).norm(dim=1).min() > 0.1


def test_redraws_reach_beyond_the_molecules_that_are_known():
    """Most small perturbations decode to one molecule: a redraw that went no further would be drawn in vain."""
    backbone = molecules()
    setting = AlgorithmSetting(backbone.latent_shape, 5, "molecule", 16, 3, conditions_are_free=True)
    assert dno(setting).smoothing == 0.4
    assert dno(dataclasses.replace(setting, media="image")).smoothing == 0.1
    algorithm = dno(setting, smoothing=0.1)
    algorithm.tell(observed(backbone, algorithm.ask(16), distance_to_corner))
    proposal = algorithm.ask(16)
    distinct = []
    for attempt in (0, 6):
        batch = proposal.plan.generate(backbone, [Draw.of(3, 1, slot, attempt) for slot in range(16)])
        samples = [item for item in backbone.decode(batch.latents, batch.conditions) if hasattr(item, "media")]
        distinct.append(len({item.identity() for item in samples}))
    assert distinct[1] >= distinct[0] + 4


def test_redraws_count_in_the_estimate_by_how_far_they_went():
    """A round of redraws alone, on a linear function of the noise: each direction is divided by its scale."""
    backbone = small_backbone()
    algorithm = dno(setting_of(backbone), keep_norm=False, regularisation=0.0, step_size=0.3, smoothing=0.1)
    algorithm.tell(observed(backbone, algorithm.ask(8), distance_to_corner))
    proposal = algorithm.ask(6)
    start = proposal.plan.points[0]
    redraws = [Draw.of(3, proposal.number, slot, attempt=slot + 1) for slot in range(6)]
    batch = proposal.plan.generate(backbone, redraws)
    slopes = torch.randn(start.shape, generator=torch.Generator().manual_seed(4))
    losses = ((batch.noise_sequence - start[:, None]) * slopes[:, None]).sum(dim=(0, 2, 3)).double()
    known = observed(backbone, proposal, distance_to_corner)[0].candidate
    told = [
        Observation(
            dataclasses.replace(known, query_id=draw.query_id, seed=draw.seed), Status.OK, float(losses[place])
        )
        for place, draw in enumerate(redraws)
    ]
    algorithm.tell(told)
    expected = torch.zeros_like(start).double()
    for place, draw in enumerate(redraws):
        own = generator_for(draw.seed, "perturbation").standard_normal((5, 3, 4), dtype="float32")
        scale = 1.5 + 0.5 * place
        expected += (losses[place] - losses.mean()) * torch.from_numpy(own).double() * (start != 0) / scale
    # The first step of Adam is the sign of the gradient.
    moved = algorithm.ask(6).plan.points[0] - start
    assert torch.equal(moved.sign(), -expected.sign().float())


def test_a_shared_thread_serves_draws_of_every_condition():
    backbone = small_backbone(conditional=True)
    algorithm = dno(setting_of(backbone))
    algorithm.tell(observed(backbone, algorithm.ask(8), distance_to_corner))
    proposal = algorithm.ask(20)
    draws, batch = generated(backbone, proposal)
    assert torch.equal(batch.conditions, backbone.draw_conditions(draws))
    assert len(set(batch.conditions.flatten().tolist())) > 1
    used = perturbations([Role(0, 1, -1.0)], proposal.plan.points[0][:, None])
    assert torch.equal(used, -perturbations([Role(0, 1, 1.0)], proposal.plan.points[0][:, None]))


def test_a_state_of_other_latents_is_refused():
    state = dno(setting_of(small_backbone())).state_dict()
    with pytest.raises(ValueError, match="expected a state of latents of shape"):
        dno(setting_of(one_cluster())).load_state_dict(state)


@pytest.mark.parametrize(
    "bad",
    [
        {"threads": 0},
        {"step_size": 0.0},
        {"step_size": float("nan")},
        {"smoothing": -0.1},
        {"regularisation": -1.0},
        {"permutations": -1},
        {"mu": 0.1},
    ],
)
def test_impossible_options_are_refused(bad):
    with pytest.raises(ValidationError):
        DnoConfig(kind="dno", **bad)
