"""The inner loop of Fast Direct, run next to the model: guided noise sequence optimisation.

| symbol in the paper (Tan et al., "Fast Direct", ICLR 2025) | here |
|---|---|
| epsilon = (epsilon_0 ... epsilon_K) | ``noise_sequence`` |
| x_K | ``latents`` |
| x*, the pseudo-target | ``pseudo_targets`` |
| alpha | ``step_size`` |
| b, inner repetitions of round b | ``repetitions`` |

One repetition: x_K = G(epsilon); then for *every* step k the same direction (it is "universal"),
epsilon_k <- epsilon_k + alpha (x* - x_K), rescaled to the norm that epsilon_k started with, per sample. The x_K
of the last repetition is what gets evaluated, so b repetitions are b runs of the sampler and b - 1 moves.

A guide is where pseudo-targets come from; it is bound to the backbone once per batch. May import: torch,
pilotwave's types and protocols, and the surrogates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pilotwave.protocols import Backbone
from pilotwave.surrogates.gaussian_process import GaussianProcess, ScoreScaling
from pilotwave.surrogates.posterior_mean import PosteriorMean
from pilotwave.types import Draw, GeneratedBatch

PseudoTargets = Callable[[Tensor, Tensor], Tensor]
"""``pseudo_targets(latents, conditions) -> targets``: (batch, *latent_shape), (batch, condition_size)."""


class Guide(Protocol):
    """Where pseudo-targets come from."""

    def bind(self, backbone: Backbone) -> PseudoTargets:
        """Prepares for the latents of one backbone."""
        ...


@dataclass(frozen=True)
class SurrogateGuide:
    """x* = x_K - grad m(x_K), for latents that can be compared as they are.

    Attributes:
        surrogate: The posterior mean m of the loss.
    """

    surrogate: PosteriorMean

    def bind(self, backbone: Backbone) -> PseudoTargets:
        def pseudo_targets(latents: Tensor, conditions: Tensor) -> Tensor:
            return latents - self.surrogate.mean_gradient(latents.flatten(1)).reshape(latents.shape)

        return pseudo_targets


@dataclass(frozen=True)
class SurrogateSettings:
    """Hyper-parameters of the Gaussian process, see :class:`GaussianProcess`."""

    lengthscale: float | None
    outputscale: float
    noise: float
    scaling: ScoreScaling

    def build(self, dim: int) -> GaussianProcess:
        """Returns an empty process on ``dim`` numbers."""
        return GaussianProcess(
            dim,
            lengthscale=self.lengthscale,
            outputscale=self.outputscale,
            noise=self.noise,
            scaling=self.scaling,
        )


@dataclass(frozen=True)
class AlignedSurrogateGuide:
    """x* = x_K - grad m(x_K) for a model with symmetries, in the frame of one reference latent (ours).

    Latents without a common frame cannot be compared, so all known latents are aligned to the reference before
    the process learns them, every x_K is aligned to it before the gradient is taken, and the target is aligned
    back onto x_K. Only the backbone knows how, so the process is formed here.

    Attributes:
        latents: What was judged, (N, *latent_shape).
        losses: (N,).
        settings: Of the process.
    """

    latents: Tensor
    losses: Tensor
    settings: SurrogateSettings

    def bind(self, backbone: Backbone) -> PseudoTargets:
        surrogate = SurrogateGuide(self._fitted(backbone)).bind(backbone)

        def pseudo_targets(latents: Tensor, conditions: Tensor) -> Tensor:
            return backbone.align(surrogate(self._in_frame(backbone, latents), conditions), latents, conditions)

        return pseudo_targets

    def mean(self, backbone: Backbone, latents: Tensor) -> Tensor:
        """Returns m at latents (batch, *latent_shape), of shape (batch,)."""
        return self._fitted(backbone).mean(self._in_frame(backbone, latents).flatten(1))

    def _in_frame(self, backbone: Backbone, latents: Tensor) -> Tensor:
        return backbone.align(latents, self.latents[:1].expand_as(latents))

    def _fitted(self, backbone: Backbone) -> PosteriorMean:
        process = self.settings.build(self.latents[0].numel())
        process.append(self._in_frame(backbone, self.latents).flatten(1), self.losses)
        return process.snapshot()


@dataclass(frozen=True)
class BestGuide:
    """x* = the best sample so far of the same condition, aligned onto x_K; x_K itself where there is none.

    Attributes:
        targets: From a condition to the best latent known with it, (*latent_shape,).
    """

    targets: dict[tuple[int, ...], Tensor]

    def bind(self, backbone: Backbone) -> PseudoTargets:
        def pseudo_targets(latents: Tensor, conditions: Tensor) -> Tensor:
            keys = [tuple(condition) for condition in conditions.tolist()]
            known = torch.tensor([key in self.targets for key in keys])
            best = torch.stack([self.targets.get(key, own) for key, own in zip(keys, latents, strict=True)])
            targets = latents.clone()
            if known.any():
                targets[known] = backbone.align(best[known], latents[known], conditions[known])
            return targets

        return pseudo_targets


@dataclass(frozen=True)
class FastDirectPlan:
    """One round of Fast Direct for a batch.

    Attributes:
        repetitions: How often the sampler runs, at least 1.
        step_size: alpha, above 0.
        guide: None before the first answer: then the samples are unguided and the sampler runs once.
    """

    repetitions: int
    step_size: float
    guide: Guide | None

    def generate(self, backbone: Backbone, draws: Sequence[Draw]) -> GeneratedBatch:
        start, conditions = backbone.draw_noise(draws), backbone.draw_conditions(draws)
        noise_sequence, latents = start, backbone.sample(start, conditions)
        if self.guide is None or self.repetitions == 1:
            return GeneratedBatch(noise_sequence, latents, conditions, passes=1)
        pseudo_targets = self.guide.bind(backbone)
        for _ in range(self.repetitions - 1):
            directions = pseudo_targets(latents, conditions) - latents
            noise_sequence = move_noise(noise_sequence, start, directions, self.step_size)
            latents = backbone.sample(noise_sequence, conditions)
        return GeneratedBatch(noise_sequence, latents, conditions, passes=self.repetitions)


def move_noise(noise_sequence: Tensor, start: Tensor, directions: Tensor, step_size: float) -> Tensor:
    """Moves every step's noise along one direction per sample and back onto the shell it started on.

    Components that were drawn as exactly zero are not used by the sampler and stay zero. A direction that is
    not finite moves nothing. Sums and norms are taken in float64, so that no finite direction overflows.

    Args:
        noise_sequence: (steps + 1, batch, *latent_shape); not changed.
        start: The noise sequence as it was drawn, of the same shape.
        directions: (batch, *latent_shape), x* - x_K.
        step_size: alpha.

    Returns:
        The moved noise sequence, with the norm of ``start`` at each step of each sample.
    """
    finite = directions.flatten(1).isfinite().all(dim=1)
    shift = step_size * directions.flatten(1).double().where(finite[:, None], torch.zeros(()))
    moved = torch.empty_like(noise_sequence)
    for step, (noise, origin) in enumerate(zip(noise_sequence.flatten(2), start.flatten(2), strict=True)):
        free = (noise.double() + shift).where(origin != 0, torch.zeros(()))
        norm, radius = (torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in (free, origin))
        factor = radius / norm.clamp(min=torch.finfo(torch.float64).tiny)
        moved[step] = (factor[:, None] * free).reshape(directions.shape)
    return moved


__all__ = [
    "AlignedSurrogateGuide",
    "BestGuide",
    "FastDirectPlan",
    "Guide",
    "SurrogateGuide",
    "SurrogateSettings",
    "move_noise",
]
