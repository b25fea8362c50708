"""Does an oracle answer differently now? A nearest-neighbour test for order dependence, in cleanlab's spirit.

Campaigns move through the space of samples, so values change with time even under an oracle that never does. What
must not depend on time is what is left after the samples explain all they can: the studentised residuals of a
Gaussian process. For every answer and its nearest neighbours among the samples it is asked whether residuals that
lie far apart in time differ more than those close in time (Cummings, Snorrason and Mueller, "Detecting dataset
drift and non-IID sampling via k-nearest neighbors", 2023, ask it of the samples; here it is asked of the answers).
The p-value is that of a permutation of the residuals. May import numpy and :mod:`pilotwave.forgetting.residuals`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotwave.forgetting.residuals import FEWEST, MOST, FloatArray, fit_answers

NEIGHBOURS = 10
PERMUTATIONS = 499
ALARM = 0.01
"""A p-value up to this is worth a person's look."""
FEWEST_ANSWERS = 3 * FEWEST


@dataclass(frozen=True)
class DriftResult:
    """What the test says.

    Attributes:
        p_value: Small if answers depend on when they were given; 1 where there is too little to tell.
        statistic: The correlation between distance in time and difference in residuals, among neighbours.
        since: When the answers most likely changed, in the unit of the times given; None unless alarmed.
        shift: By how many standard deviations of the residuals they changed then; 0 unless alarmed.
        answers: How many were looked at.
    """

    p_value: float
    statistic: float
    since: float | None
    shift: float
    answers: int

    @property
    def alarmed(self) -> bool:
        """Whether a person should look."""
        return self.since is not None

    def to_json(self) -> dict[str, Any]:
        """Returns it for programs."""
        return {
            "p_value": self.p_value,
            "statistic": self.statistic,
            "since": self.since,
            "shift": self.shift,
            "answers": self.answers,
        }


def drift(
    latents: npt.ArrayLike,
    values: npt.ArrayLike,
    times: npt.ArrayLike,
    *,
    neighbours: int = NEIGHBOURS,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> DriftResult:
    """Tests whether answers depend on when they were given, beyond what the samples explain.

    Deterministic: the same answers give the same result. Of very many answers an even part in time is looked at.

    Args:
        latents: Or invariants of them, (N, *shape), finite.
        values: (N,), finite.
        times: (N,), in any unit.
        neighbours: Of each answer.
        permutations: The smallest p-value is 1 / (permutations + 1).
        seed: Of the permutations.

    Raises:
        ValueError: The numbers of latents, values and times differ, or something is not finite.
    """
    points = np.asarray(latents, dtype=np.float64)
    points = points.reshape(len(points), math.prod(points.shape[1:]))
    answers, moments = np.asarray(values, dtype=np.float64), np.asarray(times, dtype=np.float64)
    if not len(points) == len(answers) == len(moments):
        counts = f"{len(points)}, {len(answers)}, {len(moments)}"
        raise ValueError(f"expected as many latents as values and times, got {counts}")
    if not all(np.isfinite(item).all() for item in (points, answers, moments)):
        raise ValueError("expected finite latents, values and times; leave failed answers out")
    order = np.argsort(moments, kind="stable")
    if len(order) > MOST:
        order = order[np.linspace(0, len(order) - 1, MOST).round().astype(int)]
    points, answers, moments = points[order], answers[order], moments[order]
    fitted = fit_answers(points, answers) if len(order) >= FEWEST_ANSWERS else None
    if fitted is None:
        return DriftResult(1.0, 0.0, None, 0.0, len(order))
    residuals = fitted.residuals
    left, right = _neighbour_pairs(points, neighbours)
    apart = _ranks(np.abs(left - right).astype(np.float64))
    statistic = _correlation(apart, residuals, left, right)
    random = np.random.default_rng(seed)
    reached = sum(
        _correlation(apart, random.permutation(residuals), left, right) >= statistic for _ in range(permutations)
    )
    p_value = (1 + reached) / (1 + permutations)
    if p_value > ALARM:
        return DriftResult(p_value, statistic, None, 0.0, len(order))
    place, shift = _change(residuals)
    return DriftResult(p_value, statistic, float(moments[place]), shift, len(order))


def _neighbour_pairs(points: FloatArray, neighbours: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The pairs (i, j), j one of the nearest neighbours of i; places in order of time."""
    squares = (points**2).sum(1)[:, None] + (points**2).sum(1) - 2.0 * points @ points.T
    np.fill_diagonal(squares, np.inf)
    count = min(neighbours, len(points) - 1)
    nearest = np.argsort(squares, axis=1, kind="stable")[:, :count]
    left = np.repeat(np.arange(len(points)), count)
    return left.astype(np.int64), nearest.reshape(-1).astype(np.int64)


def _correlation(
    apart: FloatArray, residuals: FloatArray, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]
) -> float:
    """The rank correlation between distance in time (ranked already) and difference of the residuals."""
    differences = _ranks(np.abs(residuals[left] - residuals[right]))
    centred, others = apart - apart.mean(), differences - differences.mean()
    scale = float(np.sqrt((centred**2).sum() * (others**2).sum()))
    return float((centred * others).sum() / scale) if scale > 0 else 0.0


def _ranks(numbers: FloatArray) -> FloatArray:
    """Ranks, equal numbers sharing the middle of theirs."""
    _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: FloatArray = (ends - (counts - 1) / 2.0)[inverse]
    return ranks


def _change(residuals: FloatArray) -> tuple[int, float]:
    """Where the mean of the residuals changes most, and by how many of their standard deviations."""
    count = len(residuals)
    places = np.arange(1, count)
    before = np.cumsum(residuals)[:-1] / places
    after = (residuals.sum() - np.cumsum(residuals)[:-1]) / (count - places)
    weight = np.sqrt(places * (count - places) / count)
    place = int(np.argmax(np.abs(after - before) * weight))
    parts = [residuals[: place + 1] - before[place], residuals[place + 1 :] - after[place]]
    spread = float(np.std(np.concatenate(parts)))
    return place + 1, float((after[place] - before[place]) / spread) if spread > 0 else 0.0


__all__ = ["ALARM", "FEWEST_ANSWERS", "DriftResult", "drift"]
