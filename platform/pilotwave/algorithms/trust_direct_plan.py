"""The inner loop of trust-direct, run next to the model: a few safeguarded surrogate steps from known noise.

For each draw a parent's noise sequence makes half a move, mixes with a share of fresh noise and is run through the
sampler; what the parent became is known, so this first move costs no pass. In a move the noises of the steps that
still shape the sample go against the gradient of a surrogate of the loss, by one direction for all of them as in
Fast Direct, never farther than a trust radius. A move that the surrogate does not like is taken back, and the next
one is half as long. The iterate that the surrogate likes best is submitted, never blindly the last.

| symbol | here |
|---|---|
| epsilon = (epsilon_0 ... epsilon_K) | ``noise_sequence`` |
| x_K = G(epsilon) | ``latents`` |
| phi(x), what no symmetry of the model changes | ``invariants`` |
| m(phi), the surrogate's posterior mean of the loss | ``surrogate`` |
| l, its lengthscale | ``surrogate.lengthscale`` |
| kappa l^2 grad_x m, the step before it is clipped | ``STEP_SIZE`` is kappa |
| tau sqrt(d), the trust radius | ``radius`` is tau, d the components in use |

May import: torch, pilotwave's types and protocols, the surrogates, and the variation of noise beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pilotwave.algorithms.variation import (
    child_conditions,
    draw_fresh_noise,
    eligible_parents,
    fitted_noise,
    generator_for,
    mixed_noise,
    onto_shell,
)
from pilotwave.protocols import Backbone
from pilotwave.surrogates.fitted_process import FittedProcess
from pilotwave.types import Draw, GeneratedBatch

PURPOSE = "trust-direct"
STEP_SIZE = 0.1
"""kappa: a step is this share of what would cross a lengthscale at a gradient of one per lengthscale."""
LARGEST_SHARE = 0.3
"""Of fresh noise in a child's start; it is tau where tau is smaller. A child that is drawn again, because it was
invalid, vetoed or known already, takes twice, three times ... as much."""
UNTOUCHED = 0.25
"""Share of the noises, the last, that never move: they add little response and most of the way off the manifold."""
HEAD_START = 0.5
"""How long the first move is, as a share of a whole one: nothing can take it back."""
TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Parents:
    """Known noise sequences that children descend from.

    Attributes:
        noise_sequences: (parents, steps + 1, *latent_shape).
        latents: What they became, (parents, *latent_shape).
        conditions: (parents, condition_size).
        free_conditions: Whether children take their parent's condition.
    """

    noise_sequences: Tensor
    latents: Tensor
    conditions: Tensor
    free_conditions: bool

    def place_of(self, seed: int, condition: Tensor) -> int:
        """Returns the place of a draw's parent: one that its condition allows, by chance from the seed alone."""
        eligible = eligible_parents(condition, self.conditions, self.free_conditions)
        return eligible[int(generator_for(seed, f"{PURPOSE} parent").integers(len(eligible)))]


@dataclass(frozen=True)
class TrustDirectPlan:
    """One batch of trust-direct.

    Attributes:
        parents: None while nothing is known: then samples are unguided and the sampler runs once.
        surrogate: Of the standardised loss, on the backbone's invariants.
        radius: tau, above 0.
        passes: Runs of the sampler for each sample, at least 1.
        drift: How long the common part of a sample's noises may be, as a multiple of what chance gives it.
        least_share: Of fresh noise in a child's start, whatever the radius.
    """

    parents: Parents | None = None
    surrogate: FittedProcess | None = None
    radius: float = 0.0
    passes: int = 1
    drift: float = math.inf
    least_share: float = 0.0

    def generate(self, backbone: Backbone, draws: Sequence[Draw]) -> GeneratedBatch:
        conditions = backbone.draw_conditions(draws)
        if self.parents is None or self.surrogate is None:
            noise_sequence = backbone.draw_noise(draws)
            return GeneratedBatch(noise_sequence, backbone.sample(noise_sequence, conditions), conditions, passes=1)
        places = [self.parents.place_of(draw.seed, own) for draw, own in zip(draws, conditions, strict=True)]
        known = self.parents.noise_sequences[places].transpose(0, 1)
        if not self.parents.free_conditions:
            known = fitted_noise(known, backbone.draw_noise(draws))
        conditions = child_conditions(conditions, self.parents.conditions[places], self.parents.free_conditions)
        whole = torch.ones(len(draws), dtype=torch.float64)
        parents = judged(backbone, self.surrogate, known, self.parents.latents[places], conditions)
        moved_parents = moved(known, self._moves(parents, HEAD_START * whole), self.drift)
        fresh = draw_fresh_noise(draws, known, PURPOSE)
        start = onto_shell(mixed_noise(moved_parents, fresh, self._shares(draws, known)), known)
        best = judged(backbone, self.surrogate, start, backbone.sample(start, conditions), conditions)
        reach = whole
        for _ in range(self.passes - 1):
            noise_sequence = moved(best.noise_sequence, self._moves(best, reach), self.drift)
            latents = backbone.sample(noise_sequence, conditions)
            tried = judged(backbone, self.surrogate, noise_sequence, latents, conditions)
            better = tried.mean < best.mean
            best = best.replaced(tried, better)
            reach = torch.where(better, reach, reach / 2)
        return GeneratedBatch(best.noise_sequence, best.latents, conditions, passes=self.passes)

    def _shares(self, draws: Sequence[Draw], known: Tensor) -> Tensor:
        """Shares of fresh noise, in a shape that multiplies noise sequences."""
        share = max(self.least_share, min(LARGEST_SHARE, self.radius))
        shares = torch.tensor([share * (1 + draw.attempt) for draw in draws], dtype=torch.float64).clamp(max=1.0)
        return _wide(shares, known[0])

    def _moves(self, iterates: Iterates, reach: Tensor) -> Tensor:
        """Steps against the gradient, clipped to the trust radius; (batch, *latent_shape)."""
        used = (iterates.noise_sequence != 0).any(dim=0).flatten(1).sum(dim=1)
        length: Tensor = torch.linalg.vector_norm(iterates.step.flatten(1), dim=1)
        factor = reach * (self.radius * used.double().sqrt() / length.clamp(min=TINY)).clamp(max=1.0)
        return iterates.step * _wide(factor, iterates.step)


@dataclass(frozen=True)
class Iterates:
    """Where a batch stands.

    Attributes:
        noise_sequence: (steps + 1, batch, *latent_shape).
        latents: (batch, *latent_shape).
        mean: The surrogate's, (batch,).
        step: -kappa l^2 times its gradient by the latents, (batch, *latent_shape).
    """

    noise_sequence: Tensor
    latents: Tensor
    mean: Tensor
    step: Tensor

    def replaced(self, other: Iterates, where: Tensor) -> Iterates:
        """Returns these, with the other's rows where it says so."""
        rows = _wide(where, self.latents)
        return Iterates(
            torch.where(rows, other.noise_sequence, self.noise_sequence),
            torch.where(rows, other.latents, self.latents),
            torch.where(where, other.mean, self.mean),
            torch.where(rows, other.step, self.step),
        )


def judged(
    backbone: Backbone, surrogate: FittedProcess, noise_sequence: Tensor, latents: Tensor, conditions: Tensor
) -> Iterates:
    """Asks the surrogate, through the invariants, about samples that are known.

    Args:
        backbone: Their model.
        surrogate: Of the standardised loss, on the backbone's invariants.
        noise_sequence: (steps + 1, batch, *latent_shape).
        latents: What it became, (batch, *latent_shape).
        conditions: (batch, condition_size).
    """
    leaf = latents.detach().requires_grad_(True)
    with torch.enable_grad():
        described = backbone.invariants(leaf, conditions)
        mean, pull = surrogate.mean_and_gradient(described.detach())
        (gradient,) = torch.autograd.grad(described, leaf, pull.to(described.dtype))
    usable = gradient.flatten(1).isfinite().all(dim=1) & latents.flatten(1).isfinite().all(dim=1)
    mean = mean.double().where(usable, torch.tensor(torch.inf, dtype=torch.float64))
    step = (-STEP_SIZE * surrogate.lengthscale**2 * gradient.double()).nan_to_num(0.0, 0.0, 0.0)
    return Iterates(noise_sequence, latents, mean, step)


def moved(noise_sequence: Tensor, moves: Tensor, drift: float) -> Tensor:
    """Moves every noise but the last ones along one direction per sample and back onto its shell.

    Args:
        noise_sequence: (steps + 1, batch, *latent_shape); components that are zero stay zero.
        moves: (batch, *latent_shape), finite.
        drift: See :func:`limited_drift`, which is applied to the noises that move.
    """
    used = (noise_sequence != 0).flatten(1).any(dim=1).nonzero().flatten().tolist()
    free = used[: len(used) - int(UNTOUCHED * len(used))]
    origin = noise_sequence[free]
    shifted = (origin.double() + moves).where(origin != 0, torch.zeros((), dtype=torch.float64))
    result = noise_sequence.clone()
    result[free] = onto_shell(limited_drift(shifted, drift).float(), origin)
    return result


def limited_drift(noises: Tensor, drift: float) -> Tensor:
    """Shortens what a sample's noises have in common where it is longer than chance explains.

    The mean of n independent noises of length r is about r / sqrt(n) long. Moving all noises along one direction
    makes it longer, and such a noise sequence is as unlikely under the model as its sample is strange.

    Args:
        noises: (n, batch, *latent_shape).
        drift: Longest mean allowed, as a multiple of r / sqrt(n); at least 1.
    """
    mean = noises.mean(dim=0)
    length = torch.linalg.vector_norm(mean.flatten(1), dim=1)
    radius = torch.linalg.vector_norm(noises.flatten(2), dim=2).square().mean(dim=0).sqrt()
    excess = (1 - drift * radius / math.sqrt(len(noises)) / length.clamp(min=TINY)).clamp(min=0.0)
    return noises - _wide(excess, mean) * mean


def _wide(per_sample: Tensor, like: Tensor) -> Tensor:
    """Returns one number per sample in a shape that multiplies latents."""
    return per_sample.view(-1, *(1 for _ in like.shape[1:]))


__all__ = ["Iterates", "Parents", "TrustDirectPlan", "judged", "limited_drift", "moved"]
