"""Where the time went: unions of the intervals in which the model or an oracle was at work.

May import :mod:`pilotwave.execution.job` and the standard library.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pilotwave.execution.job import TimeShares

Interval = tuple[float, float]


@dataclass
class Accounting:
    """Collects intervals in seconds since the epoch.

    Attributes:
        launched: When the user typed the command.
        evaluators: How many oracle workers there are.
    """

    launched: float
    evaluators: int
    generating: list[Interval] = field(default_factory=list)
    evaluating: list[Interval] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._looping_since: float | None = None
        self._worked = 0.0

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
        if not self.evaluating:
            return 0.0
        since = min(start for start, _ in self.evaluating)
        until = max(end for _, end in self.evaluating)
        used = sum(end - start for start, end in self.evaluating)
        available = self.evaluators * (until - since)
        return min(1.0, used / available) if available > 0 else 0.0

    def shares(self, now: float | None = None) -> TimeShares:
        """Sums up to now."""
        now = time.time() if now is None else now
        everything = self.generating + self.evaluating
        first = min((start for start, _ in everything), default=now)
        return TimeShares(
            wall=now - self.launched,
            busy=length_of_union(everything),
            generating=length_of_union(self.generating),
            evaluating=length_of_union(self.evaluating),
            starting=max(0.0, first - self.launched),
        )


def length_of_union(intervals: list[Interval]) -> float:
    """Returns the total length covered by intervals that may overlap."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        if end > reached:
            covered += end - max(start, reached)
            reached = end
    return covered


__all__ = ["Accounting", "length_of_union"]
