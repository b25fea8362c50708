"""Rate limits: how many attempts may begin in a minute, and what they may cost.

A token bucket that holds one attempt: attempts are spaced evenly, so that no minute ever sees more than the rate
and one more. Pure functions of the time that the caller passes; may import the standard library.
"""

from __future__ import annotations

import math

SECONDS_PER_MINUTE = 60.0


class Pace:
    """One rate. Each attempt takes its amount; the next may begin once that has flowed back.

    Args:
        per_minute: How much flows back in a minute.
    """

    def __init__(self, per_minute: float) -> None:
        self._seconds_each = SECONDS_PER_MINUTE / per_minute
        self._free_at = float("-inf")

    def seconds_until_free(self, now: float) -> float:
        """Returns how long the next attempt has to wait, 0 if it may begin."""
        return max(0.0, self._free_at - now)

    def allowed_within(self, now: float, seconds: float, amount: float) -> float:
        """Returns how many attempts of so large an amount may begin in the next seconds."""
        wait, apart = self.seconds_until_free(now), amount * self._seconds_each
        if wait > seconds:
            return 0.0
        return math.inf if apart <= 0 else 1.0 + (seconds - wait) // apart

    def take(self, now: float, amount: float = 1.0) -> None:
        """Takes note of an attempt that begins, also one of the past."""
        self._free_at = max(now, self._free_at) + amount * self._seconds_each

    def correct(self, amount: float) -> None:
        """Takes note that an attempt took so much more (or less, if negative) than was thought."""
        self._free_at += amount * self._seconds_each


class RateLimits:
    """The rates of one oracle, over all its evaluators.

    Args:
        calls_per_minute: Or None for no limit.
        cost_per_minute: Likewise.
    """

    def __init__(self, calls_per_minute: float | None, cost_per_minute: float | None) -> None:
        self._calls = None if calls_per_minute is None else Pace(calls_per_minute)
        self._cost = None if cost_per_minute is None else Pace(cost_per_minute)

    @property
    def are_limited(self) -> bool:
        """Whether there is any limit."""
        return self._calls is not None or self._cost is not None

    def seconds_until_free(self, now: float) -> float:
        """Returns how long the next attempt has to wait, 0 if it may begin."""
        paces = [pace for pace in (self._calls, self._cost) if pace is not None]
        return max((pace.seconds_until_free(now) for pace in paces), default=0.0)

    def allowed_within(self, now: float, seconds: float, cost: float) -> float:
        """Returns how many attempts may begin in the next seconds; infinite without a limit.

        Args:
            now: The time.
            seconds: From now.
            cost: What an attempt is expected to cost.
        """
        calls = math.inf if self._calls is None else self._calls.allowed_within(now, seconds, 1.0)
        return min(calls, math.inf if self._cost is None else self._cost.allowed_within(now, seconds, cost))

    def begin(self, now: float, cost: float) -> None:
        """Takes note of an attempt with its expected cost; call it for those of an earlier driver, too."""
        if self._calls is not None:
            self._calls.take(now)
        if self._cost is not None:
            self._cost.take(now, cost)

    def end(self, cost: float, expected: float) -> None:
        """Takes note of what an attempt did cost."""
        if self._cost is not None:
            self._cost.correct(cost - expected)


__all__ = ["Pace", "RateLimits"]
