"""Noise search: contract, moves value by value, the beam as a function of the set, conditions, molecules."""

import dataclasses
import functools
import math
import random

import pytest
import torch
from pydantic import ValidationError

from pilotwave.algorithms.noise_search import Moves, NoiseSearchConfig, NoiseSearchPlan, vary
from pilotwave.algorithms.random_search import RandomSearchConfig
from pilotwave.algorithms.variation import generator_for
from pilotwave.backbones.analytic import AnalyticBackboneConfig
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


def noise_search(setting, **options):
    return NoiseSearchConfig(kind="noise-search", **options).build(setting)


class TestNoiseSearch(AlgorithmContract):
    tolerance = 0.0

    def make_algorithm(self, setting):
        return noise_search(setting)


class TestWithManyRedrawsAndOnePivot(AlgorithmContract):
    tolerance = 0.0

    def make_algorithm(self, setting):
        return noise_search(setting, beam=1, redraw_extreme=0.9, redraw_middle=0.4, radius=2.0)


def pivots_of(shape=(5, 2, 3, 4), seed=0):
    pivots = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    pivots[-1] = 0.0
    pivots[:, 1, 2] = 0.0
    return pivots


def test_moves_are_the_paper_s_value_by_value():
    """Each step by itself: fresh with its probability, else u * radius * sqrt(d) along a unit vector, norm kept."""
    pivots, moves = pivots_of(), Moves(0.4, 0.6, 0.2)
    draws = [Draw("a", 2**61 + 5), Draw("b", 17)]
    varied = vary(pivots, draws, moves)
    # Four entries are injected: the first and the last of them are extreme, the two between are a third of the way.
    probabilities = [0.6, 0.2 + 0.4 / 3, 0.2 + 0.4 / 3, 0.6]
    fresh_steps = 0
    for place, draw in enumerate(draws):
        chance = generator_for(draw.seed, "move").random((2, 5))
        fresh = generator_for(draw.seed, "far draw").standard_normal((5, 3, 4), dtype="float32")
        direction = generator_for(draw.seed, "local move").standard_normal((5, 3, 4), dtype="float32")
        for step in range(4):
            pivot = pivots[step, place].double()
            used = (pivot != 0).double()
            if chance[0, step] < probabilities[step]:
                expected = torch.from_numpy(fresh[step]).double() * used
                fresh_steps += 1
            else:
                way = torch.from_numpy(direction[step]).double() * used
                length = chance[1, step] * 0.4 * math.sqrt(float(used.sum()))
                expected = pivot + length * way / way.norm()
                expected = expected * pivot.norm() / expected.norm()
            torch.testing.assert_close(varied[step, place].double(), expected, rtol=1e-5, atol=1e-6)
    assert 0 < fresh_steps < 8
    assert (varied[pivots == 0] == 0).all()


def test_local_moves_keep_the_norm_and_stay_within_the_radius():
    pivots = torch.randn(9, 200, 6, 5, generator=torch.Generator().manual_seed(1))
    draws = [Draw(str(place), place) for place in range(200)]
    varied = vary(pivots, draws, Moves(0.3, 0.0, 0.0))
    torch.testing.assert_close(varied.flatten(2).norm(dim=2), pivots.flatten(2).norm(dim=2))
    distances = (varied - pivots).flatten(2).norm(dim=2) / 30**0.5
    assert distances.max() <= 0.3 * 1.2  # norms of 30 components vary, and the shell is curved
    assert distances.mean() == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(1, [0.5, 0.5]), (2, [0.5, 0.5, 0.5]), (3, [0.5, 0.1, 0.5, 0.5]), (5, [0.5, 0.3, 0.1, 0.3, 0.5, 0.5])],
)
def test_redraws_are_likeliest_at_the_extreme_steps(steps, expected):
    moves = Moves(0.3, 0.5, 0.1)
    torch.testing.assert_close(moves.redraw_probabilities(steps), torch.tensor(expected, dtype=torch.float64))


def test_redraws_happen_as_often_as_is_said():
    pivots = torch.ones(6, 1000, 4)
    far = vary(pivots, [Draw(str(place), place) for place in range(1000)], Moves(0.01, 0.5, 0.1))
    often = ((far - pivots).flatten(2).norm(dim=2) > 0.2).double().mean(dim=1)
    torch.testing.assert_close(
        often, torch.tensor([0.5, 0.3, 0.1, 0.3, 0.5, 0.5], dtype=torch.float64), rtol=0.0, atol=0.05
    )


def told(name, loss, condition=(), value=0.0):
    item = observed(small_backbone(), noise_search(setting_of(small_backbone())).ask(1), distance_to_corner)[0]
    fields = {
        **vars(item.candidate),
        "query_id": name,
        "condition": torch.tensor(condition, dtype=torch.int64),
        "noise_sequence": torch.full_like(item.candidate.noise_sequence, value),
    }
    return Observation(type(item.candidate)(**fields), Status.OK, loss)


@pytest.mark.parametrize("free", [False, True])
def test_the_beam_is_a_function_of_the_set_of_answers(free):
    """Told one by one in any order, forgetting all but the beam each time, it ends as if all were known at once."""
    shuffle = random.Random(5)
    answers = [
        told(f"q{place:02d}", float(shuffle.randrange(8)), (shuffle.randrange(3),), place) for place in range(30)
    ]
    ordered = sorted(answers, key=lambda item: (item.loss, item.candidate.query_id))
    if not free:
        kinds = [int(item.candidate.condition) for item in ordered]
        ranks = [kinds[:place].count(kind) for place, kind in enumerate(kinds)]
        ordered = [ordered[place] for place in sorted(range(30), key=lambda place: (ranks[place], place))]
    expected = [item.candidate.query_id for item in ordered[:5]]
    for _ in range(10):
        shuffle.shuffle(answers)
        algorithm = noise_search(
            dataclasses.replace(setting_of(small_backbone()), conditions_are_free=free), beam=5
        )
        for item in answers:
            algorithm.tell([item])
        assert algorithm.state_dict()["beam_ids"] == expected
        noise = algorithm.ask(1).plan.pivots
        assert noise[:, 0, 0, 0].tolist() == [float(name[1:]) for name in expected]


def test_memory_is_bounded():
    algorithm = noise_search(setting_of(small_backbone()), beam=3)
    backbone = small_backbone()
    for _ in range(10):
        algorithm.tell(observed(backbone, algorithm.ask(5), distance_to_corner))
    state = algorithm.state_dict()
    assert state["beam_noise"].shape == (3, 5, 3, 4)
    assert len(state["told"]) == 50


def test_pivots_of_the_draw_s_condition_are_preferred_and_all_will_do_otherwise():
    backbone = small_backbone(conditional=True)
    pivots = torch.stack([torch.full((5, 3, 4), float(place + 1)) for place in range(4)])
    plan = NoiseSearchPlan(pivots, torch.tensor([[0], [1], [0], [1]]), Moves(1e-6, 0.0, 0.0), False)
    draws = [Draw.of(1, 0, slot) for slot in range(60)]
    batch = plan.generate(backbone, draws)
    chosen = (batch.noise_sequence[0, :, 0, 0].round() - 1).long()
    assert torch.equal(batch.conditions, backbone.draw_conditions(draws))
    for kind, expected in ((0, {0, 2}), (1, {1, 3}), (2, {0, 1, 2, 3})):
        assert set(chosen[batch.conditions[:, 0] == kind].tolist()) == expected


def test_a_sample_does_not_depend_on_the_batch():
    backbone = small_backbone()
    algorithm = noise_search(setting_of(backbone))
    algorithm.tell(observed(backbone, algorithm.ask(8), distance_to_corner))
    proposal = algorithm.ask(6)
    draws, batch = generated(backbone, proposal)
    alone = proposal.plan.generate(backbone, [draws[4]])
    assert torch.equal(alone.noise_sequence[:, 0], batch.noise_sequence[:, 4])


def test_a_state_of_other_noise_is_refused():
    state = noise_search(setting_of(small_backbone())).state_dict()
    other = dataclasses.replace(setting_of(small_backbone()), steps=7)
    with pytest.raises(ValueError, match="expected a state of noise of shape"):
        noise_search(other).load_state_dict(state)


@pytest.mark.parametrize(
    "bad",
    [
        {"beam": 0},
        {"radius": 0.0},
        {"radius": float("inf")},
        {"redraw_extreme": 1.5},
        {"redraw_middle": -0.1},
        {"lambda": 0.15},
    ],
)
def test_impossible_options_are_refused(bad):
    with pytest.raises(ValidationError):
        NoiseSearchConfig(kind="noise-search", **bad)


def test_it_finds_a_hidden_target_that_random_search_does_not():
    backbone = AnalyticBackboneConfig(kind="analytic", dim=32, components=6).build()
    setting = setting_of(backbone, batch_size=16)
    for seed in range(3):
        score = distance_to_hidden_sample(backbone, seed)
        guided = batch_means(noise_search(setting), backbone, score)
        unguided = batch_means(RandomSearchConfig(kind="random").build(setting), backbone, score)
        assert sum(guided[-4:]) / 4 < sum(unguided) / 12 - 1.2


@functools.cache
def molecules():
    return MoleculeBackboneConfig(kind="molecule", steps=5).build("cpu")


def test_a_molecule_takes_the_size_of_its_pivot_and_padding_stays_empty():
    backbone = molecules()
    setting = AlgorithmSetting(backbone.latent_shape, 5, "molecule", 6, 3, conditions_are_free=True)
    algorithm = noise_search(setting, redraw_extreme=0.5)

    def fewest_atoms(latents):
        return (latents != 0).any(dim=2).sum(dim=1).double()

    first = observed(backbone, algorithm.ask(24), fewest_atoms)
    assert {len(item.candidate.condition) for item in first} == {1}
    algorithm.tell(first)
    best = sorted(first, key=lambda item: (item.loss, item.candidate.query_id))[:4]
    sizes = [int(item.candidate.condition) for item in best]
    draws, batch = generated(backbone, algorithm.ask(6))
    assert set(batch.conditions.flatten().tolist()) <= set(sizes)
    assert not torch.equal(batch.conditions, backbone.draw_conditions(draws))
    for noise, size in zip(batch.noise_sequence.transpose(0, 1), batch.conditions.flatten().tolist(), strict=True):
        assert (noise[:, size:] == 0).all()
        assert (noise[-1] == 0).all()
        assert (noise[:5, :size] != 0).all()
    torch.testing.assert_close(backbone.sample(batch.noise_sequence, batch.conditions), batch.latents)
    assert batch.latents.isfinite().all()
