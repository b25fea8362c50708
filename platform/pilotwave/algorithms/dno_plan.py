"""What direct noise optimisation does next to the model: perturbing points; and what it makes of the answers.

The zeroth-order part of Tang et al., arXiv 2405.18881: which draw perturbs which point in which direction, and the
estimate of the gradient from the answers. See :mod:`pilotwave.algorithms.dno` for symbols and deviations.

May import: torch, pilotwave's types and protocols, and the variation of noise beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pilotwave.algorithms.variation import child_conditions, draw_fresh_noise, onto_shell
from pilotwave.protocols import Backbone
from pilotwave.types import Draw, GeneratedBatch


class Role(NamedTuple):
    """What a draw does: it perturbs the point of ``thread`` by ``scale`` times the direction of seed ``leader``."""

    thread: int
    leader: int
    scale: float


@dataclass(frozen=True)
class DnoPlan:
    """Perturbs the threads' points, one sampler run each; unguided samples before there are any.

    Attributes:
        points: (threads, steps + 1, *latent_shape).
        conditions: (threads, condition_size).
        roles: By the seeds that the proposal's draws are expected to have.
        smoothing: mu.
        keep_norm: Whether perturbed noise goes back on its shell.
        conditions_are_free: Whether a sample takes its thread's condition.
    """

    points: Tensor
    conditions: Tensor
    roles: Mapping[int, Role]
    smoothing: float
    keep_norm: bool
    conditions_are_free: bool

    def generate(self, backbone: Backbone, draws: Sequence[Draw]) -> GeneratedBatch:
        noise_sequence, conditions = backbone.draw_noise(draws), backbone.draw_conditions(draws)
        if len(self.points):
            roles = [role_of(draw.query_id, draw.seed, self.roles, len(self.points)) for draw in draws]
            threads = [role.thread for role in roles]
            points = self.points[threads].transpose(0, 1)
            noise_sequence = points + self.smoothing * perturbations(roles, points)
            if self.keep_norm:
                noise_sequence = onto_shell(noise_sequence, points)
            conditions = child_conditions(conditions, self.conditions[threads], self.conditions_are_free)
        return GeneratedBatch(noise_sequence, backbone.sample(noise_sequence, conditions), conditions, passes=1)


def role_of(query_id: str, seed: int, roles: Mapping[int, Role], threads: int) -> Role:
    """Returns the role of a draw; one whose seed was not expected goes its own way, unpaired.

    A redraw reaches further with every attempt (1.5, 2, 2.5 ... times), or it would make what is known again
    where a point's neighbours decode to the same sample.
    """
    return roles.get(seed) or Role(seed % threads, seed, 1 + 0.5 * Draw(query_id, seed).attempt)


def perturbations(roles: Sequence[Role], like: Tensor) -> Tensor:
    """Returns each draw's scaled direction xi, standard normal before scaling, where ``like`` is not zero.

    Args:
        roles: One per sample.
        like: (steps + 1, batch, *latent_shape).
    """
    directions = draw_fresh_noise([Draw("", role.leader) for role in roles], like, "perturbation")
    return in_scale(directions, [role.scale for role in roles])


def in_scale(noise: Tensor, scales: Sequence[float]) -> Tensor:
    """Multiplies each sample's noise, (steps + 1, batch, *latent_shape), by its scale."""
    scaled: Tensor = noise * torch.tensor(scales).reshape(-1, *(1,) * (noise.ndim - 2))
    return scaled


def estimate_gradient(directions: Tensor, losses: Tensor, smoothing: float) -> Tensor:
    """Estimates the gradient of the loss from the losses at z + smoothing * directions.

    g = 1 / (n * mu) * sum_i (f_i - mean f) xi_i. For mirrored pairs it has no bias by the mean; for n unpaired
    directions it is (n - 1) / n of the gradient on average, of the smoothed loss in either case.

    Args:
        directions: Signed, (n, *shape); divided by their scale where that is not one.
        losses: (n,).
        smoothing: mu.

    Returns:
        float64 of shape (*shape,).
    """
    centred = losses.double() - losses.double().mean()
    summed: Tensor = torch.tensordot(centred, directions.double(), dims=1)
    return summed / (len(losses) * smoothing)


__all__ = ["DnoPlan", "Role", "estimate_gradient", "in_scale", "perturbations", "role_of"]
