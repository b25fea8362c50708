"""A Gaussian process whose hyper-parameters are fitted to the answers, by maximum marginal likelihood on a grid.

The model is y = mu + f(x) + e with f ~ GP(0, s^2 k), k an RBF kernel of unit scale, e ~ N(0, s^2 nu). For a given
lengthscale and relative noise nu the best mean and scale are in closed form (Rasmussen and Williams, "Gaussian
processes for machine learning", 2006, sections 2.7 and 5.4; "profile likelihood"), with C = K + nu I:

    mu    = (1^T C^-1 y) / (1^T C^-1 1)
    s^2   = (y - mu)^T C^-1 (y - mu) / N
    log L = -(N log s^2 + log det C) / 2 + constant

One eigendecomposition of K serves all noise levels of a lengthscale, so the grid costs a few decompositions. It is
invariant to shift and scale of the scores, and so are the places it likes; nothing is left for a user to tune.

May import: torch and :mod:`pilotwave.surrogates.posterior_mean`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pilotwave.surrogates.posterior_mean import PointBlock, PosteriorMean, inner_products

LENGTHSCALES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
"""Tried, in units of the root mean square distance between two points."""
NOISES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Tried, as variances relative to the kernel's scale."""
FEWEST_ANSWERS = 3


@dataclass(frozen=True)
class FittedProcess:
    """The posterior mean of a fitted process.

    Attributes:
        posterior: Of f, without the constant mean.
        constant: mu.
        lengthscale: The likeliest.
        noise: nu, the likeliest: variance of the noise relative to the kernel's scale.
        scale: s, the standard deviation of f.
    """

    posterior: PosteriorMean
    constant: float
    lengthscale: float
    noise: float
    scale: float

    def mean(self, points: Tensor) -> Tensor:
        """Returns the posterior mean at points (batch, dim), of shape (batch,)."""
        return self.posterior.mean(points) + self.constant

    def mean_gradient(self, points: Tensor) -> Tensor:
        """Returns the gradient of the posterior mean at points (batch, dim), of the same shape."""
        return self.posterior.mean_gradient(points)

    def mean_and_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Returns :meth:`mean` and :meth:`mean_gradient` for the price of the second."""
        mean, gradient = self.posterior.mean_and_gradient(points)
        return mean + self.constant, gradient


def fit_process(points: Tensor, scores: Tensor) -> FittedProcess | None:
    """Fits a process.

    Args:
        points: (N, dim), finite.
        scores: (N,), finite, of about unit spread, e.g. standardised losses.

    Returns:
        The likeliest process of the grid, or None where there is nothing to learn: fewer than three answers, equal
        scores, or points that are all the same.
    """
    scores = scores.double()
    if len(scores) < FEWEST_ANSWERS or float(scores.max() - scores.min()) <= 0:
        return None
    block = PointBlock.of(points.float())
    squares = (block.norms[:, None] + block.norms - 2 * inner_products(block.points, block.points)).clamp(min=0.0)
    squares.fill_diagonal_(0.0)
    typical = float(squares.sum()) / (len(scores) * (len(scores) - 1))
    if not math.isfinite(typical) or typical <= 1e-12 * float(block.norms.max()):
        return None
    best: tuple[float, FittedProcess] | None = None
    for factor in LENGTHSCALES:
        lengthscale = factor * math.sqrt(typical)
        likelihood, found = _best_noise(block, squares, scores, lengthscale)
        if best is None or likelihood > best[0]:
            best = likelihood, found
    return None if best is None else best[1]


def _best_noise(
    block: PointBlock, squares: Tensor, scores: Tensor, lengthscale: float
) -> tuple[float, FittedProcess]:
    """The likeliest noise for a lengthscale: the log likelihood and the process."""
    count = len(scores)
    values, vectors = torch.linalg.eigh(torch.exp(squares / (-2 * lengthscale**2)))
    values = values.clamp(min=0.0)
    ones, targets = vectors.sum(dim=0), vectors.T @ scores
    noise = torch.tensor(NOISES, dtype=torch.float64)[:, None]
    precision = 1.0 / (values + noise)
    constant = (precision * ones * targets).sum(1) / (precision * ones.square()).sum(1)
    residual = targets - constant[:, None] * ones
    variance = (precision * residual.square()).sum(1) / count
    likelihood = -(count * variance.clamp(min=1e-300).log() - precision.log().sum(1)) / 2
    place = int(likelihood.argmax())
    weights = vectors @ (precision[place] * residual[place])
    posterior = PosteriorMean((block,), weights, 1.0, lengthscale, 1.0)
    scale = math.sqrt(float(variance[place]))
    return float(likelihood[place]), FittedProcess(
        posterior, float(constant[place]), lengthscale, NOISES[place], scale
    )


__all__ = ["FittedProcess", "fit_process"]
