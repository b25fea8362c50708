"""An oracle that takes its time and does nothing else: for measuring whatever asks oracles.

May import pilotwave and the standard library.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from typing import ClassVar, Literal

from pydantic import Field

from pilotwave.config.components import OracleConfig
from pilotwave.protocols import KnownAnswer, Oracle, QueryContext
from pilotwave.samples import SAMPLE_TYPES, Sample
from pilotwave.testing.faulty_oracles import score
from pilotwave.types import Answer


class SleepingOracleConfig(OracleConfig):
    """Sleeps for a lognormal time that the sample alone decides, then scores it.

    Attributes:
        median: Of the seconds; 0 answers at once.
        sigma: Standard deviation of their logarithm; the mean is ``median * exp(sigma**2 / 2)``.
    """

    media: ClassVar[frozenset[str]] = frozenset(SAMPLE_TYPES)
    summary: ClassVar[str] = "Sleeps, then scores."

    kind: Literal["sleeping"] = "sleeping"
    isolation: Literal["process", "thread"] = "thread"
    median: float = Field(0.0, ge=0)
    sigma: float = Field(1.0, ge=0, le=3)

    def build(self) -> Oracle:
        """Builds it."""
        return SleepingOracle(self)


class SleepingOracle:
    """See :class:`SleepingOracleConfig`."""

    name = "sleeping"
    version = "1"
    unit = ""
    media = frozenset(SAMPLE_TYPES)
    deterministic = True

    def __init__(self, config: SleepingOracleConfig) -> None:
        self._config = config

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Sleeps and scores."""
        if self._config.median:
            time.sleep(self.seconds(sample))
        return Answer(score(sample))

    def seconds(self, sample: Sample) -> float:
        """Returns how long it sleeps over a sample."""
        digest = hashlib.sha256(f"sleep {sample.identity()}".encode()).digest()
        quantile = (int.from_bytes(digest[:6], "big") + 0.5) / 2.0**48
        return self._config.median * math.exp(self._config.sigma * statistics.NormalDist().inv_cdf(quantile))

    def known_answer(self) -> KnownAnswer | None:
        """Has none."""
        return None


__all__ = ["SleepingOracle", "SleepingOracleConfig"]
