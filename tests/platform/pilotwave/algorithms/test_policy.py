"""What the policy gradients share: the adapter, the densities against a transcription, memory, state, molecules."""

import math
import pickle

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pilotwave.algorithms.answers import Answers, standardise
from pilotwave.algorithms.ddpo import DDPO, DDPOConfig
from pilotwave.algorithms.policy import (
    PolicyPlan,
    adapted_copy,
    adapter_parameters,
    as_adaptable,
    initial_adapter,
    replay,
    write_adapter,
)
from pilotwave.algorithms.policy_training import PastLosses
from pilotwave.config.components import AlgorithmSetting
from pilotwave.errors import InputError
from pilotwave.protocols import AdaptableBackbone
from pilotwave.testing.algorithm_contract import distance_to_corner, observed, setting_of, small_backbone
from pilotwave.testing.small_networks import small_image_backbone, small_molecule_backbone
from pilotwave.types import Candidate, Draw, Observation, Status

RANK = 2
DRAWS = [Draw.of(8, 0, slot) for slot in range(4)]


def some_adapter(backbone, seed, size=0.3):
    """An adapter as training might leave it: neither matrix is zero."""
    random = torch.Generator().manual_seed(seed)
    fresh = initial_adapter(adapted_copy(backbone.denoiser, RANK), seed)
    return {name: matrix + size * torch.randn(matrix.shape, generator=random) for name, matrix in fresh.items()}


def with_adapter(backbone, adapter):
    adapted = adapted_copy(backbone.denoiser, RANK)
    write_adapter(adapted, adapter)
    return adapted


def ddpo(setting, **options):
    return DDPOConfig(kind="ddpo", **options).build(setting)


def gaussians_along(backbone, noise, classes, network):
    """Every step's N(mean, deviation) under a network, and the action taken: DDIM's equations 12 and 16."""
    path = []
    backbone.sample(noise, classes, lambda state, clean: path.append(state.noisy) or clean)
    steps = backbone.steps
    found = []
    for k in range(steps - 1):
        angle, after = (math.pi / 2 * (steps - place) / steps for place in (k, k + 1))
        alpha, alpha_after = (0.0 if k == 0 else math.cos(angle) ** 2), math.cos(after) ** 2
        times = torch.full((len(classes),), (steps - k) / steps)
        with torch.no_grad():
            velocity = network(path[k], times, classes[:, 0])
        clean = (math.sqrt(alpha) * path[k] - math.sqrt(1 - alpha) * velocity).clamp(-1, 1)
        variance = (1 - alpha_after) / (1 - alpha) * (1 - alpha / alpha_after)
        towards = (path[k] - math.sqrt(alpha) * clean) / math.sqrt(1 - alpha)
        mean = math.sqrt(alpha_after) * clean + math.sqrt(1 - alpha_after - variance) * towards
        found.append((Normal(mean.double(), math.sqrt(variance)), path[k + 1].double()))
    return found


def test_densities_are_those_of_the_sampler_s_gaussians() -> None:
    """Log ratios and divergences, value by value, from the means of DDIM under three networks."""
    backbone = small_image_backbone(steps=4)
    old, new = some_adapter(backbone, 1), some_adapter(backbone, 2)
    batch = PolicyPlan(RANK, old).generate(backbone, DRAWS)
    networks = [backbone.denoiser, with_adapter(backbone, old), with_adapter(backbone, new)]
    transcribed = zip(
        *(gaussians_along(backbone, batch.noise_sequence, batch.conditions, network) for network in networks),
        strict=True,
    )
    transitions = replay(backbone, batch.noise_sequence, backbone.draw_noise(DRAWS), batch.conditions)
    assert [transition.index for transition in transitions] == [0, 1, 2]
    for transition, ((base, action), (before, _), (after, _)) in zip(transitions, transcribed, strict=True):
        found = transition.densities(backbone, batch.conditions, networks[2])
        logs = [gaussian.log_prob(action).flatten(1).sum(1) for gaussian in (base, before, after)]
        assert (logs[2] - logs[1]).abs().min() > 0.05
        torch.testing.assert_close(found.log_ratio, logs[2] - logs[1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.log_ratio_to_base, logs[2] - logs[0], rtol=1e-3, atol=1e-3)
        divergence = kl_divergence(after, base).flatten(1).sum(1)
        torch.testing.assert_close(found.divergence, divergence, rtol=1e-3, atol=1e-3)


def test_a_policy_draws_what_its_own_gaussians_say() -> None:
    """The edited noise through the base model gives mean_theta + deviation * drawn noise, step by step."""
    backbone = small_image_backbone(steps=4)
    adapter = some_adapter(backbone, 1)
    batch = PolicyPlan(RANK, adapter).generate(backbone, DRAWS)
    drawn = backbone.draw_noise(DRAWS)
    assert batch.passes == 2
    assert not torch.allclose(batch.noise_sequence, drawn, atol=0.1)
    assert torch.equal(batch.noise_sequence[0], drawn[0])
    assert not batch.noise_sequence[-1].any()
    path = gaussians_along(backbone, batch.noise_sequence, batch.conditions, with_adapter(backbone, adapter))
    for k, (gaussian, action) in enumerate(path):
        expected = gaussian.mean + gaussian.stddev * drawn[k + 1]
        torch.testing.assert_close(action, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("make", "rounding"), [(small_image_backbone, 0.0), (small_molecule_backbone, 1e-4)])
def test_a_fresh_adapter_is_the_base_model(make, rounding) -> None:
    """Exactly for images; the attention of molecules is another kernel, which rounds otherwise, with gradients."""
    backbone = make()
    adapted = adapted_copy(backbone.denoiser, RANK)
    write_adapter(adapted, initial_adapter(adapted, 3))
    noise, conditions = backbone.draw_noise(DRAWS), backbone.draw_conditions(DRAWS)
    for transition in replay(backbone, noise, noise, conditions):
        densities = transition.densities(backbone, conditions, adapted)
        for part in (densities.log_ratio, densities.log_ratio_to_base, densities.divergence):
            assert part.abs().max() <= rounding
        assert densities.shift.requires_grad


@pytest.mark.parametrize("make", [small_image_backbone, small_molecule_backbone])
def test_the_backbone_is_untouched_and_its_weights_are_shared(make) -> None:
    backbone = make()
    network = backbone.denoiser
    modules = list(network.modules())
    before = {name: (weight.clone(), weight.requires_grad) for name, weight in network.named_parameters()}
    attributes = set(vars(network))
    batch = PolicyPlan(RANK, some_adapter(backbone, 1)).generate(backbone, DRAWS)
    assert batch.latents.isfinite().all()
    algorithm = ddpo(setting_of(backbone))
    for _ in range(2):
        algorithm.tell(observed(backbone, algorithm.ask(5), distance_to_corner))
    assert algorithm.ask(5).plan.adapter is not None
    assert all(now is then for now, then in zip(network.modules(), modules, strict=True))
    assert set(vars(network)) == attributes
    assert [name for name, _ in network.named_parameters()] == list(before)
    for name, weight in network.named_parameters():
        assert torch.equal(weight, before[name][0])
        assert weight.requires_grad == before[name][1]
        assert weight.grad is None
    places = {weight.data_ptr() for weight in network.parameters()}
    adapted = adapted_copy(network, RANK)
    added = {matrix.data_ptr() for matrix in adapter_parameters(adapted).values()}
    assert places <= {weight.data_ptr() for weight in adapted.parameters()}
    assert not places & added


def test_the_global_random_numbers_are_not_used() -> None:
    backbone = small_image_backbone()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    PolicyPlan(RANK, some_adapter(backbone, 1)).generate(backbone, DRAWS)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", [small_image_backbone, small_molecule_backbone])
def test_a_sample_does_not_depend_on_its_batch(make) -> None:
    backbone = make()
    plan = PolicyPlan(RANK, some_adapter(backbone, 1, size=0.1))
    together = plan.generate(backbone, DRAWS)
    for place, draw in enumerate(DRAWS):
        alone = plan.generate(backbone, [draw])
        torch.testing.assert_close(alone.latents[0], together.latents[place], rtol=1e-4, atol=1e-4)
        noise = together.noise_sequence[:, place]
        torch.testing.assert_close(alone.noise_sequence[:, 0], noise, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_molecules_keep_their_padding_and_their_centre(precision) -> None:
    """A full campaign of three rounds on molecules of different sizes."""
    backbone = small_molecule_backbone(precision=precision)
    algorithm = ddpo(setting_of(backbone), learning_rate=0.01)
    for number in range(3):
        proposal = algorithm.ask(5)
        batch = proposal.plan.generate(backbone, [Draw.of(3, number, slot) for slot in range(5)])
        assert len(set(batch.conditions.flatten().tolist())) > 1
        for place, atoms in enumerate(batch.conditions.flatten().tolist()):
            assert not batch.noise_sequence[:, place, atoms:].any()
        assert batch.noise_sequence[..., :3].sum(2).abs().max() < 1e-3
        replayed = backbone.sample(batch.noise_sequence, batch.conditions)
        torch.testing.assert_close(replayed, batch.latents, rtol=1e-4, atol=1e-4)
        algorithm.tell(observed(backbone, proposal, distance_to_corner))
    assert proposal.plan.adapter is not None
    assert all(matrix.dtype == torch.float32 for matrix in proposal.plan.adapter.values())


class Recorded(DDPO):
    """DDPO that writes down the log ratios it trains with."""

    def step_loss(self, densities, advantages):
        self.__dict__.setdefault("seen", []).append(densities.log_ratio.detach().clone())
        return super().step_loss(densities, advantages)


def test_the_importance_ratio_is_one_before_the_first_update_and_only_then() -> None:
    backbone = small_image_backbone(steps=3)
    algorithm = Recorded(setting_of(backbone, batch_size=6), DDPOConfig(kind="ddpo", updates=2, learning_rate=0.01))
    for _ in range(2):
        algorithm.tell(observed(backbone, algorithm.ask(6), distance_to_corner))
    algorithm.ask(6)
    first, second = algorithm.seen[:4], algorithm.seen[4:]  # two updates of two steps in each round
    assert len(second) == 4
    assert not torch.cat(first[:2]).any()
    assert torch.cat(first[2:]).abs().min() > 1e-3
    assert torch.cat(second[:2]).abs().max() < 1e-3  # of an adapted policy to rounding
    assert torch.cat(second[2:]).abs().min() > 1e-3


def test_late_answers_are_weighed_against_the_policy_that_drew_them() -> None:
    backbone = small_image_backbone(steps=3)
    algorithm = Recorded(setting_of(backbone, batch_size=6), DDPOConfig(kind="ddpo", updates=1, learning_rate=0.01))
    early, late = algorithm.ask(6), algorithm.ask(6)
    late_answers = observed(backbone, late, distance_to_corner)
    algorithm.tell(observed(backbone, early, distance_to_corner))
    adapter = algorithm.ask(6).plan.adapter
    algorithm.seen.clear()
    algorithm.tell(late_answers)
    algorithm.ask(6)
    noise = torch.stack([item.candidate.noise_sequence for item in late_answers], 1)
    conditions = torch.stack([item.candidate.condition for item in late_answers])
    transition = replay(backbone, noise, noise, conditions)[0]  # drawn by the base model: as drawn, unedited
    adapted = adapted_copy(backbone.denoiser, 4)
    write_adapter(adapted, adapter)
    expected = transition.densities(backbone, conditions, adapted).log_ratio_to_base.detach()
    assert expected.abs().min() > 1e-4
    torch.testing.assert_close(algorithm.seen[0].sort().values, expected.sort().values, rtol=1e-3, atol=1e-5)


def test_a_few_answers_wait_for_more_and_are_trained_on_once() -> None:
    backbone = small_image_backbone()
    algorithm = ddpo(setting_of(backbone, batch_size=6))
    answers = observed(backbone, algorithm.ask(6), distance_to_corner)
    algorithm.tell(answers[:2])
    assert algorithm.ask(6).plan.adapter is None
    algorithm.tell(answers[:3])
    trained = algorithm.ask(6).plan.adapter
    assert trained is not None
    state = algorithm.state_dict()
    assert state["trained_ids"] == [item.candidate.query_id for item in answers[:3]]
    assert state["answers_noise"].shape[0] == 0
    algorithm.tell(answers[:3])
    again = algorithm.ask(6).plan.adapter
    assert all(torch.equal(again[name], matrix) for name, matrix in trained.items())


def test_equal_losses_teach_nothing() -> None:
    backbone = small_image_backbone()
    algorithm = ddpo(setting_of(backbone))
    algorithm.tell(observed(backbone, algorithm.ask(5), lambda latents: 7.0 + 0.0 * distance_to_corner(latents)))
    assert algorithm.ask(5).plan.adapter is None
    assert len(algorithm.state_dict()["trained_ids"]) == 5


def answers_of(losses, conditions, proposal=0):
    answers = Answers((1,))
    for place, (loss, condition) in enumerate(zip(losses, conditions, strict=True)):
        candidate = Candidate(
            f"p{proposal:04d}-{place:02d}",
            place,
            proposal,
            torch.zeros(0),
            torch.zeros(1),
            torch.tensor([condition]),
            None,
        )
        answers.add([Observation(candidate, Status.OK, float(loss))])
    return answers


def test_advantages_are_relative_to_the_condition_once_enough_is_known_of_it() -> None:
    random = torch.Generator().manual_seed(2)
    past = PastLosses()
    earlier = torch.randn(20, generator=random).double()
    past.add(answers_of(earlier.tolist(), [0] * 14 + [1] * 6))
    fresh, conditions = torch.tensor([3.0, 5.0, -1.0]).double(), torch.tensor([[0], [0], [1]])
    found = past.advantages(fresh, conditions)
    # Condition 0: two new losses and its latest 14; condition 1 has seven, so all: three new and the latest 13.
    expected_0 = -standardise(torch.cat([fresh[:2], earlier[:14]]))[:2]
    expected_1 = -standardise(torch.cat([fresh, earlier[-13:]]))[2]
    torch.testing.assert_close(found[:2], expected_0)
    torch.testing.assert_close(found[2], expected_1)
    by_hand = torch.cat([fresh[:2], earlier[:14]])
    torch.testing.assert_close(found[0], -(3.0 - by_hand.mean()) / by_hand.std(correction=0))


def test_a_lone_answer_is_compared_with_the_past() -> None:
    past = PastLosses()
    assert past.advantages(torch.tensor([3.0]), torch.tensor([[0]])).tolist() == [0.0]
    past.add(answers_of([1.0, 2.0], [0, 0]))
    assert past.advantages(torch.tensor([0.0]), torch.tensor([[0]])).item() > 1.0
    assert past.advantages(torch.tensor([9.0]), torch.tensor([[0]])).item() < -1.0


def test_a_backbone_without_a_network_is_refused_before_anything_is_asked() -> None:
    backbone = small_backbone()
    with pytest.raises(InputError, match=r"expected a backbone with a network.*'analytic'") as caught:
        ddpo(setting_of(backbone))
    assert "\n" not in str(caught.value)
    assert not isinstance(backbone, AdaptableBackbone)
    with pytest.raises(InputError, match="expected a backbone with a network"):
        as_adaptable(backbone)
    with pytest.raises(InputError, match="cannot be loaded"):
        ddpo(AlgorithmSetting((1, 16, 16), 4, "image", 4, 0))
    with pytest.raises(InputError, match="at least 2 steps"):
        ddpo(setting_of(small_image_backbone(steps=1)))


def test_a_state_of_another_rank_or_shape_is_refused() -> None:
    backbone = small_image_backbone()
    algorithm = ddpo(setting_of(backbone))
    algorithm.tell(observed(backbone, algorithm.ask(5), distance_to_corner))
    algorithm.ask(5)
    with pytest.raises(ValueError, match="another model or rank"):
        ddpo(setting_of(backbone), rank=3).load_state_dict(algorithm.state_dict())
    with pytest.raises(ValueError, match="latents of shape"):
        ddpo(setting_of(small_molecule_backbone())).load_state_dict(algorithm.state_dict())


def test_a_plan_is_small_to_send() -> None:
    backbone = small_image_backbone()
    plan = PolicyPlan(RANK, some_adapter(backbone, 1))
    matrices = sum(matrix.numel() for matrix in plan.adapter.values())
    assert len(pickle.dumps(plan)) < 4 * matrices + 10_000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_trains_on_a_gpu() -> None:
    backbone = small_image_backbone(device="cuda")
    algorithm = ddpo(setting_of(backbone))
    for _ in range(3):
        algorithm.tell(observed(backbone, algorithm.ask(5), distance_to_corner))
    restored = ddpo(setting_of(backbone))
    restored.load_state_dict(algorithm.state_dict())
    plans = [item.ask(5).plan for item in (algorithm, restored)]
    batches = [plan.generate(backbone, DRAWS) for plan in plans]
    torch.testing.assert_close(batches[0].latents, batches[1].latents, rtol=1e-4, atol=1e-4)
    replayed = backbone.sample(batches[0].noise_sequence, batches[0].conditions)
    torch.testing.assert_close(replayed, batches[0].latents, rtol=1e-4, atol=1e-4)
