"""Which example a training step sees: a stream of permutations that follows from the seed alone.

Rows are a function of the place in the stream, so a run that was killed and started again, or that shares its
batches among processes, sees the same examples. May import numpy.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def data_order(places: Rows, size: int, seed: int, stream: int = 0) -> Rows:
    """Maps places in the endless stream of training examples to rows: a new permutation every epoch.

    Args:
        places: 0, 1, ... in the stream, any shape (n,).
        size: Number of training examples.
        seed: Of the run.
        stream: Of the data set, where several are mixed; each has its own order.
    """
    rows = np.empty_like(places)
    for epoch in np.unique(places // size):
        inside = places // size == epoch
        rows[inside] = _permutation(size, seed, int(epoch), stream)[places[inside] % size]
    return rows


def mixed_order(step: int, batch_size: int, own: int, real: int, real_share: float, seed: int) -> Rows:
    """Returns the rows of a step that mixes one's own data with real data, at least a stated share of it.

    Args:
        step: 0, 1, ...
        batch_size: Rows to return, shape (batch_size,).
        own: Number of one's own examples; they are rows 0 to own - 1.
        real: Number of real examples; they are the rows that follow.
        real_share: At least this share of the batch is real, rounded up to whole examples; 0 needs no real data.
        seed: Of the run.
    """
    from_real = real_count(batch_size, real_share)
    from_own = batch_size - from_real
    parts = [data_order(np.arange(step * from_own, (step + 1) * from_own), own, seed)] if from_own else []
    if from_real:
        places = np.arange(step * from_real, (step + 1) * from_real)
        parts.append(own + data_order(places, real, seed, stream=1))
    return np.concatenate(parts)


def real_count(batch_size: int, real_share: float) -> int:
    """Returns how many examples of a batch are real: the share, rounded up."""
    return min(batch_size, math.ceil(real_share * batch_size - 1e-9))


@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int, stream: int) -> Rows:
    key = (seed, epoch, stream) if stream else (seed, epoch)
    return np.random.default_rng(key).permutation(size)


__all__ = ["data_order", "mixed_order", "real_count"]
