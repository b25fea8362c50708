"""Noise trajectory search: epsilon-greedy variation of the best noise sequences.

After Ramesh and Mardani, "Test-Time Scaling of Diffusion Models via Noise Trajectory Search", NeurIPS 2025,
arXiv 2506.03164. The paper sees sampling as one contextual bandit per step. At every step it keeps a pivot noise;
K times it draws N candidates, each with probability epsilon fresh and otherwise near the pivot, scores each by the
reward of the clean sample predicted from it, and makes the best one the pivot. In its runs the search jumps at the
extreme steps, where that pays, and stays near the pivot in between.

| symbol in the paper | here |
|---|---|
| pivot noise of a step | a step of one of the ``pivots`` |
| N candidates per iteration | a proposal's draws |
| K iterations per step | proposals |
| epsilon | ``redraw_extreme`` at the first and last noise, ``redraw_middle`` half-way |
| lambda, radius lambda * sqrt(d) | ``radius``, d the components that the sampler uses |

What deviates. An oracle here answers finished samples only, and each answer is paid for, so no step has a reward of
its own. The lookahead per step is replaced by whole trajectories: the pivots are the noise sequences with the best
answers so far (a beam), a draw varies *all* steps of one of them at once, and the answer of the finished sample is
credited to the whole sequence. Three consequences: epsilon is smaller than the paper's 0.4, because redrawing four
steps in ten of a whole sequence forgets its pivot; that far draws belong to the extreme steps is set rather than
found; and each step's noise keeps its norm (the pivot's, or the fresh draw's), because over many generations it
would leave its shell. As in the paper a local move has a uniform direction and a length uniform on
(0, lambda * sqrt(d)); lambda is 0.15 there.

May import: torch, pydantic, pilotwave's types, protocols, config.components, and the modules beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pilotwave.algorithms.variation import (
    child_conditions,
    draw_fresh_noise,
    eligible_parents,
    generator_for,
    onto_shell,
)
from pilotwave.config.components import AlgorithmConfig, AlgorithmSetting
from pilotwave.protocols import Backbone
from pilotwave.types import Candidate, Draw, GeneratedBatch, Observation, Proposal, ok_observations


@dataclass(frozen=True)
class Moves:
    """How far children lie from their pivots.

    Attributes:
        radius: lambda, of the local moves.
        redraw_extreme: Probability that the first or the last noise is drawn afresh.
        redraw_middle: The same half-way; in between linearly.
    """

    radius: float
    redraw_extreme: float
    redraw_middle: float

    def redraw_probabilities(self, steps: int) -> Tensor:
        """Returns the probability of a fresh draw at each entry of a noise sequence, float64 of shape (steps + 1,).

        The last entry is not injected and gets the last injected one's.
        """
        places = torch.arange(steps + 1, dtype=torch.float64).clamp(max=max(steps - 1, 0))
        extremeness = (2 * places / max(steps - 1, 1) - 1).abs()
        return self.redraw_middle + (self.redraw_extreme - self.redraw_middle) * extremeness


@dataclass(frozen=True)
class NoiseSearchPlan:
    """Children of the pivots, one sampler run each; unguided samples while there are no pivots.

    Attributes:
        pivots: Noise of the beam, (beam, steps + 1, *latent_shape); best first.
        conditions: Of the beam, (beam, condition_size).
        moves: How far children lie from them.
        conditions_are_free: Whether a child takes its pivot's condition.
    """

    pivots: Tensor
    conditions: Tensor
    moves: Moves
    conditions_are_free: bool

    def generate(self, backbone: Backbone, draws: Sequence[Draw]) -> GeneratedBatch:
        noise_sequence, conditions = backbone.draw_noise(draws), backbone.draw_conditions(draws)
        if len(self.pivots):
            chosen = [self._pivot_of(draw, own) for draw, own in zip(draws, conditions, strict=True)]
            conditions = child_conditions(conditions, self.conditions[chosen], self.conditions_are_free)
            noise_sequence = vary(self.pivots[chosen].transpose(0, 1), draws, self.moves)
        return GeneratedBatch(noise_sequence, backbone.sample(noise_sequence, conditions), conditions, passes=1)

    def _pivot_of(self, draw: Draw, condition: Tensor) -> int:
        eligible = eligible_parents(condition, self.conditions, self.conditions_are_free)
        return eligible[int(generator_for(draw.seed, "pivot").integers(len(eligible)))]


def vary(pivots: Tensor, draws: Sequence[Draw], moves: Moves) -> Tensor:
    """Redraws or moves each step of each pivot; every sample by its own draw's seed.

    Args:
        pivots: (steps + 1, batch, *latent_shape), the pivot of each sample.
        draws: One per sample.
        moves: See :class:`Moves`.

    Returns:
        Noise of the same shape; zero where the pivot is.
    """
    entries = pivots.shape[0]
    far = draw_fresh_noise(draws, pivots, "far draw")
    direction = draw_fresh_noise(draws, pivots, "local move").double()
    chances = [generator_for(draw.seed, "move").random((2, entries)) for draw in draws]
    redraw, length = torch.stack([torch.from_numpy(chance) for chance in chances], dim=2).unbind(0)
    used = (pivots != 0).flatten(2).sum(dim=2)
    norm = torch.linalg.vector_norm(direction.flatten(2), dim=2).clamp(min=torch.finfo(torch.float64).tiny)
    factor = moves.radius * used.double().sqrt() * length / norm
    more = (1,) * (pivots.ndim - 2)
    near = onto_shell(pivots.double() + factor.reshape(*factor.shape, *more) * direction, pivots)
    is_far = redraw < moves.redraw_probabilities(entries - 1)[:, None]
    return far.where(is_far.reshape(*is_far.shape, *more), near)


class NoiseSearch:
    """Noise trajectory search by ask and tell; answers in any order, in part, and more than once.

    It remembers the noise of the beam alone. Where conditions are free the beam holds the best answers of all;
    where they are drawn, its places go round the conditions: the best of each, then the second of each, and within
    a rank the better first. Both depend on the set of answers, not on their order: what has once left the beam has
    enough better ones before it for good.

    Args:
        latent_shape: Of the backbone.
        steps: K of the backbone.
        beam: How many pivots, at least 1.
        moves: How far children lie from them.
        conditions_are_free: Of the backbone.
    """

    name = "noise-search"

    def __init__(
        self, latent_shape: Sequence[int], steps: int, beam: int, moves: Moves, conditions_are_free: bool = False
    ) -> None:
        self.beam = beam
        self.moves = moves
        self.conditions_are_free = conditions_are_free
        self._noise_shape = (steps + 1, *latent_shape)
        self._rounds = 0
        self._told: set[str] = set()
        self._best: list[tuple[float, str, Tensor, Tensor]] = []

    def ask(self, count: int) -> Proposal:
        if count < 1:
            raise ValueError(f"expected to be asked for at least one sample, got {count}")
        self._rounds += 1
        noise, conditions = self._stacked()
        plan = NoiseSearchPlan(noise, conditions, self.moves, self.conditions_are_free)
        return Proposal(self._rounds - 1, count, plan)

    def tell(self, observations: Sequence[Observation]) -> None:
        for candidate, loss in ok_observations(observations):
            if candidate.query_id not in self._told and candidate.latent.isfinite().all():
                self._told.add(candidate.query_id)
                self._best.append(remembered(candidate, loss))
        self._best = self._kept()

    def state_dict(self) -> dict[str, Any]:
        noise, conditions = self._stacked()
        return {
            "algorithm": self.name,
            "rounds": self._rounds,
            "told": sorted(self._told),
            "beam_ids": [name for _, name, _, _ in self._best],
            "beam_losses": torch.tensor([loss for loss, _, _, _ in self._best], dtype=torch.float64),
            "beam_noise": noise,
            "beam_conditions": conditions,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("algorithm") != self.name:
            raise ValueError(f"expected a state of algorithm {self.name!r}, got {state.get('algorithm')!r}")
        shape = tuple(state["beam_noise"].shape[1:])
        if shape != self._noise_shape:
            raise ValueError(f"expected a state of noise of shape {self._noise_shape}, got {shape}")
        self._rounds = int(state["rounds"])
        self._told = set(state["told"])
        self._best = [
            (float(loss), name, noise.clone(), condition.clone())
            for loss, name, noise, condition in zip(
                state["beam_losses"], state["beam_ids"], state["beam_noise"], state["beam_conditions"], strict=True
            )
        ]

    def _stacked(self) -> tuple[Tensor, Tensor]:
        if not self._best:
            return torch.zeros(0, *self._noise_shape), torch.zeros(0, 0, dtype=torch.int64)
        _, _, noise, conditions = zip(*self._best, strict=True)
        return torch.stack(noise), torch.stack(conditions)

    def _kept(self) -> list[tuple[float, str, Tensor, Tensor]]:
        ordered = sorted(self._best, key=lambda item: item[:2])
        if self.conditions_are_free:
            return ordered[: self.beam]
        before: defaultdict[tuple[int, ...], int] = defaultdict(int)
        ranks = []
        for _, _, _, condition in ordered:
            key = tuple(condition.tolist())
            ranks.append(before[key])
            before[key] += 1
        places = sorted(range(len(ordered)), key=ranks.__getitem__)
        return [ordered[place] for place in places[: self.beam]]


def remembered(candidate: Candidate, loss: float) -> tuple[float, str, Tensor, Tensor]:
    """Returns what the beam keeps of an answer: loss, id, noise and condition, the tensors its own."""
    return (loss, candidate.query_id, candidate.noise_sequence.clone().float(), candidate.condition.clone())


class NoiseSearchConfig(AlgorithmConfig):
    """Choice ``noise-search``."""

    summary: ClassVar[str] = "Noise trajectory search: varies the best noise sequences, epsilon-greedily (2025)."

    kind: Literal["noise-search"]
    beam: int = Field(4, ge=1, le=1000, description="How many of the best noise sequences are varied.")
    radius: float = Field(
        0.3, gt=0, le=10, description="lambda: local moves of a step are up to radius * sqrt(dim) long."
    )
    redraw_extreme: float = Field(
        0.1, ge=0, le=1, description="Probability that the first or last noise of a sequence is drawn afresh."
    )
    redraw_middle: float = Field(0.0, ge=0, le=1, description="The same for the noise half-way.")

    def build(self, setting: AlgorithmSetting) -> NoiseSearch:
        return NoiseSearch(
            setting.latent_shape,
            setting.steps,
            self.beam,
            Moves(self.radius, self.redraw_extreme, self.redraw_middle),
            setting.conditions_are_free,
        )


__all__ = ["Moves", "NoiseSearch", "NoiseSearchConfig", "NoiseSearchPlan", "vary"]
