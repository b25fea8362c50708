"""Searching: the scores of all codes for a few queries at a time, and the best k of each.

A score is F <y, b> - N2, the larger the nearer. With y quantised to planes of signs,
<y, b> = step / 2 * (63 bits - 2 sum_k 2^k popcount(plane_k xor code)): integers, so that no order of summing
matters. Equal scores are ordered by id; what is found does not depend on slots, ranges or threads.

May import numpy and the module ``compiling``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pilotwave.archive.usr_lsh.compiling import compiled, popcount

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.uint16]
Identifiers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_CHUNK = 64
"""Codes whose scores are worked out before any of them is compared: they stay in the first-level cache."""


@compiled
def _number(half: np.uint16) -> np.float32:
    """The value of a non-negative, finite half-precision number given as its bits."""
    return np.uint32(np.uint32(half) << np.uint32(13)).view(np.float32) * np.float32(2.0**112)


@compiled
def _worse(score: float, key: int, other: float, other_key: int) -> bool:
    return score < other or (score == other and key > other_key)


@compiled
def _sink(scores: Floats, keys: Identifiers, size: int) -> None:
    """Moves the root of a heap with the worst on top down to its place."""
    score, key = scores[0], keys[0]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _worse(scores[child + 1], keys[child + 1], scores[child], keys[child]):
            child += 1
        if not _worse(scores[child], keys[child], score, key):
            break
        scores[place], keys[place] = scores[child], keys[child]
        place = child
    scores[place], keys[place] = score, key


@compiled
def _mismatches(codes: Words, start: int, stop: int, planes: Words, sums: npt.NDArray[np.int64]) -> None:
    """sum_k 2^k popcount(plane_k xor code) of some codes."""
    words = codes.shape[1]
    for i in range(start, stop):
        total = np.uint64(0)
        for w in range(words):
            code = codes[i, w]
            part: np.uint64 = popcount(planes[0, w] ^ code)
            part += popcount(planes[1, w] ^ code) << np.uint64(1)
            part += popcount(planes[2, w] ^ code) << np.uint64(2)
            part += popcount(planes[3, w] ^ code) << np.uint64(3)
            part += popcount(planes[4, w] ^ code) << np.uint64(4)
            part += popcount(planes[5, w] ^ code) << np.uint64(5)
            total += part
        sums[i - start] = np.int64(total)


@compiled
def scan(
    codes: Words,
    factors: Halves,
    norms: Halves,
    ids: Identifiers,
    start: int,
    stop: int,
    planes: Words,
    steps: Floats,
    scores: Floats,
    keys: Identifiers,
) -> None:
    """Finds the best k of the codes in ``start ... stop`` for some queries.

    Args:
        codes: (slots, words).
        factors: F as half-precision bits, (slots,).
        norms: N2 as half-precision bits, (slots,).
        ids: (slots,).
        start: The first slot.
        stop: The slot after the last.
        planes: Of the queries, (n, PLANES, words).
        steps: Of the queries, in the unit of F, (n,).
        scores: In: -inf; out: a heap of the k best scores of each query, the worst first, (n, k).
        keys: In: the largest integer; out: the ids to it, (n, k).
    """
    bits, k = 64 * codes.shape[1], scores.shape[1]
    sums = np.empty(_CHUNK, dtype=np.int64)
    values = np.empty(_CHUNK, dtype=np.float32)
    for first in range(start, stop, _CHUNK):
        last = min(first + _CHUNK, stop)
        for query in range(planes.shape[0]):
            _mismatches(codes, first, last, planes[query], sums)
            most, half = np.float32(63 * bits), np.float32(0.5) * steps[query]
            for i in range(last - first):
                inner = half * (most - np.float32(2 * sums[i]))
                values[i] = _number(factors[first + i]) * inner - _number(norms[first + i])
            for i in range(last - first):
                if values[i] >= scores[query, 0] and _worse(
                    scores[query, 0], keys[query, 0], values[i], ids[first + i]
                ):
                    scores[query, 0], keys[query, 0] = values[i], ids[first + i]
                    _sink(scores[query], keys[query], k)


__all__ = ["scan"]
