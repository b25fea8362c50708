"""CASBO: contract in all forms, a transcription of its formulas, positive definiteness, and that it optimises."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.algorithms.casbo import CasboConfig
from pilotwave.algorithms.casbo_update import CasboSteps, cumulative, updated
from pilotwave.algorithms.gaussian_noise import NoiseGaussians, completion_steps, rounds_of
from pilotwave.algorithms.random_search import RandomSearchConfig
from pilotwave.backbones.analytic import AnalyticBackbone, AnalyticBackboneConfig
from pilotwave.errors import InputError
from pilotwave.testing.algorithm_contract import (
    AlgorithmContract,
    distance_to_corner,
    generated,
    observed,
    setting_of,
    small_backbone,
)
from pilotwave.testing.hidden_target import batch_means, distance_to_hidden_sample
from pilotwave.types import Observation, Status

FORMS = ["final", "value-model", "completion"]


def casbo(setting, **options):
    return CasboConfig(kind="casbo", **options).build(setting)


class TestFull(AlgorithmContract):
    learns_from_earlier_answers = False

    def make_algorithm(self, setting):
        return casbo(setting)


class TestDiagonal(AlgorithmContract):
    learns_from_earlier_answers = False

    def make_algorithm(self, setting):
        return casbo(setting, covariance="diagonal", step_sizes="dimension")


class TestCompletion(AlgorithmContract):
    learns_from_earlier_answers = False

    def make_algorithm(self, setting):
        return casbo(setting, cumulative="completion", gamma=0.5)


class TestValueModel(AlgorithmContract):
    learns_from_earlier_answers = False

    def make_algorithm(self, setting):
        return casbo(setting, cumulative="value-model", covariance="diagonal")


def update_transcription(mean, covariance, z, scores, beta, gamma):
    """The formulas for one step in numpy, with inverses as they are written."""
    s = (scores - scores.mean()) / scores.std()
    w = np.exp(-s) / np.exp(-s).sum()
    precision = np.linalg.inv(covariance)
    grown = precision.copy()
    for weight, sample in zip(w, z, strict=True):
        grown += gamma * weight * precision @ np.outer(sample - mean, sample - mean) @ precision
    return mean - beta * np.mean(s[:, None] * (z - mean), axis=0), np.linalg.inv(grown)


@pytest.mark.parametrize("full", [True, False])
def test_the_update_is_the_paper_s_formulas_value_by_value(full):
    random = np.random.default_rng(0)
    steps, batch, dim, beta, gamma = 3, 7, 4, 0.3, 0.2
    gaussians = NoiseGaussians.standard(steps, dim, full)
    means = np.zeros((steps, dim))
    covariances = np.stack([np.eye(dim)] * steps)
    for _ in range(6):
        xi, costs = random.standard_normal((steps, batch, dim)), random.standard_normal((steps, batch))
        z = gaussians.of_standard(torch.from_numpy(xi))
        scores = cumulative(torch.from_numpy(costs))
        for k in range(steps):
            values, vectors = np.linalg.eigh(covariances[k])
            own = means[k] + xi[k] @ (vectors * np.sqrt(values)) @ vectors.T
            np.testing.assert_allclose(z[k].numpy(), own, atol=1e-10)
            s = costs[k:].mean(axis=0)
            means[k], covariances[k] = update_transcription(means[k], covariances[k], own, s, beta, gamma)
            if not full:  # the diagonal form keeps the diagonal of the inverse, from a diagonal start
                covariances[k] = np.diag(1 / np.diag(np.linalg.inv(covariances[k])))
        gaussians = updated(gaussians, z, scores, CasboSteps(beta, gamma, 1e-12))
        squares = gaussians.scale @ gaussians.scale if full else torch.diag_embed(gaussians.scale.square())
        np.testing.assert_allclose(gaussians.mean.numpy(), means, atol=1e-10)
        np.testing.assert_allclose(squares.numpy(), covariances, atol=1e-10)


@pytest.mark.parametrize("full", [True, False])
def test_rounds_with_a_model_are_the_formulas_value_by_value(full):
    backbone, beta, gamma, batch = small_backbone(), 0.8, 0.3, 6
    algorithm = casbo(setting_of(backbone), covariance="full" if full else "diagonal", beta=beta, gamma=gamma)
    means, covariances = np.zeros((4, 12)), np.stack([np.eye(12)] * 4)
    for _ in range(4):
        proposal = algorithm.ask(batch)
        draws, made = generated(backbone, proposal)
        losses = distance_to_corner(made.latents).numpy()
        used = torch.ones(4, batch, 12, dtype=torch.bool)
        xi = NoiseGaussians.standard(4, 12).draws_of([draw.seed for draw in draws], used, "casbo")[1].numpy()
        for k in range(4):
            values, vectors = np.linalg.eigh(covariances[k])
            z = means[k] + xi[k] @ (vectors * np.sqrt(values)) @ vectors.T
            radius = np.linalg.norm(xi[k], axis=1) / np.linalg.norm(z, axis=1)
            given_to_sampler = made.noise_sequence[k].flatten(1).numpy()
            np.testing.assert_allclose(given_to_sampler, radius[:, None] * z, atol=2e-5)
            means[k], covariances[k] = update_transcription(means[k], covariances[k], z, losses, beta, gamma)
            if not full:
                covariances[k] = np.diag(1 / np.diag(np.linalg.inv(covariances[k])))
        algorithm.tell(observed(backbone, proposal, distance_to_corner))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(-30, 30),
    st.floats(-8, 8),
    st.sampled_from([0.0, 1 / 128, 1.0, 10.0]),
    st.booleans(),
)
def test_covariances_stay_symmetric_and_positive_definite(seed, log_loss, log_size, gamma, full):
    random = torch.Generator().manual_seed(seed)
    gaussians = NoiseGaussians.standard(2, 5, full)
    for _ in range(5):
        z = gaussians.of_standard(torch.randn(2, 3, 5, generator=random).double())
        z[0, 0] *= 10.0**log_size  # a draw of another distribution, as answers that come late are
        scores = 10.0**log_loss * torch.randn(2, 3, generator=random).double()
        gaussians = updated(gaussians, z, scores, CasboSteps(1.0, gamma, 1e-4))
        assert gaussians.mean.isfinite().all()
        if full:
            assert torch.equal(gaussians.scale, gaussians.scale.mT)
            assert float(torch.linalg.eigvalsh(gaussians.scale).min()) >= 0.0099
        else:
            assert float(gaussians.scale.min()) >= 0.0099


def test_steps_learn_only_from_what_is_counted_and_used():
    random = torch.Generator().manual_seed(0)
    z, scores = torch.randn(2, 6, 3, generator=random).double(), torch.randn(2, 6, generator=random).double()
    start, steps = NoiseGaussians.standard(2, 3), CasboSteps(0.5, 0.1)
    counted = torch.tensor([[True] * 6, [True, True, False, False, False, True]])
    used = torch.ones(2, 6, 3, dtype=torch.bool)
    used[:, :, 2] = False
    after = updated(start, z, scores, steps, used, counted)
    few = updated(NoiseGaussians.standard(2, 2), z[:, [0, 1, 5], :2], scores[:, [0, 1, 5]], steps)
    assert (after.mean[:, 2] == 0).all()
    assert (after.scale[:, 2] == 1).all()
    torch.testing.assert_close(after.mean[1, :2], few.mean[1])
    torch.testing.assert_close(after.scale[1, :2], few.scale[1])
    one = torch.tensor([[True] + [False] * 5] * 2)
    assert torch.equal(updated(start, z, scores, steps, None, one).mean, start.mean)
    same = updated(start, z, torch.full_like(scores, 3.0), steps)
    assert torch.equal(same.mean, start.mean)
    assert torch.equal(same.scale, start.scale)


def test_rounds_are_proposals_and_small_ones_wait():
    assert rounds_of([2, 0, 0, 1, 2, 2], 2) == [[1, 2], [3, 0, 4, 5]]
    assert rounds_of([0, 1], 2) == [[0, 1]]
    assert rounds_of([5], 2) == []
    assert rounds_of([], 2) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_it_finds_a_hidden_target_that_random_search_does_not(form, covariance):
    backbone = AnalyticBackboneConfig(kind="analytic", dim=32, components=6).build()
    for seed in range(2):
        score = distance_to_hidden_sample(backbone, seed)
        setting = setting_of(backbone, batch_size=16)
        guided = batch_means(casbo(setting, cumulative=form, covariance=covariance), backbone, score)
        unguided = batch_means(RandomSearchConfig(kind="random").build(setting), backbone, score)
        assert min(guided[5:]) < min(unguided) - 1.0
        assert guided[-1] < -1.5


@pytest.mark.parametrize("form", FORMS)
def test_gaussians_are_a_function_of_the_set_of_answers(form):
    backbone = small_backbone()
    late, on_time = (casbo(setting_of(backbone), cumulative=form) for _ in range(2))
    told = []
    for _ in range(3):
        proposals = [algorithm.ask(6) for algorithm in (late, on_time)]
        told.append(observed(backbone, proposals[0], distance_to_corner))
    for answers in (told[2], told[0][3:], told[1][:5], told[0][:3][::-1], told[1][5:]):
        late.tell(answers)
        late.gaussians()
    on_time.tell([item for answers in told for item in answers])
    left, right = late.gaussians(), on_time.gaussians()
    torch.testing.assert_close(left.mean, right.mean, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(left.scale, right.scale, rtol=1e-6, atol=1e-9)
    assert (left.mean != 0).any()


def test_an_answer_later_than_every_snapshot_is_counted_where_it_belongs():
    backbone = small_backbone()
    late = casbo(setting_of(backbone))
    missing = None
    for _ in range(12):
        answers = observed(backbone, late.ask(5), distance_to_corner)
        late.tell(answers[1:] if missing is None else answers)
        missing = missing or answers[0]
    without = late.gaussians().mean
    late.tell([missing])
    assert not torch.equal(late.gaussians().mean, without)
    # The same answers in a memory without snapshots.
    replay = casbo(setting_of(backbone))
    replay.load_state_dict(late.state_dict())
    assert torch.equal(replay.gaussians().mean, late.gaussians().mean)
    assert torch.equal(replay.gaussians().scale, late.gaussians().scale)


def test_completions_keep_their_noise_up_to_a_step_and_have_mean_noise_after_it():
    backbone = small_backbone()
    algorithm = casbo(setting_of(backbone), cumulative="completion")
    algorithm.tell(observed(backbone, algorithm.ask(20), distance_to_corner))
    mean = algorithm.gaussians().mean.float()
    draws, batch = generated(backbone, algorithm.ask(40))
    steps = completion_steps([draw.seed for draw in draws], 4)
    assert set(steps) == {0, 1, 2, 3}
    for place, end in enumerate(steps):
        noise = batch.noise_sequence[:4, place].flatten(1)
        torch.testing.assert_close(noise[end + 1 :], mean[end + 1 :])
        assert (noise[: end + 1] - mean[: end + 1]).norm(dim=1).min() > 0.5
    assert batch.passes == 1


def test_a_completion_teaches_no_step_after_its_own():
    backbone = small_backbone()
    algorithm = casbo(setting_of(backbone), cumulative="completion")
    proposal = algorithm.ask(40)
    answers = observed(backbone, proposal, distance_to_corner)
    ends = completion_steps([item.candidate.seed for item in answers], 4)
    algorithm.tell([item for item, end in zip(answers, ends, strict=True) if end <= 1])
    moved = algorithm.gaussians().mean.abs().amax(dim=1)
    assert (moved[:2] > 0).all()
    assert (moved[2:] == 0).all()


def test_the_value_model_charges_steps_by_what_the_sampler_predicted():
    backbone, setting = small_backbone(), setting_of(small_backbone())
    algorithm = casbo(setting, cumulative="value-model", covariance="diagonal", value_noise=0.05)
    proposal = algorithm.ask(9)
    assert generated(backbone, proposal)[1].passes == 2
    answers = sorted(observed(backbone, proposal, distance_to_corner), key=lambda item: item.candidate.query_id)
    algorithm.tell(answers)
    seen = []
    noise = torch.stack([item.candidate.noise_sequence for item in answers], dim=1)
    conditions = torch.stack([item.candidate.condition for item in answers])
    x = backbone.sample(noise, conditions, lambda state, clean: seen.append(clean) or clean).flatten(1).numpy()
    y = np.array([item.loss for item in answers])
    y = (y - y.mean()) / y.std()
    kernel = math.log(2) * np.exp(-((x[:, None] - x) ** 2).sum(axis=2) / (2 * 12))
    weights = np.linalg.solve(kernel + 0.05 * np.eye(9), y)
    costs = []
    for clean in seen[:-1]:
        apart = ((clean.flatten(1).numpy()[:, None] - x) ** 2).sum(axis=2)
        costs.append(math.log(2) * np.exp(-apart / (2 * 12)) @ weights)
    costs = np.array([*costs, y])
    xi = NoiseGaussians.standard(4, 12).draws_of(
        [item.candidate.seed for item in answers], torch.ones(4, 9, 12, dtype=torch.bool), "casbo"
    )[1]
    after = algorithm.gaussians()
    for k in range(4):
        mean, _ = update_transcription(
            np.zeros(12), np.eye(12), xi[k].numpy().astype(float), costs[k:].mean(axis=0), 1.0, 1 / 128
        )
        np.testing.assert_allclose(after.mean[k].numpy(), mean, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_padding_and_the_last_entry_stay_zero(form):
    backbone = PaddedPoints.of(small_backbone(conditional=True))
    algorithm = casbo(setting_of(backbone), cumulative=form)
    for _ in range(3):
        proposal = algorithm.ask(10)
        draws, batch = generated(backbone, proposal)
        start = backbone.draw_noise(draws)
        assert (batch.noise_sequence[start == 0] == 0).all()
        assert (start[:4] == 0).any()
        algorithm.tell(observed(backbone, proposal, distance_to_corner))
    assert algorithm.gaussians().mean.isfinite().all()


class PaddedPoints(AnalyticBackbone):
    """Samples of condition 0 do not use the last two rows of their noise, as padding of a molecule."""

    @classmethod
    def of(cls, backbone):
        made = cls.__new__(cls)
        made.__dict__.update(backbone.__dict__)
        return made

    def draw_noise(self, draws):
        noise = super().draw_noise(draws)
        noise[:, (self.draw_conditions(draws)[:, 0] == 0), -2:] = 0.0
        return noise


@pytest.mark.parametrize("form", ["final", "value-model"])
def test_molecules(form):
    from pilotwave.backbones.molecule.backbone import MoleculeBackboneConfig

    backbone = MoleculeBackboneConfig.model_validate({"kind": "molecule", "steps": 4}).build("cpu")

    def size(latents):
        return latents[..., :3].square().sum(dim=(1, 2))

    algorithm = casbo(setting_of(backbone, batch_size=12), cumulative=form, beta=2.0)
    assert not algorithm.full
    means = batch_means(algorithm, backbone, size, rounds=6, batch=12)
    assert means[-1] < 0.75 * means[0]
    draws, batch = generated(backbone, algorithm.ask(4))
    assert (batch.noise_sequence[backbone.draw_noise(draws) == 0] == 0).all()
    assert batch.latents.isfinite().all()


def test_what_cannot_be_is_said():
    setting = setting_of(small_backbone())
    with pytest.raises(InputError, match="needs a copy of the model"):
        casbo(dataclasses.replace(setting, build_backbone=None), cumulative="value-model")
    with pytest.raises(InputError, match="at most 1024"):
        casbo(dataclasses.replace(setting, latent_shape=(3, 32, 32)), covariance="full")
    diagonal = casbo(setting, covariance="diagonal")
    with pytest.raises(ValueError, match="expected a state of full False"):
        diagonal.load_state_dict(casbo(setting, covariance="full").state_dict())
    with pytest.raises(ValueError, match="expected a state"):
        casbo(dataclasses.replace(setting, steps=5)).load_state_dict(casbo(setting).state_dict())
    assert casbo(setting).full
    assert not casbo(dataclasses.replace(setting, latent_shape=(8, 9))).full


def test_an_answer_to_a_proposal_never_made_here_teaches_nothing():
    backbone = small_backbone()
    algorithm = casbo(setting_of(backbone))
    answers = observed(backbone, algorithm.ask(5), distance_to_corner)
    candidate = dataclasses.replace(answers[0].candidate, query_id="stranger", proposal=7)
    algorithm.tell([Observation(candidate, Status.OK, 1.0)] * 2)
    assert (algorithm.gaussians().mean == 0).all()
