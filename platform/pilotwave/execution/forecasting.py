"""How soon evaluators will want more candidates, from how long attempts and proposals took lately.

The ready queue is a shop's shelf: it is restocked when what is on it, and on its way to it, would not last until
another delivery could be there. How long a delivery takes is its *lead time*; what is bought meanwhile is foreseen
from the ages of the attempts in flight, so evaluators in lockstep (which all end at once) and evaluators that end
one by one are both served, and nothing is assumed of how long an oracle takes.

May import the standard library.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
KEPT = 64
"""So many times are remembered: enough to know their spread, few enough to forget how it was an hour ago."""
LOOKED_AT = 32
"""At most so many attempts in flight are looked at, evenly chosen among all: a decision costs the same for
two thousand evaluators."""
CAUTION = 2.33
"""Standard deviations above the mean that candidates are held for: one time in a hundred they do not last."""


class RecentTimes:
    """How long the last so many of something took, in seconds."""

    def __init__(self) -> None:
        self._order: deque[float] = deque()
        self._sorted: list[float] = []
        self._sums = [0.0]

    def add(self, seconds: float) -> None:
        """Takes note of one more; a clock that was set back makes none negative."""
        seconds = max(0.0, seconds)
        if len(self._order) == KEPT:
            del self._sorted[bisect.bisect_left(self._sorted, self._order.popleft())]
        self._order.append(seconds)
        bisect.insort(self._sorted, seconds)
        self._sums = [0.0, *itertools.accumulate(self._sorted)]

    def __len__(self) -> int:
        return len(self._order)

    def quantile(self, share: float) -> float:
        """Returns what so large a share of them did not exceed, by the nearest rank."""
        return self._sorted[max(0, math.ceil(share * len(self._sorted)) - 1)]

    def ending_within(self, age: float, seconds: float) -> tuple[float, float]:
        """Foresees how often one ends in the next seconds that is so old now and is followed by others like it.

        One that is older than all that are remembered may go on for as long again: it ends within s with
        probability s / (age + s). Where some lasted longer, such a guess weighs as much as one of them.

        Returns:
            Probability that it ends at all, and the expected number of those after it.
        """
        first = bisect.bisect_right(self._sorted, age)
        last = bisect.bisect_right(self._sorted, age + seconds)
        alive = len(self._sorted) - first
        mean = self._sums[-1] / len(self._sorted)
        guess = seconds / (max(age, mean) + seconds) if seconds > 0 else 0.0
        ends = (last - first + guess) / (alive + 1)
        if first == last:
            return ends, 0.0
        left = age + seconds - (self._sums[last] - self._sums[first]) / (last - first)
        return ends, ends * self._begun_now(left, mean)

    def _begun_now(self, seconds: float, mean: float) -> float:
        """Foresees how often one ends that begins now, others after it: seldom twice in less than a mean."""
        if seconds <= mean:
            return bisect.bisect_right(self._sorted, seconds) / len(self._sorted)
        return seconds / max(mean, 1e-9)


@dataclass(frozen=True)
class Demand:
    """How many candidates the evaluators that are at work will want within some time.

    Attributes:
        busy: How many there are.
        firsts: How many of them are expected to end at least once.
        firsts_variance: Of that.
        others: How often they are expected to end after that, its own variance.
    """

    busy: int = 0
    firsts: float = 0.0
    firsts_variance: float = 0.0
    others: float = 0.0

    @property
    def mean(self) -> float:
        """Expected."""
        return self.firsts + self.others

    @property
    def cautious(self) -> float:
        """As many as suffice, but for one time in a hundred."""
        firsts = min(float(self.busy), self.firsts + CAUTION * math.sqrt(self.firsts_variance))
        return firsts + self.others + CAUTION * math.sqrt(self.others)


def foreseen(times: RecentTimes, ages: Collection[float], busy: int, seconds: float) -> Demand:
    """Foresees what is wanted in the next seconds.

    Args:
        times: That attempts took; at least one.
        ages: Of some of the attempts in flight, evenly chosen.
        busy: How many are in flight.
        seconds: From now.
    """
    if not ages:
        return Demand()
    firsts = variance = others = 0.0
    for age in ages:
        ends, again = times.ending_within(age, seconds)
        firsts += ends
        variance += ends * (1 - ends)
        others += again
    scale = busy / len(ages)
    return Demand(busy, scale * firsts, scale * variance, scale * others)


def evenly(items: Iterable[T], count: int) -> Iterator[T]:
    """Yields at most :data:`LOOKED_AT` of so many items, evenly spaced."""
    return itertools.islice(items, 0, None, max(1, math.ceil(count / LOOKED_AT)))


__all__ = ["CAUTION", "KEPT", "LOOKED_AT", "Demand", "RecentTimes", "evenly", "foreseen"]
