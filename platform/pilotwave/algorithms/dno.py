"""Direct noise optimisation with zeroth-order gradients: ascent in the noise itself, kept plausible.

After Tang, Peng, Tang, Hong, Wang and Chang, "Tuning-Free Alignment of Diffusion Models with Direct Noise
Optimization", 2024, arXiv 2405.18881 (ICML 2025 as "Inference-Time Alignment of Diffusion Models with ...").

| symbol in the paper | here |
|---|---|
| z, all noise vectors of one sample | a thread's point |
| M(z), r | the backbone's ``sample``, minus the loss |
| mu, xi | ``smoothing``, perturbations; see :mod:`pilotwave.algorithms.dno_plan` |
| learning rate | ``step_size`` |
| gamma | ``regularisation`` |
| k, m, Pi | ``SUB_DIM``, sub-vectors, ``permutations``; see :mod:`pilotwave.algorithms.plausibility` |

The gradient is the paper's zeroth-order estimate (ZO-SGD), E[(f(z + mu xi) - f(z)) xi] / mu: its better hybrid
estimates differentiate the sampler, which a backbone here does not offer. The update is that of the reference
implementation: the estimate is scaled to norm one, gamma times the gradient of the regulariser is added, and Adam
makes the step.

What deviates. The answers' mean stands for f(z), so that the point itself is never queried. Perturbations come in
mirrored pairs. Losses are standardised within a group before the estimate; its norm is one afterwards anyway, so
this only keeps it finite. An estimate from a part of the answers makes that part of a step. Threads begin from the
best answers to unguided proposals instead of anywhere, because the first batch is asked in any case. The noise of
each step is put back on the shell (norm) it began on, unless ``keep_norm`` is off; the paper has the regulariser
alone. The default step size suits some tens of steps, the reference's 0.01 a hundred. The default smoothing is
above the reference's 0.01 too: 0.1, and 0.4 for molecules, where most neighbours at 0.1 decode to the same one (of
48 perturbations of the built-in model 17 gave different molecules at 0.1, 37 at 0.3, 47 at 0.5).

A *round* is one step of every thread: a proposal, or several in a row where one is too small to have two draws for
each thread. The points are a fold over the rounds, so they depend on the set of answers and not on their order. If
conditions are free (atoms of a molecule) a thread has the condition it began with; otherwise each draw has its own,
and a thread is shared by all conditions.

May import: torch, pydantic, pilotwave's types, config.components, and the modules beside it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from pilotwave.algorithms.answers import Answers, best_first, standardise
from pilotwave.algorithms.dno_plan import DnoPlan, Role, estimate_gradient, in_scale, perturbations, role_of
from pilotwave.algorithms.plausibility import implausibility_gradient
from pilotwave.algorithms.variation import generator_for, onto_shell
from pilotwave.config.components import AlgorithmConfig, AlgorithmSetting
from pilotwave.types import Draw, Observation, Proposal, ok_observations

BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8
"""Of Adam, as in the reference implementation."""
DEFAULT_SMOOTHING = {"molecule": 0.4}
KEPT_ROUNDS = 4
"""Late answers of so many rounds are learnt without folding all rounds again."""


class Point(NamedTuple):
    """Where a thread is, with Adam's moments; float64 of shape (steps + 1, *latent_shape) each."""

    noise: Tensor
    first: Tensor
    second: Tensor
    steps: int

    @classmethod
    def beginning(cls, start: Tensor) -> Point:
        """Returns the point of a thread before its first step."""
        return cls(start.double(), torch.zeros_like(start).double(), torch.zeros_like(start).double(), 0)

    def moved(self, gradient: Tensor, step_size: float) -> Point:
        """Makes a step of Adam (Kingma and Ba, 2015, algorithm 1) down the gradient."""
        steps = self.steps + 1
        first = BETAS[0] * self.first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * self.second + (1 - BETAS[1]) * gradient.square()
        # The gradient has norm one, hence components of about 1 / sqrt(dim), to which epsilon is relative.
        scale = (second / (1 - BETAS[1] ** steps)).sqrt() + ADAM_EPSILON / math.sqrt(gradient.numel())
        return Point(self.noise - step_size * first / (1 - BETAS[0] ** steps) / scale, first, second, steps)


class Asked(NamedTuple):
    """What is remembered of a proposal: its draws, its round (-1: unguided), and the round's pairs before it."""

    draws: int
    round: int
    pairs_before: int


class Told(NamedTuple):
    """What is remembered of an answer to a guided proposal."""

    proposal: int
    seed: int
    loss: float


class DirectNoiseOptimisation:
    """Zeroth-order direct noise optimisation by ask and tell; answers in any order, in part, and more than once.

    It remembers the noise of unguided answers until the threads begin, and from then on seeds and losses only.

    Args:
        setting: Of the campaign.
        threads: How many points are optimised side by side.
        step_size: Of Adam: a component of the noise moves by at most about this much a step.
        smoothing: mu.
        regularisation: gamma.
        permutations: Of the regulariser.
        keep_norm: Whether noise goes back on its shell.
    """

    name = "dno"

    def __init__(
        self,
        setting: AlgorithmSetting,
        threads: int,
        step_size: float,
        smoothing: float,
        regularisation: float,
        permutations: int,
        keep_norm: bool,
    ) -> None:
        self.threads = threads
        self.step_size = step_size
        self.smoothing = smoothing
        self.regularisation = regularisation
        self.permutations = permutations
        self.keep_norm = keep_norm
        self._setting = setting
        self._unguided = Answers(setting.latent_shape, setting.steps)
        self._asked: list[Asked] = []
        self._told: dict[str, Told] = {}
        self._start, self._points = (torch.zeros(0, setting.steps + 1, *setting.latent_shape) for _ in range(2))
        self._conditions = torch.zeros(0, 0, dtype=torch.int64)
        self._before_round: dict[int, list[Point]] = {}

    def ask(self, count: int) -> Proposal:
        if count < 1:
            raise ValueError(f"expected to be asked for at least one sample, got {count}")
        # Half a batch is enough to choose from, so that some failures do not cost a second unguided batch.
        if not len(self._start) and len(self._unguided) >= max(self.threads, self._setting.batch_size / 2):
            self._begin()
        number = len(self._asked)
        self._asked.append(self._place(count) if len(self._start) else Asked(count, -1, 0))
        plan = DnoPlan(
            self._points.clone(),
            self._conditions,
            self._roles(number),
            self.smoothing,
            self.keep_norm,
            self._setting.conditions_are_free,
        )
        return Proposal(number, count, plan)

    def tell(self, observations: Sequence[Observation]) -> None:
        known = [item for item in observations if 0 <= item.candidate.proposal < len(self._asked)]
        rounds = {item.candidate.query_id: self._asked[item.candidate.proposal].round for item in known}
        if not len(self._start):
            self._unguided.add([item for item in known if rounds[item.candidate.query_id] < 0])
        for candidate, loss in ok_observations(known):
            place = rounds[candidate.query_id]
            if place < 0 or candidate.query_id in self._told or not candidate.latent.isfinite().all():
                continue
            self._told[candidate.query_id] = Told(candidate.proposal, candidate.seed, loss)
            self._before_round = {at: points for at, points in self._before_round.items() if at <= place}

    def state_dict(self) -> dict[str, Any]:
        told = dict(sorted(self._told.items()))
        return {
            "algorithm": self.name,
            **self._unguided.state_dict(),
            "asked": [list(item) for item in self._asked],
            "told_ids": list(told),
            "told_proposals": [item.proposal for item in told.values()],
            "told_seeds": torch.tensor([item.seed for item in told.values()], dtype=torch.int64),
            "told_losses": torch.tensor([item.loss for item in told.values()], dtype=torch.float64),
            "start": self._start,
            "points": self._points,
            "conditions": self._conditions,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("algorithm") != self.name:
            raise ValueError(f"expected a state of algorithm {self.name!r}, got {state.get('algorithm')!r}")
        self._unguided.load_state_dict(state)
        self._asked = [Asked(*item) for item in state["asked"]]
        told = zip(
            state["told_proposals"], state["told_seeds"].tolist(), state["told_losses"].tolist(), strict=True
        )
        self._told = dict(zip(state["told_ids"], (Told(*item) for item in told), strict=True))
        self._start, self._points = state["start"].clone(), state["points"].clone()
        self._conditions = state["conditions"].clone()
        self._before_round = {}

    def _begin(self) -> None:
        """Begins the threads at the best unguided answers and forgets the others."""
        best = best_first(self._unguided.losses)[: self.threads]
        self._start = self._unguided.noise_sequences[best]
        self._conditions = self._unguided.conditions[best]
        self._unguided = Answers(self._setting.latent_shape, self._setting.steps)

    def _place(self, count: int) -> Asked:
        """Puts a proposal into the open round; if that is full, opens one at the points reached by now."""
        last = max(item.round for item in self._asked)
        members = [item for item in self._asked if item.round == last]
        if last < 0 or sum(item.draws for item in members) >= 2 * self.threads:
            self._points = torch.stack([point.noise for point in self._reached(last + 1)]).float()
            return Asked(count, last + 1, 0)
        return Asked(count, last, sum((item.draws + 1) // 2 for item in members))

    def _roles(self, number: int) -> dict[int, Role]:
        """Returns the roles in a proposal: draws 2j and 2j + 1 mirror each other in the direction of draw 2j."""
        draws, place, pairs_before = self._asked[number]
        if place < 0:
            return {}
        seeds = [Draw.of(self._setting.seed, number, slot).seed for slot in range(draws)]
        return {
            seed: Role((pairs_before + slot // 2) % self.threads, seeds[slot - slot % 2], 1.0 - 2 * (slot % 2))
            for slot, seed in enumerate(seeds)
        }

    def _reached(self, place: int) -> list[Point]:
        """Returns the points of all threads before a round: the fold of all answers to earlier rounds."""
        done = max((at for at in self._before_round if at <= place), default=0)
        points = self._before_round.get(done) or [Point.beginning(start) for start in self._start]
        for at in range(done, place):
            groups = self._groups(at)
            points = [self._stepped(points[thread], thread, at, groups[thread]) for thread in range(self.threads)]
            self._before_round[at + 1] = points
        self._before_round = {at: self._before_round[at] for at in sorted(self._before_round)[-KEPT_ROUNDS:]}
        return points

    def _groups(self, place: int) -> dict[int, list[tuple[Role, float]]]:
        """Returns the answers to a round by thread, in the order of their ids."""
        numbers = [number for number, item in enumerate(self._asked) if item.round == place]
        roles = {number: self._roles(number) for number in numbers}
        groups: defaultdict[int, list[tuple[Role, float]]] = defaultdict(list)
        for name, (proposal, seed, loss) in sorted(self._told.items()):
            if proposal in roles:
                role = role_of(name, seed, roles[proposal], self.threads)
                groups[role.thread].append((role, loss))
        return groups

    def _stepped(self, point: Point, thread: int, place: int, group: Sequence[tuple[Role, float]]) -> Point:
        """Makes a thread's step of a round; none if its answers say nothing (fewer than two, or all equal)."""
        roles = [role for role, _ in group]
        losses = standardise(torch.tensor([loss for _, loss in group], dtype=torch.float64))
        if not losses.any():
            return point
        start = self._start[thread]
        moves = perturbations(roles, start[:, None].expand(-1, len(roles), *start.shape[1:]))
        directions = in_scale(moves, [role.scale**-2 for role in roles])
        estimate = estimate_gradient(directions.transpose(0, 1), losses, self.smoothing)
        norm = torch.linalg.vector_norm(estimate)
        if not norm > 0:
            return point
        wanted = sum(item.draws for item in self._asked if item.round == place) / self.threads
        gradient = estimate / norm * min(1.0, len(group) / wanted)
        if self.regularisation:
            random = generator_for(self._setting.seed, f"permutations of round {place}, thread {thread}")
            used = start != 0
            pull = implausibility_gradient(point.noise[used], self.permutations, random)
            gradient[used] += self.regularisation * pull
        moved = point.moved(gradient, self.step_size)
        if not self.keep_norm:
            return moved
        return moved._replace(noise=onto_shell(moved.noise[:, None], start[:, None])[:, 0].double())


class DnoConfig(AlgorithmConfig):
    """Choice ``dno``."""

    summary: ClassVar[str] = (
        "Direct noise optimisation with zeroth-order gradients and plausible noise (ICML 2025)."
    )

    kind: Literal["dno"]
    threads: int = Field(1, ge=1, le=1000, description="Noise sequences that are optimised side by side.")
    step_size: float = Field(0.2, gt=0, le=10, description="Of Adam: how far a component moves in a step, at most.")
    smoothing: float | None = Field(
        None,
        gt=0,
        le=10,
        description="mu, the size of the perturbations that the gradient is estimated from. Default: 0.4 for "
        "molecules, otherwise 0.1.",
    )
    regularisation: float = Field(
        1.0, ge=0, le=1e6, description="gamma, the weight of the pull towards plausible noise; 0 for none."
    )
    permutations: int = Field(
        20, ge=0, le=1000, description="Random orders of the components in which their plausibility is judged."
    )
    keep_norm: bool = Field(True, description="Whether the noise of each step keeps the norm it began with.")

    def build(self, setting: AlgorithmSetting) -> DirectNoiseOptimisation:
        return DirectNoiseOptimisation(
            setting,
            self.threads,
            self.step_size,
            DEFAULT_SMOOTHING.get(setting.media, 0.1) if self.smoothing is None else self.smoothing,
            self.regularisation,
            self.permutations,
            self.keep_norm,
        )


__all__ = ["DirectNoiseOptimisation", "DnoConfig"]
