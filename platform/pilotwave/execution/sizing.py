"""How many evaluators there should be: more with the backlog, fewer when some have had nothing to do for a while.

Growing: every evaluator that is at work is needed; of the questions that wait, as many deserve an evaluator of
their own as could not be answered by those that exist before a new one is up. If an answer takes longer than it
takes to bring an evaluator up, that is all of them; if answers are quick, it is few. Both times are measured.
Shrinking: an evaluator that was idle for a while is let go. The two cannot chase one another: what one burst made
come stays for at least that while.

Pure functions of the time that the caller passes; may import the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Collection

SMOOTHING = 0.2
"""Weight of the newest measured time."""


class PoolSizing:
    """The rule for one pool.

    Args:
        minimum: So many questions can always be asked at once.
        maximum: More there never are.
        idle_seconds: For how long an evaluator has nothing to do before it is let go.
        each: How many questions one evaluator asks at once.
    """

    def __init__(self, minimum: int, maximum: int, idle_seconds: float, each: int = 1) -> None:
        self.minimum = minimum
        self.maximum = maximum
        self.idle_seconds = idle_seconds
        self.each = each
        self._answer_seconds: float | None = None
        self._start_seconds: float | None = None

    @property
    def fewest(self) -> int:
        """How many evaluators there are at least."""
        return math.ceil(self.minimum / self.each)

    @property
    def most(self) -> int:
        """How many evaluators there are at most."""
        return math.ceil(self.maximum / self.each)

    def answered(self, seconds: float) -> None:
        """Takes note of how long a question took, from when it was handed over."""
        self._answer_seconds = _smoothed(self._answer_seconds, seconds)

    def came_up(self, seconds: float) -> None:
        """Takes note of how long an evaluator took from its request until it was up."""
        self._start_seconds = _smoothed(self._start_seconds, seconds)

    def needed(self, waiting: int, ages: Collection[float]) -> int:
        """Returns how many evaluators the questions of this moment need; never fewer than the fewest.

        Args:
            waiting: How many questions no evaluator takes.
            ages: For how long each question that is being asked has been, in seconds.
        """
        questions = len(ages) + self._deserve_one(waiting, ages)
        return math.ceil(min(self.maximum, max(self.minimum, questions)) / self.each)

    def is_spare(self, existing: int, needed: int, idle_for: float) -> bool:
        """Says whether an evaluator may go.

        Args:
            existing: How many there are, with it and with those that are not up yet.
            needed: How many the questions of this moment need.
            idle_for: For how long it has had nothing to do, seconds.
        """
        return existing > self.most or (existing > max(needed, self.fewest) and idle_for >= self.idle_seconds)

    def _deserve_one(self, waiting: int, ages: Collection[float]) -> int:
        """Returns for how many waiting questions a new evaluator would be up before one that exists is free."""
        # Questions that have not ended yet are known to take at least as long as they have.
        answer = max(self._answer_seconds or 0.0, sum(ages) / len(ages) if ages else 0.0)
        start = self._start_seconds or 0.0
        if not answer:
            return 0
        return math.ceil(waiting * min(1.0, answer / start)) if start else waiting


def _smoothed(before: float | None, seconds: float) -> float:
    return seconds if before is None else before + SMOOTHING * (seconds - before)


__all__ = ["PoolSizing"]
