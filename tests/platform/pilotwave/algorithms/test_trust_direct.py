from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pilotwave.algorithms import trust_direct, trust_direct_plan
from pilotwave.algorithms.random_search import RandomSearch
from pilotwave.algorithms.trust_direct import TrustDirect, TrustDirectConfig
from pilotwave.algorithms.trust_direct_plan import TrustDirectPlan, limited_drift, moved
from pilotwave.backbones.analytic import AnalyticBackboneConfig
from pilotwave.backbones.molecule.backbone import MoleculeBackboneConfig
from pilotwave.config.components import AlgorithmSetting
from pilotwave.protocols import Algorithm, Backbone
from pilotwave.testing.algorithm_contract import (
    AlgorithmContract,
    Score,
    distance_to_corner,
    generated,
    observed,
    setting_of,
    small_backbone,
)
from pilotwave.testing.hidden_target import batch_means, distance_to_hidden_sample
from pilotwave.types import Draw, Observation, Status


class TestTrustDirect(AlgorithmContract):
    def make_algorithm(self, setting: AlgorithmSetting) -> TrustDirect:
        return TrustDirect(setting)


def run(algorithm: Algorithm, backbone: Backbone, rounds: int, score: Score = distance_to_corner) -> list[Tensor]:
    """Returns the latents of each round of eight."""
    batches = []
    for _ in range(rounds):
        proposal = algorithm.ask(8)
        told = observed(backbone, proposal, score)
        batches.append(torch.stack([item.candidate.latent for item in told]))
        algorithm.tell(told)
    return batches


def after(rounds: int, score: Score = distance_to_corner, **settings_of_it: float) -> TrustDirect:
    backbone = small_backbone()
    config = TrustDirectConfig.model_validate({"kind": "trust-direct", **settings_of_it})
    algorithm = config.build(setting_of(backbone, batch_size=8))
    run(algorithm, backbone, rounds, score)
    return algorithm


def test_it_finds_a_hidden_target_that_random_search_does_not_and_stays_there() -> None:
    backbone = AnalyticBackboneConfig.model_validate({"kind": "analytic", "dim": 32, "components": 6}).build()
    for seed in range(3):
        score = distance_to_hidden_sample(backbone, seed)
        setting = setting_of(backbone, batch_size=16)
        guided = batch_means(TrustDirect(setting), backbone, score, rounds=10)
        unguided = batch_means(RandomSearch(), backbone, score, rounds=10)
        assert guided[0] == unguided[0]
        assert guided[3] < min(unguided) - 0.8
        assert max(guided[6:]) < min(unguided) - 0.8  # no late overshoot


@pytest.mark.parametrize(("scale", "shift"), [(2.0**40, 0.0), (2.0**-40, 0.0), (1.0, 64.0), (1000.0, -3.0)])
def test_scale_and_shift_of_the_score_make_no_difference(scale: float, shift: float) -> None:
    backbone = small_backbone()
    plain, other = (
        run(TrustDirect(setting_of(backbone, 8)), backbone, 4, score)
        for score in (distance_to_corner, lambda latents: scale * distance_to_corner(latents) + shift)
    )
    for left, right in zip(plain, other, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-3)


def test_samples_run_as_often_as_was_said() -> None:
    backbone = small_backbone()
    for passes in (1, 3):
        algorithm = after(2, passes=passes)
        assert generated(backbone, algorithm.ask(4))[1].passes == passes
    assert generated(backbone, after(0).ask(4))[1].passes == 1


def test_equal_scores_teach_nothing_and_samples_stay_unguided() -> None:
    backbone = small_backbone()
    algorithm = after(3, lambda latents: torch.full((len(latents),), 7.0))
    proposal = algorithm.ask(4)
    draws, batch = generated(backbone, proposal)
    assert torch.equal(batch.noise_sequence, backbone.draw_noise(draws))


def test_parents_are_the_best_by_posterior_mean_and_lie_apart() -> None:
    greedy, varied = after(4, diversity=0.0, parents=4), after(4, diversity=0.9, parents=4)
    for algorithm, least in ((greedy, 0.0), (varied, 0.3)):
        plan = algorithm._plan()
        assert plan.parents is not None
        assert plan.surrogate is not None
        answers = algorithm._answers
        points = answers.latents.flatten(1)
        unguided = points[answers.proposals == 0].double()
        places = [
            place
            for place, latent in enumerate(answers.latents)
            if any(torch.equal(latent, parent) for parent in plan.parents.latents)
        ]
        gaps = torch.pdist(points[places].double())
        assert float(gaps.min()) >= least * float(torch.pdist(unguided).mean()) - 1e-6
        means = plan.surrogate.mean(points)
        assert int(means.argmin()) in places
        if least == 0:
            assert sorted(places) == sorted(torch.argsort(means, stable=True)[:4].tolist())
        names = [answers.ids[place] for place in places]
        sequences = answers.noise_sequences[[answers.ids_with_noise.index(name) for name in names]]
        assert torch.equal(plan.parents.noise_sequences, sequences)


def test_more_diversity_is_more_diversity() -> None:
    spreads = []
    for diversity in (0.0, 1.0):
        backbone = small_backbone()
        algorithm = TrustDirect(setting_of(backbone, 8), diversity=diversity)
        batches = run(algorithm, backbone, 10)
        spreads.append(sum(float(torch.pdist(batch.flatten(1)).mean()) for batch in batches[5:]))
    assert spreads[1] > 1.3 * spreads[0]


def test_the_trust_region_grows_with_success_and_shrinks_with_failure() -> None:
    algorithm = after(3)
    means = torch.arange(len(algorithm._answers), dtype=torch.float64)
    by_age = means[-1] - means  # every child better than all that came before it
    assert algorithm._radius(by_age) > trust_direct.FIRST_RADIUS
    assert algorithm._radius(means) < trust_direct.FIRST_RADIUS
    longer = after(10)
    means = torch.arange(len(longer._answers), dtype=torch.float64)
    assert longer._radius(means[-1] - means) == trust_direct.LARGEST_RADIUS
    assert longer._radius(means) == trust_direct.LEAST_RADIUS


def test_rounds_of_single_samples_move_the_trust_region_as_one_of_half_a_batch() -> None:
    algorithm, backbone = after(1), small_backbone()
    for count in range(1, 10):
        algorithm.tell(observed(backbone, algorithm.ask(1), distance_to_corner))
        means = -torch.arange(len(algorithm._answers), dtype=torch.float64)
        grown = trust_direct.GROWTH ** (count // 4)
        assert algorithm._radius(means) == pytest.approx(min(trust_direct.FIRST_RADIUS * grown, 1.0))


def test_a_large_memory_is_learnt_from_around_its_best_and_noise_is_kept_of_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trust_direct, "MOST_LEARNT", 12)
    monkeypatch.setattr(trust_direct, "NOISE_KEPT", 10)
    algorithm = after(4)
    plan = algorithm._plan()
    assert plan.surrogate is not None
    assert len(plan.surrogate.posterior) == 12
    answers = algorithm._answers
    kept = answers.places_of(answers.ids_with_noise)
    assert len(kept) == 10
    assert answers.losses[kept].max() <= answers.losses.sort().values[9]
    backbone = small_backbone()
    restored = TrustDirect(setting_of(backbone, batch_size=8))
    restored.load_state_dict(algorithm.state_dict())
    assert restored.state_dict()["answers_noise"].shape == (10, 5, 3, 4)
    left, right = (generated(backbone, item.ask(4))[1].latents for item in (algorithm, restored))
    assert torch.equal(left, right)


def test_children_of_a_conditional_model_descend_from_their_own_condition() -> None:
    backbone = small_backbone(conditional=True)
    algorithm = TrustDirect(setting_of(backbone, batch_size=8))
    run(algorithm, backbone, 3)
    parents = algorithm._plan().parents
    assert parents is not None
    known = {tuple(row) for row in parents.conditions.tolist()}
    assert len(known) > 1
    for seed in range(20):
        for condition in parents.conditions:
            assert torch.equal(parents.conditions[parents.place_of(seed, condition)], condition)
        assert 0 <= parents.place_of(seed, torch.tensor([99])) < len(parents.latents)  # never seen: from any


def test_molecules_take_their_parent_s_size_and_padding_stays_empty() -> None:
    backbone = MoleculeBackboneConfig.model_validate({"kind": "molecule", "steps": 5}).build("cpu")
    algorithm = TrustDirect(setting_of(backbone, batch_size=8), passes=2)

    def extent(latents: Tensor) -> Tensor:
        return -latents[..., :3].square().sum((1, 2)).double()

    run(algorithm, backbone, 2, extent)
    proposal = algorithm.ask(6)
    parents = proposal.plan.parents  # type: ignore[attr-defined]
    draws, batch = generated(backbone, proposal)
    for place, draw in enumerate(draws):
        parent = parents.place_of(draw.seed, torch.tensor([0]))
        assert torch.equal(batch.conditions[place], parents.conditions[parent])
        zero = parents.noise_sequences[parent] == 0
        assert (batch.noise_sequence[:, place][zero] == 0).all()
    replayed = backbone.sample(batch.noise_sequence, batch.conditions)
    torch.testing.assert_close(replayed, batch.latents, rtol=1e-4, atol=1e-4)


def test_late_answers_of_an_old_round_count() -> None:
    backbone = small_backbone()
    early, late = (TrustDirect(setting_of(backbone, batch_size=8)) for _ in range(2))
    for algorithm in (early, late):
        run(algorithm, backbone, 2)
    proposals = early.ask(8), late.ask(8)
    told = [observed(backbone, proposal, distance_to_corner) for proposal in proposals]
    early.tell(told[0])
    late.tell(told[1][:3])
    waiting = early.ask(8), late.ask(8)
    late.tell(told[1][3:])
    for algorithm, proposal in zip((early, late), waiting, strict=True):
        failed = [
            Observation(item.candidate, Status.FAILED, None) for item in observed(backbone, proposal, extent_of)
        ]
        algorithm.tell(failed)
    left, right = (algorithm._plan() for algorithm in (early, late))
    assert left.radius == right.radius
    assert left.parents is not None
    assert right.parents is not None
    assert torch.equal(left.parents.latents, right.parents.latents)


def extent_of(latents: Tensor) -> Tensor:
    return latents.flatten(1).double().square().sum(dim=1)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.floats(0, 5), st.floats(1, 3))
def test_moved_noise_stays_on_its_shell_and_the_last_ones_stay_put(seed: int, length: float, drift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(9, 3, 2, 5, generator=generator)
    noise[8] = 0.0
    noise[:, :, :, 4] = 0.0
    moves = length * torch.randn(3, 2, 5, generator=generator).double()
    result = moved(noise, moves, drift)
    assert torch.equal(result[6:], noise[6:])  # a quarter of the eight that are used, and the unused one
    assert (result[:, :, :, 4] == 0).all()
    lengths = [torch.linalg.vector_norm(item.flatten(2), dim=2) for item in (result, noise)]
    torch.testing.assert_close(*lengths, rtol=1e-5, atol=1e-5)


def test_what_noises_have_in_common_is_limited_value_by_value() -> None:
    noises = torch.randn(6, 4, 50, generator=torch.Generator().manual_seed(0)).double()
    noises[:, 0] += 3.0
    limited = limited_drift(noises, 1.5)
    for sample in range(4):
        mean, radius = noises[:, sample].mean(0), noises[:, sample].square().sum(1).mean().sqrt()
        most = 1.5 * radius / math.sqrt(6)
        expected = min(float(mean.norm()), float(most))
        assert float(limited[:, sample].mean(0).norm()) == pytest.approx(expected, rel=1e-6)
        apart = noises[:, sample] - mean
        torch.testing.assert_close(limited[:, sample] - limited[:, sample].mean(0), apart)
    assert torch.equal(limited[:, 1:], noises[:, 1:])
    assert float(limited[:, 0].mean(0).norm()) < float(noises[:, 0].mean(0).norm()) / 1.2


def test_a_child_that_is_drawn_again_goes_further() -> None:
    algorithm = after(3, passes=1, diversity=0.2)
    plan = algorithm._plan()
    assert plan.parents is not None
    backbone, gaps = small_backbone(), []
    for attempt in range(4):
        draws = [Draw.of(9, 3, slot, attempt) for slot in range(12)]
        assert {draw.attempt for draw in draws} == {attempt}
        noise = plan.generate(backbone, draws).noise_sequence
        conditions = backbone.draw_conditions(draws)
        places = [plan.parents.place_of(draw.seed, own) for draw, own in zip(draws, conditions, strict=True)]
        parents = plan.parents.noise_sequences[places].transpose(0, 1)
        gaps.append(float((noise - parents).norm()))
    assert gaps == sorted(gaps)
    assert gaps[3] > 2 * gaps[0]


def test_a_parent_s_first_move_is_free_and_down_the_surrogate(monkeypatch: pytest.MonkeyPatch) -> None:
    # after unguided samples only, and with many parents, most of them are far from the surrogate's lowest point
    plan, backbone = after(1, passes=1, parents=8, diversity=0.0)._plan(), small_backbone()
    assert plan.surrogate is not None
    draws = [Draw.of(9, 3, slot) for slot in range(32)]
    means = []
    for share in (0.0, trust_direct_plan.HEAD_START):
        monkeypatch.setattr(trust_direct_plan, "HEAD_START", share)
        batch = plan.generate(backbone, draws)
        assert batch.passes == 1
        means.append(float(plan.surrogate.mean(batch.latents.flatten(1)).mean()))
    assert means[1] < means[0] - 0.01


def test_children_start_with_as_much_fresh_noise_as_diversity_says() -> None:
    for diversity in (0.0, 0.4, 1.0):
        plan = after(3, diversity=diversity)._plan()
        share = float(plan._shares([Draw("p0009-00", 1)], torch.zeros(5, 1, 3)))
        assert share == pytest.approx(max(diversity, min(trust_direct_plan.LARGEST_SHARE, plan.radius)))


def test_molecules_get_a_least_share_of_fresh_noise() -> None:
    assert trust_direct.LEAST_SHARE["molecule"] > trust_direct.LEAST_RADIUS
    plan = TrustDirectPlan(radius=0.02, least_share=0.2)
    shares = plan._shares([Draw("p0001-00", 1), Draw("p0001-01.2", 2)], torch.zeros(5, 2, 3, 4))
    assert shares.flatten().tolist() == pytest.approx([0.2, 0.6])
    assert float(TrustDirectPlan(radius=1.0)._shares([Draw("x", 1)], torch.zeros(5, 1, 3))) == pytest.approx(0.3)


def test_defaults_depend_on_what_is_drawn() -> None:
    setting = setting_of(small_backbone(), batch_size=8)
    for media, passes, diversity in (("array", 4, 0.7), ("molecule", 2, 0.3)):
        algorithm = TrustDirectConfig(kind="trust-direct").build(dataclasses.replace(setting, media=media))
        assert (algorithm.passes, algorithm.diversity) == (passes, diversity)
        said = TrustDirectConfig(kind="trust-direct", passes=1, diversity=0.0)
        algorithm = said.build(dataclasses.replace(setting, media=media))
        assert (algorithm.passes, algorithm.diversity) == (1, 0.0)
