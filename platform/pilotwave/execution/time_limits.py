"""Wall-time limits that are learned from how long an oracle's answers take (``oracle.time_limit: auto``).

An attempt that was ended at its limit says that the answer would have taken longer: it is censored. The survival
function of the durations is estimated from both (Kaplan and Meier, J. Am. Stat. Assoc. 53, 1958), the limit is a
multiple of a high quantile of it, and it doubles for every attempt in a row that ran into it, so that a guess that
is too short mends itself. Pure; may import the standard library.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

QUANTILE = 0.95
FACTOR = 4.0
"""Times the quantile: for lognormal durations with sigma 1, one answer in some 1,000 takes longer."""
FLOOR_SECONDS = 5.0
"""No limit is shorter: below that a busy machine decides."""
ANSWERS_NEEDED = 8
"""Until so many answers are known the limit is the cap."""
WINDOW = 512
"""So many of the latest attempts count."""


class LearnedLimit:
    """The limit of one oracle.

    Args:
        cap: Seconds; where it begins and what it never exceeds.
        floor: Seconds; what it never falls below (unless the cap does).
    """

    def __init__(self, cap: float, *, floor: float = FLOOR_SECONDS) -> None:
        self._cap = cap
        self._floor = min(floor, cap)
        self._seen: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
        self._timeouts_in_a_row = 0
        self._quantile: float | None = None

    @property
    def seconds(self) -> float:
        """The limit of the next attempt."""
        if sum(answered for _, answered in self._seen) < ANSWERS_NEEDED:
            return self._cap
        if self._quantile is None:
            self._quantile = survival_quantile(self._seen, QUANTILE)
        doubled = FACTOR * self._quantile * 2.0 ** min(self._timeouts_in_a_row, 60)
        return min(self._cap, max(self._floor, doubled))

    def after_timeout(self, seconds: float) -> float:
        """Returns the limit of a second attempt at a question whose first ended at this limit: it is longer."""
        return min(self._cap, max(2.0 * seconds, self.seconds))

    def answered(self, seconds: float) -> None:
        """Takes note of an answer."""
        self._see(seconds, True)
        self._timeouts_in_a_row = 0

    def timed_out(self, seconds: float) -> None:
        """Takes note of an attempt that had no answer after so long."""
        self._see(seconds, False)
        self._timeouts_in_a_row += 1

    def _see(self, seconds: float, answered: bool) -> None:
        self._seen.append((seconds, answered))
        self._quantile = None


def survival_quantile(durations: Iterable[tuple[float, bool]], quantile: float) -> float:
    """Returns the time by which this share of the answers is there, by the Kaplan-Meier estimate.

    Args:
        durations: Seconds, and whether the answer came then (else it would have come later).
        quantile: 0 to 1.

    Returns:
        The quantile, or the longest answer if too many attempts were ended for the estimate to reach it.

    Raises:
        ValueError: There is no answer at all.
    """
    ordered = sorted(durations, key=lambda item: (item[0], not item[1]))
    survival, longest = 1.0, None
    for index, (seconds, answered) in enumerate(ordered):
        if answered:
            longest = seconds
            survival *= 1.0 - 1.0 / (len(ordered) - index)
            if survival <= 1.0 - quantile + 1e-12:
                return seconds
    if longest is None:
        raise ValueError("expected at least one answer")
    return longest


__all__ = ["ANSWERS_NEEDED", "FACTOR", "FLOOR_SECONDS", "QUANTILE", "LearnedLimit", "survival_quantile"]
