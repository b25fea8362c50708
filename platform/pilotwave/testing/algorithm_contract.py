"""What every algorithm must do, as tests: subclass :class:`AlgorithmContract` and give a factory.

The algorithm works on small analytic backbones, with and without a condition, unless ``make_backbone`` gives
others. May import: pytest, torch, pilotwave's types and protocols, config.components and the analytic backbone.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from pilotwave.backbones.analytic import AnalyticBackbone, synthetic_clusters
from pilotwave.config.components import AlgorithmSetting
from pilotwave.protocols import Algorithm, Backbone
from pilotwave.types import Candidate, Draw, GeneratedBatch, Observation, Proposal, Status

Score = Callable[[Tensor], Tensor]
"""From latents (batch, *latent_shape) to losses (batch,)."""


def distance_to_corner(latents: Tensor) -> Tensor:
    """A loss with a single minimum away from the data."""
    return (latents.flatten(1).double() - 0.5).square().mean(dim=1)


def small_backbone(conditional: bool = False) -> AnalyticBackbone:
    """Returns an analytic backbone with latents of shape (3, 4) in 4 steps."""
    data = synthetic_clusters(12, 3, 2, seed=1, count=200).reshape(-1, 3, 4)
    return AnalyticBackbone.fit(data, components=3, rank=2, steps=4, conditional=conditional)


def setting_of(backbone: Backbone, batch_size: int = 5) -> AlgorithmSetting:
    """Returns what an algorithm is told of a campaign on this backbone."""
    return AlgorithmSetting(
        backbone.latent_shape,
        backbone.steps,
        backbone.media,
        batch_size,
        seed=3,
        conditions_are_free=backbone.conditions_are_free,
        invariants=backbone.invariants,
        build_backbone=lambda: backbone,
    )


def generated(backbone: Backbone, proposal: Proposal) -> tuple[list[Draw], GeneratedBatch]:
    """Runs a proposal's plan."""
    draws = [Draw.of(3, proposal.number, slot) for slot in range(proposal.count)]
    return draws, proposal.plan.generate(backbone, draws)


def observed(
    backbone: Backbone, proposal: Proposal, score: Score, statuses: Sequence[Status] = (Status.OK,)
) -> list[Observation]:
    """Runs a proposal and judges it; the statuses are dealt out in turn."""
    draws, batch = generated(backbone, proposal)
    losses = score(batch.latents).tolist()
    samples = backbone.decode(batch.latents, batch.conditions)
    observations = []
    for i, draw in enumerate(draws):
        candidate = Candidate(
            query_id=draw.query_id,
            seed=draw.seed,
            proposal=proposal.number,
            noise_sequence=batch.noise_sequence[:, i].clone(),
            latent=batch.latents[i].clone(),
            condition=batch.conditions[i].clone(),
            sample=None if not hasattr(samples[i], "media") else samples[i],  # type: ignore[arg-type]
        )
        status = statuses[i % len(statuses)]
        observations.append(Observation(candidate, status, losses[i] if status is Status.OK else None))
    return observations


def earlier_answers(backbone: Backbone, count: int = 12, score: Score = distance_to_corner) -> list[Observation]:
    """Returns answers of an earlier campaign, as a warm start tells them: ids of their own, proposal -1."""
    draws = [Draw.of(99, 0, slot) for slot in range(count)]
    noise, conditions = backbone.draw_noise(draws), backbone.draw_conditions(draws)
    latents = backbone.sample(noise, conditions)
    noise = noise.half().float()  # an archive may keep them so
    losses = score(latents).tolist()
    return [
        Observation(
            Candidate(f"w{i + 1:04d}", draws[i].seed, -1, noise[:, i].clone(), latents[i], conditions[i], None),
            Status.OK,
            losses[i],
        )
        for i in range(count)
    ]


class AlgorithmContract:
    """Tests of :class:`pilotwave.protocols.Algorithm`.

    Attributes:
        order_invariant: Whether answers told in another order lead to the same samples, to ``tolerance``.
        tolerance: Of that comparison.
        learns_from_earlier_answers: Whether it takes answers of other campaigns for its own. If not, it must go on
            as if it had not been told of them.
    """

    order_invariant = True
    tolerance = 1e-3
    learns_from_earlier_answers = True

    def make_algorithm(self, setting: AlgorithmSetting) -> Algorithm:
        """Returns the algorithm under test with an empty memory."""
        raise NotImplementedError

    def make_backbone(self, conditional: bool = False) -> Backbone:
        """Returns a small backbone that the algorithm works on; the analytic one unless it needs another."""
        return small_backbone(conditional)

    def after(self, rounds: int, backbone: Backbone, score: Score = distance_to_corner) -> Algorithm:
        """Returns an algorithm that has been through so many rounds of five."""
        algorithm = self.make_algorithm(setting_of(backbone))
        for _ in range(rounds):
            algorithm.tell(observed(backbone, algorithm.ask(5), score))
        return algorithm

    def assert_same_future(self, left: Algorithm, right: Algorithm, backbone: Backbone) -> None:
        """Fails unless the next two rounds of both are identical, bit for bit."""
        for _ in range(2):
            batches = []
            for algorithm in (left, right):
                proposal = algorithm.ask(5)
                batches.append((proposal.number, generated(backbone, proposal)[1]))
                algorithm.tell(observed(backbone, proposal, distance_to_corner))
            assert batches[0][0] == batches[1][0]
            assert torch.equal(batches[0][1].noise_sequence, batches[1][1].noise_sequence)
            assert torch.equal(batches[0][1].latents, batches[1][1].latents)

    @pytest.mark.parametrize("conditional", [False, True])
    def test_a_batch_is_what_its_noise_says(self, conditional: bool) -> None:
        backbone = self.make_backbone(conditional)
        algorithm = self.make_algorithm(setting_of(backbone))
        assert isinstance(algorithm, Algorithm)
        for number in range(4):
            proposal = algorithm.ask(5)
            assert (proposal.number, proposal.count) == (number, 5)
            draws, batch = generated(backbone, proposal)
            assert batch.noise_sequence.shape == (backbone.steps + 1, 5, *backbone.latent_shape)
            assert batch.conditions.shape == (5, backbone.condition_size)
            assert batch.passes >= 1
            assert torch.equal(batch.conditions, backbone.draw_conditions(draws))
            replayed = backbone.sample(batch.noise_sequence, batch.conditions)
            torch.testing.assert_close(replayed, batch.latents, rtol=1e-4, atol=1e-4)
            algorithm.tell(observed(backbone, proposal, distance_to_corner))

    def test_a_plan_travels_and_gives_the_same_batch_twice(self) -> None:
        backbone = self.make_backbone()
        proposal = self.after(3, backbone).ask(4)
        sent = pickle.loads(pickle.dumps(proposal))
        first, second = (generated(backbone, item)[1] for item in (proposal, sent))
        assert torch.equal(first.noise_sequence, second.noise_sequence)
        assert torch.equal(first.latents, second.latents)

    @pytest.mark.parametrize("conditional", [False, True])
    def test_a_batch_that_does_not_fit_may_be_made_in_parts(self, conditional: bool) -> None:
        backbone = self.make_backbone(conditional)
        for rounds in (0, 3):
            plan = self.after(rounds, backbone).ask(5).plan
            if getattr(plan, "couples_draws", False):
                continue
            draws = [Draw.of(1, rounds, slot) for slot in range(5)]
            whole = plan.generate(backbone, draws)
            parts = [plan.generate(backbone, part) for part in (draws[:3], draws[3:])]
            for name, dim in (("noise_sequence", 1), ("latents", 0), ("conditions", 0)):
                joined = torch.cat([getattr(part, name) for part in parts], dim)
                torch.testing.assert_close(joined, getattr(whole, name), rtol=1e-3, atol=1e-3)

    def test_a_plan_is_not_changed_by_later_answers(self) -> None:
        backbone = self.make_backbone()
        algorithm = self.after(2, backbone)
        early, waiting = algorithm.ask(5), algorithm.ask(5)
        before = generated(backbone, waiting)[1].latents
        algorithm.tell(observed(backbone, early, distance_to_corner))
        assert torch.equal(generated(backbone, waiting)[1].latents, before)

    def test_nothing_is_asked_for_is_an_error(self) -> None:
        algorithm = self.make_algorithm(setting_of(self.make_backbone()))
        with pytest.raises(ValueError, match="at least one"):
            algorithm.ask(0)

    def test_telling_twice_changes_nothing(self) -> None:
        backbone = self.make_backbone()
        once, twice = self.after(2, backbone), self.after(2, backbone)
        for algorithm, times in ((once, 1), (twice, 3)):
            observations = observed(backbone, algorithm.ask(5), distance_to_corner)
            for _ in range(times):
                algorithm.tell(observations)
        self.assert_same_future(once, twice, backbone)

    def test_a_name_told_twice_in_one_call_counts_once(self) -> None:
        backbone = self.make_backbone()
        once, twice = self.after(1, backbone), self.after(1, backbone)
        for algorithm, times in ((once, 1), (twice, 2)):
            algorithm.tell(observed(backbone, algorithm.ask(5), distance_to_corner) * times)
        self.assert_same_future(once, twice, backbone)

    def test_answers_come_in_any_order_and_in_parts(self) -> None:
        backbone = self.make_backbone()
        whole, parts = (self.make_algorithm(setting_of(backbone)) for _ in range(2))
        proposals = [(whole.ask(5), parts.ask(5)) for _ in range(2)]
        told = [observed(backbone, proposal, distance_to_corner) for proposal, _ in proposals]
        whole.tell([*told[0], *told[1]])
        parts.tell(told[1][3:])
        parts.tell([])
        parts.tell(told[0][::-1])
        for observation in told[1][2::-1]:
            parts.tell([observation])
        batches = [generated(backbone, algorithm.ask(5))[1] for algorithm in (whole, parts)]
        for batch in batches:
            assert batch.latents.isfinite().all()
        if self.order_invariant:
            torch.testing.assert_close(
                batches[0].latents, batches[1].latents, rtol=self.tolerance, atol=self.tolerance
            )

    @pytest.mark.parametrize("conditional", [False, True])
    @pytest.mark.parametrize("rounds", [0, 1, 3])
    def test_a_restored_algorithm_goes_on_bit_for_bit(self, conditional: bool, rounds: int) -> None:
        backbone = self.make_backbone(conditional)
        original = self.after(rounds, backbone)
        waiting = original.ask(5)
        answers = observed(backbone, waiting, distance_to_corner)
        original.tell(answers[:2])
        state = original.state_dict()
        rest = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        tensors = {key: value.clone() for key, value in state.items() if isinstance(value, Tensor)}
        restored = self.make_algorithm(setting_of(backbone))
        restored.load_state_dict({**json.loads(json.dumps(rest)), **tensors})
        for algorithm in (original, restored):
            algorithm.tell(answers)
        self.assert_same_future(original, restored, backbone)

    def test_another_algorithm_s_state_is_refused(self) -> None:
        algorithm = self.make_algorithm(setting_of(self.make_backbone()))
        with pytest.raises(ValueError, match="expected a state"):
            algorithm.load_state_dict({**algorithm.state_dict(), "algorithm": "somebody else"})

    def test_failures_teach_nothing_and_stop_nothing(self) -> None:
        backbone = self.make_backbone()
        failures = [status for status in Status if status is not Status.OK]
        never_told, all_failed = (self.make_algorithm(setting_of(backbone)) for _ in range(2))
        for _ in range(3):
            never_told.ask(5)
            all_failed.tell(observed(backbone, all_failed.ask(5), distance_to_corner, failures))
        left, right = (generated(backbone, algorithm.ask(5))[1] for algorithm in (never_told, all_failed))
        assert torch.equal(left.latents, right.latents)

    def test_some_failures_are_survived(self) -> None:
        backbone = self.make_backbone()
        algorithm = self.make_algorithm(setting_of(backbone))
        for _ in range(4):
            statuses = (Status.OK, Status.FAILED, Status.INFEASIBLE, Status.TIMED_OUT)
            proposal = algorithm.ask(5)
            assert generated(backbone, proposal)[1].latents.isfinite().all()
            algorithm.tell(observed(backbone, proposal, distance_to_corner, statuses))

    @pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-3, 1e6, 1e30, 1e300])
    def test_any_finite_scores_keep_samples_finite(self, scale: float) -> None:
        backbone = self.make_backbone()
        algorithm = self.after(4, backbone, lambda latents: scale * distance_to_corner(latents))
        batch = generated(backbone, algorithm.ask(5))[1]
        assert batch.noise_sequence.isfinite().all()
        assert batch.latents.isfinite().all()

    def test_a_batch_of_one(self) -> None:
        backbone = self.make_backbone(conditional=True)
        algorithm = self.make_algorithm(setting_of(backbone, batch_size=1))
        for _ in range(5):
            observations = observed(backbone, algorithm.ask(1), distance_to_corner)
            assert len(observations) == 1
            algorithm.tell(observations)

    @pytest.mark.parametrize("conditional", [False, True])
    def test_a_warm_start_is_learnt_from_or_left_alone(self, conditional: bool) -> None:
        backbone = self.make_backbone(conditional)
        warm, cold = (self.make_algorithm(setting_of(backbone)) for _ in range(2))
        earlier = earlier_answers(backbone)
        warm.tell(earlier)
        warm.tell(earlier[:5])
        if self.learns_from_earlier_answers:
            assert not _same(warm.state_dict(), cold.state_dict())
        else:
            self.assert_same_future(warm, cold, backbone)
        for _ in range(3):
            proposal = warm.ask(5)
            batch = generated(backbone, proposal)[1]
            assert batch.noise_sequence.isfinite().all()
            assert batch.latents.isfinite().all()
            warm.tell(observed(backbone, proposal, distance_to_corner))

    def test_a_warm_start_survives_a_checkpoint(self) -> None:
        backbone = self.make_backbone()
        original, restored = (self.make_algorithm(setting_of(backbone)) for _ in range(2))
        original.tell(earlier_answers(backbone))
        state = original.state_dict()
        rest = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        tensors = {key: value.clone() for key, value in state.items() if isinstance(value, Tensor)}
        restored.load_state_dict({**json.loads(json.dumps(rest)), **tensors})
        for algorithm in (original, restored):
            algorithm.tell(observed(backbone, algorithm.ask(5), distance_to_corner))
        self.assert_same_future(original, restored, backbone)

    def test_the_same_latent_many_times(self) -> None:
        backbone = self.make_backbone()
        algorithm = self.make_algorithm(setting_of(backbone))
        first = observed(backbone, algorithm.ask(1), distance_to_corner)[0].candidate
        for copy in range(6):
            twin = Candidate(
                f"twin-{copy}", first.seed, 0, first.noise_sequence, first.latent, first.condition, first.sample
            )
            algorithm.tell([Observation(twin, Status.OK, 1.0 + copy)])
        algorithm.ask(3)
        assert generated(backbone, algorithm.ask(3))[1].latents.isfinite().all()


def _same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    if left.keys() != right.keys():
        return False
    pairs = [(value, right[key]) for key, value in left.items()]
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


__all__ = [
    "AlgorithmContract",
    "distance_to_corner",
    "earlier_answers",
    "generated",
    "observed",
    "setting_of",
    "small_backbone",
]
