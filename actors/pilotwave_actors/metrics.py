"""Metrics of a campaign through Ray: every node's agent offers them to Prometheus as ``ray_pilotwave_...``.

May import ray and the core.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilotwave.execution.metrics import COMMON, METRICS, PREFIX, SECONDS


class RayMeter:
    """See :class:`pilotwave.execution.metrics.Meter`.

    Args:
        common: The labels that all metrics bear.
    """

    def __init__(self, common: Mapping[str, str]) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._metrics: dict[str, Any] = {}
        for metric in METRICS:
            options: dict[str, Any] = {"description": metric.help, "tag_keys": (*COMMON, *metric.labels)}
            name = PREFIX + metric.name
            made: Any
            match metric.kind:
                case "counter":
                    made = Counter(name, **options)
                case "gauge":
                    made = Gauge(name, **options)
                case "histogram":
                    made = Histogram(name, boundaries=list(SECONDS), **options)
            self._metrics[metric.name] = made.set_default_tags(dict(common))

    def add(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        """Increases a counter."""
        self._metrics[name].inc(amount, tags=labels)

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Sets a gauge."""
        self._metrics[name].set(value, tags=labels)

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Puts one value into a histogram."""
        self._metrics[name].observe(value, tags=labels)

    def close(self) -> None:
        """Ray's agent takes up what was said the next time it asks."""


__all__ = ["RayMeter"]
