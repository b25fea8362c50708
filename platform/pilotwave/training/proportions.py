"""Shares of samples with their intervals, as measurements of models state them. Standard library only."""

from __future__ import annotations

import math


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Returns the score interval of a proportion (Wilson, 1927); z = 1.96 is 95% confidence."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low, high = (centre - half) / scale, (centre + half) / scale
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # at 0 and 1 rounding would leave the share out


def in_percent(successes: int, trials: int) -> str:
    """Returns a proportion with its 95% interval, e.g. ``"92.0% (89.3-94.1)"``."""
    low, high = wilson_interval(successes, trials)
    return f"{100 * successes / max(trials, 1):.1f}% ({100 * low:.1f}-{100 * high:.1f})"


__all__ = ["in_percent", "wilson_interval"]
