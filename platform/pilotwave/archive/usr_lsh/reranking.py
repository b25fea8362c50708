"""Exact comparison of a query with its candidates.

May import numpy, pilotwave.errors and the module ``compiling``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotwave.archive.usr_lsh.compiling import compiled
from pilotwave.errors import InputError

Floats = npt.NDArray[np.float32]
Identifiers = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]
Source = Callable[[Identifiers], npt.ArrayLike] | npt.NDArray[Any]

_NUMBERS_AT_A_TIME = 8_000_000


@compiled
def _squares(query: Floats, vectors: Floats, squares: Distances) -> None:
    """||x - q||^2 of each row in float64, in eight strands."""
    dim = query.shape[0]
    strands = np.empty(8)
    for i in range(vectors.shape[0]):
        strands[:] = 0.0
        whole = dim - dim % 8
        for j in range(0, whole, 8):
            for s in range(8):
                one = np.float64(vectors[i, j + s]) - np.float64(query[j + s])
                strands[s] += one * one
        for j in range(whole, dim):
            one = np.float64(vectors[i, j]) - np.float64(query[j])
            strands[0] += one * one
        total = 0.0
        for s in range(8):
            total += strands[s]
        squares[i] = total


def rerank(queries: Floats, candidates: Identifiers, k: int, source: Source) -> tuple[Distances, Identifiers]:
    """Returns the k candidates with the least Euclidean distances, equal ones by id.

    Args:
        queries: (n, dim).
        candidates: Ids, (n, m) with m at least k.
        k: How many are wanted.
        source: Gives the vectors; see :meth:`~pilotwave.archive.usr_lsh.index.UsrLshIndex.search`.

    Returns:
        Distances and ids, (n, k) each.

    Raises:
        InputError: The source does not give what it should.
    """
    count, dim = candidates.shape[1], queries.shape[1]
    squares = np.empty(candidates.shape, dtype=np.float64)
    step = max(1, _NUMBERS_AT_A_TIME // max(1, count * dim))
    for start in range(0, len(queries), step):
        part = candidates[start : start + step]
        vectors = _vectors_of(source, part.reshape(-1), dim).reshape(*part.shape, dim)
        for row in range(len(part)):
            _squares(queries[start + row], vectors[row], squares[start + row])
    order = np.lexsort((candidates, squares), axis=-1)[:, :k]
    return np.sqrt(np.take_along_axis(squares, order, axis=-1)), np.take_along_axis(candidates, order, axis=-1)


def _vectors_of(source: Source, ids: Identifiers, dim: int) -> Floats:
    if callable(source):
        found = source(ids)
    else:
        if len(ids) and ids.max() >= len(source):
            raise InputError(f"vectors: expected a row for id {ids.max()}, got {len(source)} rows")
        found = source[ids]
    vectors = np.ascontiguousarray(found, dtype=np.float32)
    if vectors.shape != (len(ids), dim) or not np.isfinite(vectors).all():
        raise InputError(f"vectors: expected finite numbers of shape {(len(ids), dim)}, got {vectors.shape}")
    return vectors


__all__ = ["rerank"]
