"""The posterior mean of a Gaussian process with an RBF kernel, and its gradient: what a plan carries.

For weights w = (K + noise I)^{-1} y, with k(x, x') = outputscale exp(-|x - x'|^2 / (2 lengthscale^2)):

    m(x)      = sum_i w_i k(x, x_i)
    grad m(x) = -sum_i w_i k(x, x_i) (x - x_i) / lengthscale^2

With C[b, i] = w_i k(x_b, x_i) the gradient of a whole batch is (C X - rowsum(C) x) / lengthscale^2: two matrix
products (the distances, and C X), never an array of shape (batch, N, dim).

Precision: up to 4,096 dimensions everything is float64. Above, products are float32 in blocks of 2,048 columns
whose sums are float64; a squared distance is then wrong by about 1e-8 of the latents' squared norms.

May import: torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

EXACT_DIM = 4096
COLUMN_BLOCK = 2048
ROW_BLOCK = 1024


def inner_products(left: Tensor, right: Tensor) -> Tensor:
    """Returns left @ right^T as float64, shape (n, m), for float32 (n, dim) and (m, dim)."""
    if left.shape[1] <= EXACT_DIM:
        return left.double() @ right.double().T
    total = torch.zeros(len(left), len(right), dtype=torch.float64)
    for start in range(0, left.shape[1], COLUMN_BLOCK):
        columns = slice(start, start + COLUMN_BLOCK)
        total += left[:, columns].float() @ right[:, columns].T
    return total


def squared_norms(points: Tensor) -> Tensor:
    """Returns the squared length of each row of (n, dim), float64 of shape (n,)."""
    total = torch.zeros(len(points), dtype=torch.float64)
    for start in range(0, points.shape[1], COLUMN_BLOCK):
        total += points[:, start : start + COLUMN_BLOCK].double().square().sum(dim=1)
    return total


@dataclass(frozen=True)
class PointBlock:
    """Points with their squared lengths, which cost as much to find as a product does.

    Attributes:
        points: (n, dim), float32 (or float64 for queries).
        norms: float64 of shape (n,).
    """

    points: Tensor
    norms: Tensor

    def __len__(self) -> int:
        """Returns n."""
        return len(self.points)

    @classmethod
    def of(cls, points: Tensor) -> PointBlock:
        """Measures the lengths of points."""
        return cls(points, squared_norms(points))

    def rows(self, start: int, end: int) -> PointBlock:
        """Returns some of the points, sharing memory."""
        return PointBlock(self.points[start:end], self.norms[start:end])

    def joined(self, other: PointBlock) -> PointBlock:
        """Returns both blocks as one, in memory of its own."""
        return PointBlock(torch.cat([self.points, other.points]), torch.cat([self.norms, other.norms]))


def rbf_kernel(left: PointBlock, right: PointBlock, lengthscale: float, outputscale: float) -> Tensor:
    """Returns the kernel matrix, float64 of shape (n, m), for n and m points."""
    squares = inner_products(left.points, right.points).mul_(-2)
    squares += left.norms[:, None] + right.norms
    squares = torch.nan_to_num(squares, nan=torch.inf).clamp_(min=0.0)  # nan: float32 products that overflowed
    return outputscale * torch.exp(squares / (-2 * lengthscale**2))


@dataclass(frozen=True)
class PosteriorMean:
    """A snapshot of a surrogate: immutable, and no larger than the points it knows.

    Attributes:
        blocks: The points, float32, in blocks that together have N rows.
        weights: float64 of shape (N,), divided by ``amplitude``.
        amplitude: What the weights and so the mean are multiplied by; keeps huge scores inside float64.
        lengthscale: Of the kernel.
        outputscale: Of the kernel.
    """

    blocks: tuple[PointBlock, ...]
    weights: Tensor
    amplitude: float
    lengthscale: float
    outputscale: float

    def __len__(self) -> int:
        """Returns N, how many points it knows."""
        return len(self.weights)

    def mean(self, points: Tensor) -> Tensor:
        """Returns m at points (batch, dim), of shape (batch,) and the dtype of the points; always finite."""
        return self._evaluate(points, with_gradient=False)[0]

    def mean_gradient(self, points: Tensor) -> Tensor:
        """Returns the gradient of m at points (batch, dim), of the same shape and dtype; always finite."""
        return self._evaluate(points, with_gradient=True)[1]

    def mean_and_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Returns :meth:`mean` and :meth:`mean_gradient` for the price of the second."""
        return self._evaluate(points, with_gradient=True)

    def _evaluate(self, points: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor]:
        working = torch.float64 if points.shape[1] <= EXACT_DIM else torch.float32
        mean = torch.zeros(len(points), dtype=torch.float64)
        pull = torch.zeros_like(points, dtype=working)
        queries = PointBlock.of(points)
        for rows, weights in self._row_blocks():
            shares = rbf_kernel(queries, rows, self.lengthscale, self.outputscale) * weights
            mean += shares.sum(dim=1)
            if with_gradient:
                pull.addmm_(shares.to(working), rows.points.to(working))
        pull -= mean.to(working)[:, None] * points
        scale = self.amplitude / self.lengthscale**2
        return _finite(mean * self.amplitude, points.dtype), _finite(pull * scale, points.dtype)

    def _row_blocks(self) -> Iterator[tuple[PointBlock, Tensor]]:
        start = 0
        for block in self.blocks:
            for first in range(0, len(block), ROW_BLOCK):
                rows = block.rows(first, first + ROW_BLOCK)
                yield rows, self.weights[start : start + len(rows)]
                start += len(rows)


def _finite(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Clamps what does not fit the dtype to its largest number."""
    return torch.nan_to_num(values.to(dtype), nan=0.0)


__all__ = ["PointBlock", "PosteriorMean", "inner_products", "rbf_kernel", "squared_norms"]
