"""Orthonormal columns and principal axes, by loops in a fixed order: the same bits on every machine.

LAPACK's results depend on its version and on the number of threads; codes made with them would, too.

May import numpy and the module ``compiling``.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pilotwave.archive.usr_lsh.compiling import compiled, ranges_of, side_by_side

Doubles = npt.NDArray[np.float64]

ITERATIONS = 8
"""Of the block power method; axes that it cannot tell apart by then have nearly equal variances."""
PARTS = 16
"""Rows of a sample are summed in this many parts, whatever the number of threads."""


def random_columns(dim: int, count: int, random: np.random.Generator) -> Doubles:
    """Returns ``count`` random orthonormal columns, shape (dim, count); uniform over all such sets."""
    columns = random.standard_normal((dim, count))
    _orthonormalise(columns)
    return columns


def principal_axes(sample: Doubles, count: int, random: np.random.Generator, threads: int) -> Doubles:
    """Returns the leading principal axes of a centred sample, in a random rotation among themselves.

    A block power method on the covariance, shifted by about a millionth of its mean variance so that a sample of
    fewer rows than axes (or of none that differ) is completed by random directions.

    Args:
        sample: Shape (rows, dim), its mean already taken away.
        count: How many axes, at most dim.
        random: Draws the start and the rotation.
        threads: How many to use; the result does not depend on it.

    Returns:
        Orthonormal columns, shape (dim, count).
    """
    dim = sample.shape[1]
    axes = random_columns(dim, count, random)
    variance = float((sample * sample).sum()) / dim
    # A power of two: the last digits of numpy's sum differ between machines.
    shift = 2.0 ** round(math.log2(1e-6 * variance)) if variance > 0.0 else 0.0
    ranges = ranges_of(len(sample), -(-len(sample) // PARTS))
    if shift > 0.0:
        for _ in range(ITERATIONS):
            current = axes
            parts = side_by_side(lambda a, b, q=current: _covariance_times(sample[a:b], q), ranges, threads)
            axes = shift * current
            for part in parts:
                axes += part
            _orthonormalise(axes)
    return _product(axes, random_columns(count, count, random))


def _orthonormalise(columns: Doubles) -> None:
    """Gram-Schmidt in place, twice: the second time repairs what rounding left over."""
    _gram_schmidt(columns)
    _gram_schmidt(columns)


@compiled
def _gram_schmidt(columns: Doubles) -> None:
    dim, count = columns.shape
    along = np.empty(count)
    for k in range(count):
        square = 0.0
        for i in range(dim):
            square += columns[i, k] * columns[i, k]
        scale = 1.0 / np.sqrt(square)
        for i in range(dim):
            columns[i, k] *= scale
        along[:] = 0.0
        for i in range(dim):
            one = columns[i, k]
            for j in range(k + 1, count):
                along[j] += one * columns[i, j]
        for i in range(dim):
            one = columns[i, k]
            for j in range(k + 1, count):
                columns[i, j] -= one * along[j]


@compiled
def _covariance_times(sample: Doubles, columns: Doubles) -> Doubles:
    """X^T (X Q) of some rows X."""
    dim, count = columns.shape
    result = np.zeros((dim, count))
    scores = np.empty(count)
    for row in range(sample.shape[0]):
        scores[:] = 0.0
        for i in range(dim):
            one = sample[row, i]
            for j in range(count):
                scores[j] += one * columns[i, j]
        for i in range(dim):
            one = sample[row, i]
            for j in range(count):
                result[i, j] += one * scores[j]
    return result


@compiled
def _product(left: Doubles, right: Doubles) -> Doubles:
    result = np.zeros((left.shape[0], right.shape[1]))
    for i in range(left.shape[0]):
        for k in range(left.shape[1]):
            one = left[i, k]
            for j in range(right.shape[1]):
                result[i, j] += one * right[k, j]
    return result


__all__ = ["principal_axes", "random_columns"]
