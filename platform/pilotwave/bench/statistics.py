"""Query efficiency, as the Fast Direct paper counts it and by levels, with bootstrap intervals over seeds.

A *level* is a batch mean in units of the task: (mean - unguided mean) / unguided standard deviation; lower is
better, 0 is what the model does by itself. A method's curve is its level after each batch, averaged over seeds.
Three ratios say how many fewer queries a method needs than a reference, above 1 if it needs fewer:

- **paper** (Tan et al., ICLR 2025): all batch queries of the reference over the batch query at which the method
  first passes the best batch mean that the reference reaches in them.
- **at Q queries**: Q over the queries until the method has the batch mean that the reference has at Q.
- **to the best within Q queries**: the level is the lowest on the reference's curve up to Q; queries until the
  reference first had it over queries until the method does. It is harder on a method whose reference peaks early.

The last two are interpolated linearly between batches, and a level counts as reached within :data:`TOLERANCE` of
the way to it from the reference's first batch: scores that have come to their limit differ by rounding only.

A method that never gets there is *censored*: its ratio is below the one stated, which counts all its queries.
Intervals are percentiles over resampled seeds; where both have the same seeds, they are resampled in pairs, since a
seed stands for the same noise with every method.

May import numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 2000
TOLERANCE = 0.01
Ratio = tuple[Floats, npt.NDArray[np.bool_]]
"""Ratios (count,), and whether each is only a bound."""


@dataclass(frozen=True, eq=False)
class Curves:
    """What a method reached on a task.

    Attributes:
        seeds: Of the rows.
        queries: Spent after each batch, increasing, (batches,).
        levels: (seeds, batches), finite.
    """

    seeds: tuple[int, ...]
    queries: Floats
    levels: Floats


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number with its bootstrap distribution.

    Attributes:
        value: From all seeds.
        resampled: From resampled seeds, (RESAMPLES,).
        censored: Whether the value is only a bound: the true one is below.
    """

    value: float
    resampled: Floats
    censored: bool = False

    @property
    def interval(self) -> tuple[float, float]:
        """The central interval of :data:`CONFIDENCE`."""
        low, high = np.quantile(self.resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(low), float(high)


def first_reach(queries: Floats, curves: Floats, levels: Floats) -> Floats:
    """Returns after how many queries curves first come down to a level, infinite if never.

    Between batches a curve is straight; before the first one it is not known, so a curve that starts below counts
    all queries of its first batch.

    Args:
        queries: Increasing, (batches,).
        curves: (count, batches).
        levels: (count,).
    """
    below = curves <= levels[:, None]
    place = below.argmax(axis=1)
    rows, before = np.arange(len(curves)), np.maximum(place - 1, 0)
    above, under = curves[rows, before], curves[rows, place]
    drop = above - under
    share = np.where(drop > 0, (above - levels) / np.where(drop > 0, drop, 1.0), 1.0)
    reached = queries[before] + np.clip(share, 0.0, 1.0) * (queries[place] - queries[before])
    reached = np.where(place == 0, queries[0], reached)
    return np.where(below.any(axis=1), reached, np.inf)


def at(queries: Floats, curves: Floats, query: float) -> Floats:
    """Returns curves (count, batches) at a number of queries, (count,); straight between batches, held outside."""
    return np.array([np.interp(query, queries, curve) for curve in curves])


def paper_ratio(reference: Curves, method: Curves) -> Estimate:
    """Returns the query efficiency as the paper counts it, see the module."""

    def ratio(theirs: Floats, ours: Floats) -> Ratio:
        passed = ours <= theirs.min(axis=1)[:, None]
        never = ~passed.any(axis=1)
        needed = np.where(never, method.queries[-1], method.queries[passed.argmax(axis=1)])
        return reference.queries[-1] / needed, never

    return _estimate(reference, method, ratio)


def ratio_at(reference: Curves, method: Curves, queries: float) -> Estimate:
    """Returns Q over the queries that the method needs for the reference's level at Q ``queries``."""

    def ratio(theirs: Floats, ours: Floats) -> Ratio:
        levels = _nearly(theirs, at(reference.queries, theirs, queries))
        return _over(np.full(len(theirs), queries), first_reach(method.queries, ours, levels), method)

    return _estimate(reference, method, ratio)


def ratio_to_best(reference: Curves, method: Curves, queries: float) -> Estimate:
    """Returns how many times sooner the method has the lowest level of the reference's first ``queries``."""

    def ratio(theirs: Floats, ours: Floats) -> Ratio:
        so_far = np.where(reference.queries <= queries, theirs, np.inf).min(axis=1)
        levels = _nearly(theirs, np.minimum(so_far, at(reference.queries, theirs, queries)))
        return _over(
            first_reach(reference.queries, theirs, levels), first_reach(method.queries, ours, levels), method
        )

    return _estimate(reference, method, ratio)


def _nearly(curves: Floats, levels: Floats) -> Floats:
    """Returns levels (count,) raised by the tolerance, where curves (count, batches) come down to them."""
    return levels + TOLERANCE * np.maximum(curves[:, 0] - levels, 0.0)


def _over(theirs: Floats, ours: Floats, method: Curves) -> Ratio:
    """Returns queries over queries, (count,) each; infinite ones count all that the method spent."""
    never = ~np.isfinite(ours)
    return theirs / np.where(never, method.queries[-1], ours), never


def mean_at(curves: Curves, queries: float) -> Estimate:
    """Returns the level at a number of queries, averaged over seeds."""
    rows = at(curves.queries, curves.levels, queries)
    return mean_estimate(rows)


def mean_estimate(values: Floats) -> Estimate:
    """Returns the mean of a number that each seed has, (seeds,)."""
    chosen = _resampled_rows(len(values))
    return Estimate(float(values.mean()), values[chosen].mean(axis=1))


def median_over(estimates: Sequence[Estimate]) -> Estimate:
    """Returns the median over tasks; its interval is over seeds, with the tasks as they are.

    Raises:
        ValueError: There are none.
    """
    if not estimates:
        raise ValueError("expected one estimate at least")
    values = np.array([estimate.value for estimate in estimates])
    middle = np.argsort(values, kind="stable")[(len(values) - 1) // 2 : len(values) // 2 + 1]
    return Estimate(
        float(np.median(values)),
        np.median(np.stack([estimate.resampled for estimate in estimates]), axis=0),
        any(estimates[place].censored for place in middle),
    )


def _estimate(reference: Curves, method: Curves, ratio: Callable[[Floats, Floats], Ratio]) -> Estimate:
    """Applies a ratio of mean curves, (count, batches) each, to all seeds and to resampled ones."""
    ours = _resampled_rows(len(method.levels))
    theirs = ours if reference.seeds == method.seeds else _resampled_rows(len(reference.levels), stream=1)
    value, never = ratio(reference.levels.mean(axis=0)[None], method.levels.mean(axis=0)[None])
    resampled, _ = ratio(reference.levels[theirs].mean(axis=1), method.levels[ours].mean(axis=1))
    return Estimate(float(value[0]), resampled, bool(never[0]))


def _resampled_rows(count: int, stream: int = 0) -> npt.NDArray[np.int64]:
    """Returns rows drawn with replacement, (RESAMPLES, count); always the same ones."""
    return np.random.default_rng([count, stream]).integers(0, count, (RESAMPLES, count))


__all__ = [
    "CONFIDENCE",
    "RESAMPLES",
    "TOLERANCE",
    "Curves",
    "Estimate",
    "at",
    "first_reach",
    "mean_at",
    "mean_estimate",
    "median_over",
    "paper_ratio",
    "ratio_at",
    "ratio_to_best",
]
