"""trust-direct, pilotwave's own and its default: surrogate steps from known noise, in a trust region that adapts.

A round of Fast Direct (Tan et al., ICLR 2025) starts from fresh noise and walks the whole way to its pseudo-target
again, with a step size that only fits one scale of scores. Here a round starts from what is known to be good:

1. The losses are standardised, and a Gaussian process on what no symmetry of the model changes is fitted to them by
   maximum marginal likelihood (:mod:`pilotwave.surrogates.fitted_process`): nothing depends on scale or shift of
   the score, and noisy answers are recognised as noisy.
2. The parents are the known samples with the best posterior means (not the luckiest answers) that lie some way
   apart.
3. Children move a parent's noise sequence, mix it with fresh noise, ``diversity`` of it at least, and take a few
   safeguarded surrogate steps, see :mod:`pilotwave.algorithms.trust_direct_plan`: one pass of the sampler for the
   start and one for each step.
4. The trust radius tau grows after a round most of whose children are better than the middle one of the round
   before, again by posterior mean, and shrinks after one in which few are (as in trust-region methods; Conn, Gould
   and Toint, 2000). Their parents are no measure of it: they are the best of all rounds, and children start with
   much fresh noise.

Answers may come in any order, late, in part, or not at all: all of this is a function of the set of answers.
Everything here is ours; what it is compared with, and how it fares, is in ``benchmarks/RESULTS.md``.

May import: torch, pydantic, pilotwave's types, config.components, the surrogates, and the modules beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pilotwave.algorithms.answers import Answers, best_first, standardise, unstandardise
from pilotwave.algorithms.trust_direct_plan import Parents, TrustDirectPlan
from pilotwave.config.components import AlgorithmConfig, AlgorithmSetting
from pilotwave.protocols import Backbone
from pilotwave.surrogates.fitted_process import FittedProcess, fit_process
from pilotwave.types import Observation, Proposal

FIRST_RADIUS, LEAST_RADIUS, LARGEST_RADIUS = 0.3, 0.02, 1.0
"""tau: a move of 1 is as long as the noise itself."""
GROWTH, SHRINKAGE = 1.4, 0.6
MOST, FEW = 0.5, 0.25
"""Shares of children that beat the round before, above and below which the radius changes."""
FEWEST_UNGUIDED = 8
NOISE_KEPT = 128
"""Noise sequences are kept of so many best answers; they are by far the largest part of the state."""
PASSES, PASSES_OF_MOLECULES = 4, 2
DIVERSITY, DIVERSITY_OF_MOLECULES = 0.7, 0.3
"""Defaults. Noise that is mixed less moves molecules as far, since their atoms' elements are chosen on the way; and
close noise often gives a known molecule, so that each question takes about two tries."""
LEAST_SHARE = {"molecule": 0.2}
"""Of fresh noise in children, by kind of sample: with less, many molecules are their parents again."""
APART = 1 / 3
"""How far apart parents lie at least: times the diversity, in mean distances between unguided samples."""
MOST_LEARNT = 1000
"""A larger memory is learnt from around its best answers only: a local surrogate."""


class TrustDirect:
    """trust-direct by ask and tell.

    Args:
        setting: Of the campaign.
        passes: Runs of the sampler for each sample, at least 1.
        parents: How many samples children descend from; of each condition, where conditions are not free.
        diversity: The share of fresh noise that children start with at least, and three times how far apart
            their parents lie, in mean distances between unguided samples; between 0 and 1.
        drift: Bound on what a sample's noises have in common.
    """

    name = "trust-direct"
    _rounds: int
    _answers: Answers
    _guided: set[int]

    def __init__(
        self,
        setting: AlgorithmSetting,
        passes: int = PASSES,
        parents: int = 4,
        diversity: float = DIVERSITY,
        drift: float = 1.5,
    ) -> None:
        self.setting = setting
        self.passes, self.parents, self.diversity, self.drift = passes, parents, diversity, drift
        self._reset()

    def ask(self, count: int) -> Proposal:
        if count < 1:
            raise ValueError(f"expected to be asked for at least one sample, got {count}")
        plan = self._plan()
        if plan.parents is not None:
            self._guided.add(self._rounds)
        self._rounds += 1
        return Proposal(self._rounds - 1, count, plan)

    def tell(self, observations: Sequence[Observation]) -> None:
        self._answers.add(observations)

    def predict(self, backbone: Backbone, latents: Tensor, conditions: Tensor) -> Tensor | None:
        answers = self._answers
        if len(answers) < FEWEST_UNGUIDED:
            return None
        surrogate = self._surrogate(self.setting.invariants(answers.latents, answers.conditions))
        if surrogate is None:
            return None
        return unstandardise(surrogate.mean(backbone.invariants(latents, conditions)), answers.losses)

    def state_dict(self) -> dict[str, Any]:
        return {
            "algorithm": self.name,
            "rounds": self._rounds,
            "guided": sorted(self._guided),
            **self._answers.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("algorithm") != self.name:
            raise ValueError(f"expected a state of algorithm {self.name!r}, got {state.get('algorithm')!r}")
        self._reset()
        self._answers.load_state_dict(state)
        self._rounds = int(state["rounds"])
        self._guided = {int(number) for number in state["guided"]}

    def _reset(self) -> None:
        self._rounds = 0
        self._answers = Answers(self.setting.latent_shape, self.setting.steps, NOISE_KEPT)
        self._guided = set()

    def _plan(self) -> TrustDirectPlan:
        if len(self._answers) < FEWEST_UNGUIDED:
            return TrustDirectPlan()
        described = self.setting.invariants(self._answers.latents, self._answers.conditions)
        surrogate = self._surrogate(described)
        if surrogate is None:
            return TrustDirectPlan()
        means = surrogate.mean(described).double()
        return TrustDirectPlan(
            self._choose_parents(means, described),
            surrogate,
            self._radius(means),
            self.passes,
            self.drift,
            max(self.diversity, LEAST_SHARE.get(self.setting.media, 0.0)),
        )

    def _surrogate(self, described: Tensor) -> FittedProcess | None:
        """Fits the loss on all answers, or on those nearest to the best ones where there are too many."""
        losses = self._answers.losses
        if len(losses) <= MOST_LEARNT:
            return fit_process(described, standardise(losses))
        best = described[best_first(losses)[: self.parents]].double()
        nearest = best_first(torch.cdist(described.double(), best).amin(dim=1))[:MOST_LEARNT].sort().values
        return fit_process(described[nearest], standardise(losses)[nearest])

    def _choose_parents(self, means: Tensor, described: Tensor) -> Parents:
        """Takes the best that are far enough apart; of each condition, where that is not ours to choose."""
        answers, free = self._answers, self.setting.conditions_are_free
        candidates = answers.places_of(answers.ids_with_noise)
        conditions = [tuple(condition) for condition in answers.conditions.tolist()]
        apart = APART * self.diversity * self._typical_distance(described)
        chosen: dict[tuple[int, ...], list[int]] = {}
        for rank in best_first(means[candidates]).tolist():
            place = candidates[rank]
            niche = chosen.setdefault(() if free else conditions[place], [])
            if len(niche) < self.parents and _is_apart(described[place], described[niche], apart):
                niche.append(place)
        places = sorted(place for niche in chosen.values() for place in niche)
        row = {name: number for number, name in enumerate(answers.ids_with_noise)}
        noise = answers.noise_sequences[[row[answers.ids[place]] for place in places]]
        return Parents(noise, answers.latents[places], answers.conditions[places], free)

    def _typical_distance(self, described: Tensor) -> float:
        """The mean distance between unguided samples."""
        distances = torch.pdist(described[~self._is_guided()].double())
        return float(distances.mean()) if len(distances) else 0.0

    def _is_guided(self) -> Tensor:
        """Which answers are of samples that descend from others, (N,)."""
        numbers = self._answers.proposals.tolist()
        return torch.tensor([number in self._guided for number in numbers], dtype=torch.bool)

    def _radius(self, means: Tensor) -> float:
        """Tau after all rounds with answers so far, in the order in which they were proposed.

        It changes after a round with answers of half a batch at least; smaller rounds, such as those of single
        samples in an asynchronous campaign, count together.
        """
        guided, radius = self._is_guided(), FIRST_RADIUS
        before, now = means[~guided], list[float]()
        numbers = self._answers.proposals
        for number in sorted(self._guided):
            now += means[numbers == number].tolist()
            if 2 * len(now) < self.setting.batch_size or len(before) == 0:
                continue
            children = torch.tensor(now, dtype=torch.float64)
            rate = float((children < before.median()).double().mean())
            radius *= GROWTH if rate > MOST else SHRINKAGE if rate < FEW else 1.0
            radius = min(max(radius, LEAST_RADIUS), LARGEST_RADIUS)
            before, now = children, []
        return radius


def _is_apart(point: Tensor, others: Tensor, least: float) -> bool:
    return len(others) == 0 or float(torch.linalg.vector_norm(others - point, dim=1).min()) >= least


class TrustDirectConfig(AlgorithmConfig):
    """Choice ``trust-direct``; there is no step size to tune."""

    summary: ClassVar[str] = (
        "Surrogate steps from the best known noise, in a trust region that adapts itself (ours)."
    )

    kind: Literal["trust-direct"]
    passes: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Sampler runs for each sample: one, and one for each surrogate step. Default: "
        f"{PASSES_OF_MOLECULES} for molecules, which are drawn again where they are known already, otherwise "
        f"{PASSES}.",
    )
    parents: int = Field(
        4, ge=1, le=NOISE_KEPT, description="Known samples that new ones descend from; fewer are greedier."
    )
    diversity: float | None = Field(
        None,
        ge=0,
        le=1,
        description="How much of their noise is fresh at least, and how far apart those they descend from lie: 0 "
        "for the best mean, 1 for samples almost as varied as unguided ones. Default: "
        f"{DIVERSITY_OF_MOLECULES} for molecules, otherwise {DIVERSITY}.",
    )
    drift: float = Field(
        1.5,
        ge=1,
        le=1e6,
        description="Quality guard: how long the common part of a sample's noises may be, as a multiple of what "
        "chance gives it. 1 keeps samples likeliest under the model; large values let them run off it.",
    )

    def build(self, setting: AlgorithmSetting) -> TrustDirect:
        molecule = setting.media == "molecule"
        passes = PASSES_OF_MOLECULES if molecule else PASSES
        diversity = DIVERSITY_OF_MOLECULES if molecule else DIVERSITY
        return TrustDirect(
            setting,
            passes if self.passes is None else self.passes,
            self.parents,
            diversity if self.diversity is None else self.diversity,
            self.drift,
        )


__all__ = ["TrustDirect", "TrustDirectConfig"]
