"""The update of covariance-adaptive sequential optimisation, free of any model or sampler.

| symbol in the paper (Lyu et al., arXiv 2406.00812) | here |
|---|---|
| mu_k, Sigma_k | ``NoiseGaussians.mean[k]``, the square of ``NoiseGaussians.scale[k]`` |
| z_k | ``z[k]`` |
| s_k, cumulative score of step k | ``scores[k]``, see :func:`cumulative` |
| beta, gamma | ``beta``, ``gamma`` |

With s standardised over the batch and w = softmax(-s):

    mu_k          <- mu_k - beta (1/B) sum_b s_b (z_kb - mu_k)
    Sigma_k^{-1}  <- Sigma_k^{-1} + gamma sum_b w_b Sigma_k^{-1} (z_kb - mu_k)(z_kb - mu_k)^T Sigma_k^{-1}

both with the old mu_k on the right; the diagonal form keeps only the diagonal of the second. Precision only grows,
by a factor of about 1 + gamma a round, so a gamma that is large beside beta stops the mean before it has arrived;
``least_variance`` (ours) is where variances stop. Where scores do not
differ there is nothing to learn, and nothing is changed (ours: the formula would shrink the variances all the
same).

May import: torch, and the shared Gaussians and standardisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pilotwave.algorithms.answers import standardise
from pilotwave.algorithms.gaussian_noise import NoiseGaussians

StepSizes = Literal["dimension", "constant"]
"""The conventions of the two reference programs: both 1 / sqrt(dim), or beta 1 and gamma 1/128."""


@dataclass(frozen=True)
class CasboSteps:
    """How far an update goes.

    Attributes:
        beta: Step size of the mean.
        gamma: Step size of the precision; 0 keeps the covariance fixed.
        least_variance: No eigenvalue of a covariance falls below.
    """

    beta: float
    gamma: float
    least_variance: float = 1e-6

    @classmethod
    def by_convention(
        cls, convention: StepSizes, dim: int, beta: float | None, gamma: float | None, least_variance: float = 1e-6
    ) -> CasboSteps:
        """Takes what is not given from the convention."""
        default_beta = 1.0 if convention == "constant" else 1.0 / math.sqrt(dim)
        default_gamma = 1.0 / 128.0 if convention == "constant" else 1.0 / math.sqrt(dim)
        return cls(
            default_beta if beta is None else beta, default_gamma if gamma is None else gamma, least_variance
        )


def cumulative(costs: Tensor) -> Tensor:
    """Returns s_k = mean over j >= k of the costs of step j, for costs of shape (steps, batch)."""
    counts = torch.arange(len(costs), 0, -1, dtype=torch.float64)
    return costs.double().flip(0).cumsum(0).flip(0) / counts[:, None]


def updated(
    gaussians: NoiseGaussians,
    z: Tensor,
    scores: Tensor,
    steps: CasboSteps,
    used: Tensor | None = None,
    counted: Tensor | None = None,
) -> NoiseGaussians:
    """Returns the Gaussians after one round.

    Args:
        gaussians: float64.
        z: What was drawn, (steps, batch, dim).
        scores: Cumulative losses, (steps, batch), finite.
        steps: How far to go.
        used: Which components each sample used, bool (steps, batch, dim); the others pull nothing.
        counted: Which samples a step learns from, bool (steps, batch).
    """
    charged, weights, shares = _charges(scores, counted)
    if gaussians.scale.ndim == 3:
        offsets = _offsets(z, gaussians.mean, used)
        shift = torch.einsum("kb,kbi->ki", shares, offsets)
        scale = _shrunk_matrices(gaussians.scale, offsets, weights, steps)
    else:  # a step at a time: offsets of all may not fit into memory
        shifts, scales = [], []
        for k, deviation in enumerate(gaussians.scale):
            offsets = _offsets(z[k], gaussians.mean[k], None if used is None else used[k])
            shifts.append(shares[k] @ offsets)
            scales.append(_shrunk_deviations(deviation, offsets, weights[k], steps))
        shift, scale = torch.stack(shifts), torch.stack(scales)
    learns = charged.any(dim=1)
    same = learns.reshape(-1, *[1] * (scale.ndim - 1))
    return NoiseGaussians(
        (gaussians.mean - steps.beta * shift).where(learns[:, None], gaussians.mean),
        scale.where(same, gaussians.scale),
    )


def _charges(scores: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Standardised scores, softmax weights and scores over their number: (steps, batch), zero if not counted."""
    rows = torch.ones_like(scores, dtype=torch.bool) if counted is None else counted
    charged = torch.zeros(scores.shape, dtype=torch.float64)
    for k, row in enumerate(rows):
        charged[k, row] = standardise(scores[k, row])
    weights = torch.softmax((-charged).where(rows, -torch.inf), dim=1).nan_to_num()
    return charged, weights, charged / rows.sum(dim=1, keepdim=True).clamp(min=1)


def _offsets(z: Tensor, mean: Tensor, used: Tensor | None) -> Tensor:
    """Offsets z - mean, zero in components that are not used, float64 of the shape of z."""
    offsets = z.double() - mean.unsqueeze(-2)
    return offsets if used is None else offsets.where(used, 0.0)


def _shrunk_deviations(deviation: Tensor, offsets: Tensor, weights: Tensor, steps: CasboSteps) -> Tensor:
    """New standard deviations of one step: 1/v <- 1/v + gamma sum_b w_b offset_b^2 / v^2."""
    squares = weights @ (offsets / deviation).square()
    variance = deviation.square() / (1.0 + steps.gamma * squares)
    return torch.as_tensor(variance.clamp(min=steps.least_variance).sqrt())


def _shrunk_matrices(roots: Tensor, offsets: Tensor, weights: Tensor, steps: CasboSteps) -> Tensor:
    """New symmetric roots R', through Sigma' = R (I + gamma sum_b w_b u_b u_b^T)^{-1} R, u = R^{-1} offset."""
    whitened = torch.linalg.solve(roots, offsets.mT)
    scatter = steps.gamma * (weights[:, None] * whitened) @ whitened.mT
    # By its eigenvalues: beside a far outlier the 1 of I + scatter is lost to rounding, and the sum is singular.
    spread, axes = torch.linalg.eigh((scatter + scatter.mT) / 2)
    half = roots @ axes / (1.0 + spread.clamp(min=0.0)).sqrt()[..., None, :]
    covariance = half @ half.mT
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    rebuilt = (vectors * values.clamp(min=steps.least_variance).sqrt()[:, None]) @ vectors.mT
    return torch.as_tensor((rebuilt + rebuilt.mT) / 2)


__all__ = ["CasboSteps", "StepSizes", "cumulative", "updated"]
