"""How long a failed question rests before it is asked again.

Pure; may import the standard library.
"""

from __future__ import annotations

import random

CEILING_SECONDS = 300.0
"""No rest is longer than this, give or take half, unless the first one is meant to be."""


def rest_seconds(base: float, seed: int, query_id: str, attempt: int) -> float:
    """Returns the pause after a failed attempt: it doubles each time, and is drawn from half to one and a half.

    Drawn, so that questions that failed together (a licence server was down) do not come back together; from the
    seed, so that a campaign can be repeated.

    Args:
        base: Mean seconds after the first attempt.
        seed: Of the campaign.
        query_id: Of the question.
        attempt: The one that failed, from 1.
    """
    mean = min(base * 2.0 ** min(attempt - 1, 60), max(CEILING_SECONDS, base))
    return mean * random.Random(f"back-off/{seed}/{query_id}/{attempt}").uniform(0.5, 1.5)


__all__ = ["CEILING_SECONDS", "rest_seconds"]
