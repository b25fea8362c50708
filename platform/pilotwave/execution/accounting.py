"""Where the time went: unions of the intervals in which the model or an oracle was at work.

May import :mod:`pilotwave.execution.job` and the standard library.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pilotwave.execution.job import TimeShares

Interval = tuple[float, float]
PIECES = 1024
"""So many separate intervals are remembered; what came before the older half of them is only summed."""


class Intervals:
    """Intervals that may overlap, in any order, of which only what they cover together is kept.

    An interval that reaches back over hundreds of gaps between others counts from the last of those gaps.

    Attributes:
        first: The earliest beginning, or None.
        last: The latest end, or None.
        total: Of all lengths, overlaps counted as often as they occur.
    """

    def __init__(self, *also: Intervals) -> None:
        self.first: float | None = None
        self.last: float | None = None
        self.total = 0.0
        self._also = also
        self._before = 0.0
        self._frontier = float("-inf")
        self._starts: list[float] = []
        self._ends: list[float] = []

    def append(self, interval: Interval) -> None:
        """Takes one more into account."""
        start, end = interval
        self.first = start if self.first is None else min(self.first, start)
        self.last = end if self.last is None else max(self.last, end)
        self.total += end - start
        self._cover(max(start, self._frontier), end)
        for other in self._also:
            other.append(interval)

    def covered(self) -> float:
        """Returns the total length that is covered."""
        return self._before + sum(end - start for start, end in zip(self._starts, self._ends, strict=True))

    def _cover(self, start: float, end: float) -> None:
        if end <= start:
            return
        left = bisect.bisect_left(self._ends, start)  # the first piece that reaches it
        right = bisect.bisect_right(self._starts, end)  # one after the last piece that it reaches
        if left < right:
            start, end = min(start, self._starts[left]), max(end, self._ends[right - 1])
        self._starts[left:right], self._ends[left:right] = [start], [end]
        if len(self._starts) > PIECES:
            half = PIECES // 2
            self._frontier = self._ends[half - 1]
            self._before += sum(self._ends[:half]) - sum(self._starts[:half])
            del self._starts[:half], self._ends[:half]


class Accounting:
    """Collects intervals in seconds since the epoch.

    Args:
        launched: When the user typed the command.
        evaluators: How many oracle workers there are at first.

    Attributes:
        evaluators: How many there are now.
        generating: When the model was at work.
        evaluating: When an oracle was at work, from asking to answer.
    """

    def __init__(self, launched: float, evaluators: int) -> None:
        self.launched = launched
        self.evaluators = evaluators
        self._busy = Intervals()
        self.generating = Intervals(self._busy)
        self.evaluating = Intervals(self._busy)
        self._looping_since: float | None = None
        self._worked = 0.0
        self._sizes = [(float("-inf"), self.evaluators)]

    def exist(self, evaluators: int, now: float) -> None:
        """Takes note of how many oracle workers there are from now on."""
        if evaluators != self.evaluators:
            self.evaluators = evaluators
            self._sizes.append((now, evaluators))

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Around the loop's waiting: what lies between two waits is the platform's own time."""
        if self._looping_since is not None:
            self._worked += time.perf_counter() - self._looping_since
        yield
        self._looping_since = time.perf_counter()

    def platform_seconds(self) -> float:
        """For how long the loop itself was at work, between its first wait and its last."""
        return self._worked

    def utilisation(self) -> float:
        """Share of the oracle workers' time in use since the first query was asked, 0 to 1."""
        since, until = self.evaluating.first, self.evaluating.last
        if since is None or until is None or until <= since:
            return 0.0
        available = self._available(since, until)
        return min(1.0, self.evaluating.total / available) if available > 0 else 0.0

    def _available(self, since: float, until: float) -> float:
        """Returns how many seconds the oracle workers that existed had between two moments, together."""
        ends = [begin for begin, _ in self._sizes[1:]] + [float("inf")]
        return sum(
            number * max(0.0, min(until, end) - max(since, begin))
            for (begin, number), end in zip(self._sizes, ends, strict=True)
        )

    def shares(self, now: float | None = None) -> TimeShares:
        """Sums up to now."""
        now = time.time() if now is None else now
        first = now if self._busy.first is None else self._busy.first
        return TimeShares(
            wall=now - self.launched,
            busy=self._busy.covered(),
            generating=self.generating.covered(),
            evaluating=self.evaluating.covered(),
            starting=max(0.0, first - self.launched),
        )


__all__ = ["Accounting", "Intervals"]
