"""A mixture of low-rank Gaussians with its exact posterior mean: a diffusion model without a network.

Component j has weight pi_j, mean m_j and covariance V_j diag(e_j) V_j^T + r_j I, with V_j orthonormal of
shape (dim, rank), e_j >= 0 the excess along its axes and r_j > 0 the remainder in every direction. Seen through
noise, x = a x_0 + s eps, it stays of this form (excess a^2 e_j, remainder n_j = a^2 r_j + s^2), so
density and posterior mean are closed forms in the axes of V_j; nothing of shape (dim, dim) is ever made.

May import: numpy, torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LEAST_REMAINDER = 1e-4
"""Floor of the remainder, as a share of the data's mean variance: keeps densities finite on degenerate data."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LowRankMixture:
    """The mixture; all tensors float64.

    Attributes:
        weights: (components,), positive, summing to one.
        means: (components, dim).
        axes: (components, dim, rank), orthonormal columns (zero columns where a component has fewer axes).
        excess: (components, rank), variance along an axis beyond the remainder.
        remainder: (components,), variance in every direction.
    """

    weights: Tensor
    means: Tensor
    axes: Tensor
    excess: Tensor
    remainder: Tensor

    @property
    def components(self) -> int:
        """How many Gaussians there are."""
        return len(self.weights)

    @classmethod
    def fit(cls, points: npt.NDArray[Any], components: int, rank: int, seed: int) -> LowRankMixture:
        """Fits by k-means, then the leading principal axes of each cluster (probabilistic PCA's estimate).

        Args:
            points: (count, dim), finite.
            components: At most ``count``.
            rank: Axes per component; at most dim - 1 and one less than a cluster's size are used.
            seed: Of the k-means start.
        """
        data = np.asarray(points, dtype=np.float64)
        labels = kmeans(data, components, seed)
        floor = LEAST_REMAINDER * max(float(data.var(axis=0).mean()), 1e-12)
        parts = [principal_axes(data[labels == label], rank, floor) for label in range(components)]
        counts = np.bincount(labels, minlength=components)
        columns = [torch.from_numpy(np.stack(column)) for column in zip(*parts, strict=True)]
        return cls(torch.from_numpy(counts / counts.sum()), *columns)

    def posterior_mean(self, noisy: Tensor, signal: float, noise: float, component: Tensor | None = None) -> Tensor:
        """Returns E[x_0 | noisy] for noisy = signal * x_0 + noise * eps.

        Args:
            noisy: (batch, dim).
            signal: At least 0.
            noise: Above 0.
            component: int64 (batch,), the component each sample is known to come from, or None.

        Returns:
            float64 of shape (batch, dim).
        """
        delta, along, level = self._seen_through(noisy, signal, noise)
        responsibility = torch.softmax(self._log_terms(delta, along, level, signal), dim=1)
        if component is not None:
            responsibility = torch.nn.functional.one_hot(component, self.components).double()
        gain_across = self.remainder / level
        gain_along = (self.excess + self.remainder[:, None]) / (signal**2 * self.excess + level[:, None])
        correction = torch.einsum("jdr,bjr->bjd", self.axes, (gain_along - gain_across[:, None]) * along)
        per_component = self.means + signal * (gain_across[:, None] * delta + correction)
        return torch.einsum("bj,bjd->bd", responsibility, per_component)

    def log_density(self, noisy: Tensor, signal: float = 1.0, noise: float = 0.0) -> Tensor:
        """Returns the log density of signal * x_0 + noise * eps at points (batch, dim), shape (batch,)."""
        delta, along, level = self._seen_through(noisy, signal, noise)
        terms = self._log_terms(delta, along, level, signal)
        return torch.logsumexp(terms, dim=1) - 0.5 * noisy.shape[1] * math.log(2 * math.pi)

    def _seen_through(self, noisy: Tensor, signal: float, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets (batch, components, dim), their coordinates on the axes, and the level n_j."""
        delta = noisy.double()[:, None, :] - signal * self.means
        along = torch.einsum("jdr,bjd->bjr", self.axes, delta)
        return delta, along, signal**2 * self.remainder + noise**2

    def _log_terms(self, delta: Tensor, along: Tensor, level: Tensor, signal: float) -> Tensor:
        """Log of weight times density, up to the constant of the dimension, shape (batch, components)."""
        excess = signal**2 * self.excess
        shrink = excess / (excess + level[:, None])
        distance = (delta.square().sum(dim=2) - (shrink * along.square()).sum(dim=2)) / level
        volume = delta.shape[2] * level.log() + torch.log1p(excess / level[:, None]).sum(dim=1)
        return self.weights.log() - 0.5 * (distance + volume)


def kmeans(points: Floats, clusters: int, seed: int, rounds: int = 50) -> npt.NDArray[np.int64]:
    """Labels points by Lloyd's k-means from a k-means++ start; no cluster is left empty.

    Args:
        points: (count, dim).
        clusters: 1 <= clusters <= count.
        seed: Of the start.
        rounds: At most.

    Returns:
        int64 of shape (count,), labels 0 <= label < clusters.
    """
    random = np.random.default_rng(seed)
    centres = points[[random.integers(len(points))]]
    while len(centres) < clusters:
        nearest = _squared_distances(points, centres).min(axis=1)
        chances = nearest / nearest.sum() if nearest.sum() > 0 else None
        centres = np.vstack([centres, points[random.choice(len(points), p=chances)]])
    labels = np.full(len(points), -1)
    for _ in range(rounds):
        distances = _squared_distances(points, centres)
        fresh = _fill_empty(distances.argmin(axis=1), distances, clusters)
        if (fresh == labels).all():
            break
        labels = fresh
        centres = np.stack([points[labels == label].mean(axis=0) for label in range(clusters)])
    return labels


def principal_axes(points: Floats, rank: int, floor: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Returns mean (dim,), axes (dim, rank), excess (rank,) and remainder () of one cluster (count, dim)."""
    count, dim = points.shape
    mean = points.mean(axis=0)
    _, singular, rows = np.linalg.svd(points - mean, full_matrices=False)
    variances = singular**2 / count
    kept = min(rank, dim - 1, count - 1)
    remainder = max(float(variances[kept:].sum()) / (dim - kept), floor)
    axes, excess = np.zeros((dim, rank)), np.zeros(rank)
    axes[:, :kept] = rows[:kept].T
    excess[:kept] = np.maximum(variances[:kept] - remainder, 0.0)
    return mean, axes, excess, np.asarray(remainder)


def _squared_distances(points: Floats, centres: Floats) -> Floats:
    squares = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * points @ centres.T
    return np.asarray(np.maximum(squares, 0.0))


def _fill_empty(labels: npt.NDArray[np.int64], distances: Floats, clusters: int) -> npt.NDArray[np.int64]:
    """Gives each empty cluster the point farthest from its own centre among clusters that can spare one."""
    labels = labels.copy()
    for empty in np.flatnonzero(np.bincount(labels, minlength=clusters) == 0):
        spare = np.bincount(labels, minlength=clusters)[labels] > 1
        own = distances[np.arange(len(labels)), labels]
        labels[np.where(spare, own, -1.0).argmax()] = empty
    return labels


__all__ = ["LowRankMixture", "kmeans", "principal_axes"]
