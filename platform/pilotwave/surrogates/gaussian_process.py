"""An exact Gaussian process on flattened latents whose hyper-parameters are never fitted.

Zero mean, RBF kernel. The defaults are Fast Direct's (Tan et al., ICLR 2025): outputscale 0.6931 (softplus of
0), lengthscale sqrt(dim), noise 1e-4, scores as they come. New answers extend the Cholesky factor in
O(N^2 B) instead of O(N^3).

May import: torch and :mod:`pilotwave.surrogates.posterior_mean`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from pilotwave.surrogates.posterior_mean import ROW_BLOCK, PointBlock, PosteriorMean, rbf_kernel

ScoreScaling = Literal["raw", "standardised"]
"""What the process models: the scores themselves, or (score - mean) / standard deviation of those known."""

SOFTPLUS_OF_ZERO = math.log(2.0)
MERGED_NUMBERS = 2**22
"""Small blocks of points are merged up to this size (16 MiB); larger ones are kept by reference."""


class GaussianProcess:
    """Exact GP regression with closed-form batched gradients.

    Args:
        dim: Numbers per point.
        lengthscale: Of the kernel; default sqrt(dim).
        outputscale: Of the kernel.
        noise: Variance of the observation noise, in units of the modelled score squared; at least 0.
        scaling: See :data:`ScoreScaling`. Mean and gradient are of the modelled score.
        jitter: Added to the diagonal, as a share of the outputscale; ten times more whenever a factor fails.
    """

    _blocks: list[PointBlock]
    _values: Tensor
    _factor: Tensor
    _appended: list[int]
    _jitter: float
    _snapshot: PosteriorMean | None

    def __init__(
        self,
        dim: int,
        *,
        lengthscale: float | None = None,
        outputscale: float = SOFTPLUS_OF_ZERO,
        noise: float = 1e-4,
        scaling: ScoreScaling = "raw",
        jitter: float = 1e-10,
    ) -> None:
        self.dim = dim
        self.lengthscale = math.sqrt(dim) if lengthscale is None else lengthscale
        self.outputscale = outputscale
        self.noise = noise
        self.scaling: ScoreScaling = scaling
        self._first_jitter = jitter
        if not (dim >= 1 and self.lengthscale > 0 and outputscale > 0 and noise >= 0 and jitter > 0):
            raise ValueError(
                "expected dim >= 1, lengthscale > 0, outputscale > 0, noise >= 0 and jitter > 0, got "
                f"{dim}, {self.lengthscale}, {outputscale}, {noise} and {jitter}"
            )
        self._reset()

    def __len__(self) -> int:
        """Returns N, how many answers it knows."""
        return len(self._values)

    def append(self, points: Tensor, values: Tensor) -> None:
        """Adds answers.

        Args:
            points: (n, dim), finite. Kept by reference if float32: do not change them afterwards.
            values: (n,), finite.

        Raises:
            ValueError: A shape does not fit or a number is not finite; nothing was added.
        """
        points, values = points.detach().to("cpu", torch.float32), values.detach().to("cpu", torch.float64)
        if points.ndim != 2 or points.shape[1] != self.dim or values.shape != (len(points),):
            raise ValueError(
                f"expected points (n, {self.dim}) and values (n,), got {tuple(points.shape)}, {tuple(values.shape)}"
            )
        if not (_all_finite(points) and _all_finite(values)):
            raise ValueError("expected finite points and values, got nan or infinity")
        if len(points) == 0:
            return
        self._values = torch.cat([self._values, values])
        self._appended.append(len(points))
        block = PointBlock.of(points)
        self._extend_factor(block)
        self._keep(block)
        self._snapshot = None

    def mean(self, points: Tensor) -> Tensor:
        """Returns the posterior mean of the modelled score at points (batch, dim), shape (batch,)."""
        return self.snapshot().mean(points)

    def mean_gradient(self, points: Tensor) -> Tensor:
        """Returns the gradient of the posterior mean at points (batch, dim), shape (batch, dim)."""
        return self.snapshot().mean_gradient(points)

    def snapshot(self) -> PosteriorMean:
        """Returns the posterior mean as a value that later answers do not change."""
        if self._snapshot is None:
            targets, amplitude = self._targets()
            weights = torch.cholesky_solve(targets[:, None], self._factor)[:, 0]
            self._snapshot = PosteriorMean(
                tuple(self._blocks), weights, amplitude, self.lengthscale, self.outputscale
            )
        return self._snapshot

    def state_dict(self) -> dict[str, Any]:
        """Returns a flat dict; the factor is left out and made again in the same steps, bit for bit."""
        return {
            "surrogate": "gaussian-process",
            "dim": self.dim,
            "lengthscale": self.lengthscale,
            "outputscale": self.outputscale,
            "noise": self.noise,
            "scaling": self.scaling,
            "jitter": self._first_jitter,
            "appended": list(self._appended),
            "points": torch.cat([torch.zeros(0, self.dim), *(block.points for block in self._blocks)]),
            "values": self._values.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned.

        Raises:
            ValueError: The state is of another surrogate or of other hyper-parameters.
        """
        mine = self.state_dict()
        for key in ("surrogate", "dim", "lengthscale", "outputscale", "noise", "scaling", "jitter"):
            if state.get(key) != mine[key]:
                raise ValueError(f"expected a state with {key} {mine[key]!r}, got {state.get(key)!r}")
        self._reset()
        sizes = [int(size) for size in state["appended"]]
        for points, values in zip(state["points"].split(sizes), state["values"].split(sizes), strict=True):
            self.append(points.clone(), values)  # memory of its own, aligned as it was: BLAS then rounds alike

    def _reset(self) -> None:
        self._blocks = []
        self._values = torch.zeros(0, dtype=torch.float64)
        self._factor = torch.zeros(0, 0, dtype=torch.float64)
        self._appended = []
        self._jitter = self._first_jitter
        self._snapshot = None

    def _keep(self, fresh: PointBlock) -> None:
        """Keeps points in blocks large enough for fast products, copying no more than a small block."""
        together = len(fresh) + (len(self._blocks[-1]) if self._blocks else 0)
        if self._blocks and together <= ROW_BLOCK and together * self.dim <= MERGED_NUMBERS:
            self._blocks[-1] = self._blocks[-1].joined(fresh)
        else:
            self._blocks.append(fresh)

    def _extend_factor(self, fresh: PointBlock) -> None:
        """Extends L with the rows of new points: [[L, 0], [V^T, chol(K22 - V^T V)]] with L V = K12."""
        known = len(self._factor)
        size = known + len(fresh)
        cross = [self._kernel(fresh, block) for block in self._blocks]
        corner = self._kernel(fresh, fresh)
        corner.diagonal().add_(self._diagonal())
        factor = torch.zeros(size, size, dtype=torch.float64)
        factor[:known, :known] = self._factor
        if known:
            solved = torch.linalg.solve_triangular(self._factor, torch.cat(cross, dim=1).T, upper=False)
            factor[known:, :known] = solved.T
            corner -= solved.T @ solved
        corner_factor, failed = torch.linalg.cholesky_ex(corner)
        if failed:
            self._factor = self._factorise_all([*self._blocks, fresh])
        else:
            factor[known:, known:] = corner_factor
            self._factor = factor

    def _factorise_all(self, blocks: list[PointBlock]) -> Tensor:
        """Factorises from scratch with ten times the jitter, as often as it takes."""
        covariance = torch.cat([torch.cat([self._kernel(row, column) for column in blocks], 1) for row in blocks])
        covariance = (covariance + covariance.T) / 2
        while True:
            self._jitter *= 10
            attempt = covariance.clone()
            attempt.diagonal().add_(self._diagonal())
            factor, failed = torch.linalg.cholesky_ex(attempt)
            if not failed:
                return torch.as_tensor(factor)

    def _kernel(self, left: PointBlock, right: PointBlock) -> Tensor:
        return rbf_kernel(left, right, self.lengthscale, self.outputscale)

    def _diagonal(self) -> float:
        return self.noise + self._jitter * self.outputscale

    def _targets(self) -> tuple[Tensor, float]:
        """The modelled scores divided by an amplitude, and that amplitude; nothing here can overflow."""
        largest = float(self._values.abs().max()) if len(self) else 0.0
        if largest == 0.0:
            return self._values, 1.0
        unit = self._values / largest
        if self.scaling == "raw":
            return unit, largest
        spread = unit.std(correction=0)
        return (unit - unit.mean()) / (spread if spread > 1e-12 else 1.0), 1.0


def _all_finite(numbers: Tensor) -> bool:
    """Whether no number is nan or infinite, without a temporary of the tensor's size."""
    if numbers.numel() == 0:
        return True
    least, largest = torch.aminmax(numbers)
    return bool(least.isfinite() and largest.isfinite())


__all__ = ["SOFTPLUS_OF_ZERO", "GaussianProcess", "ScoreScaling"]
