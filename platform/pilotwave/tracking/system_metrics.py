"""The load of the machine as metrics: CPU, memory, disk, network, GPU; under the names that MLflow's pages know.

MLflow measures (with psutil); its own logger stops for good when a server is away for a moment, so what it measures
goes through our outbox. May import mlflow (extra ``tracking``), inside functions.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

PREFIX = "system/"
Log = Callable[[Mapping[str, float], int], None]
"""``log(metrics, step)``."""


class SystemMetrics:
    """Measures now and then, on a thread of its own.

    Args:
        log: Takes what was measured; the step counts the intervals since the run was made.
        seconds: Between two measurements.
    """

    def __init__(self, log: Log, seconds: float) -> None:
        self._log = log
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, since: float) -> None:
        """Begins to measure.

        Args:
            since: When the run was made, seconds since the epoch: a resumed campaign goes on counting.

        Raises:
            ImportError: mlflow or psutil is not installed.
        """
        if self._thread is not None:
            return
        monitors = _monitors()
        self._thread = threading.Thread(
            target=self._measure, args=(monitors, since), name="pilotwave-system-metrics", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends; returns when nothing more is logged, or after two seconds."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(2.0)

    def _measure(self, monitors: list[Any], since: float) -> None:
        measured(monitors)  # the first one of a process's load is since its start, or zero
        while not self._ended.wait(self._seconds):
            found = measured(monitors)
            if not self._ended.is_set():
                self._log(found, max(0, round((time.time() - since) / self._seconds)))


def measured(monitors: list[Any]) -> dict[str, float]:
    """Returns what monitors measure now; one that fails is left out."""
    found: dict[str, float] = {}
    for monitor in monitors:
        try:
            monitor.collect_metrics()
            found.update(monitor.aggregate_metrics())
        except Exception:  # a GPU's driver may go away, and that is no affair of the campaign
            continue
        finally:
            monitor.clear_metrics()
    return {f"{PREFIX}{name}": float(value) for name, value in found.items()}


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    always: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]
    monitors = [kind() for kind in always]
    sometimes: Any = GPUMonitor
    with contextlib.suppress(Exception):  # no GPU, no driver, or no package that asks it
        monitors.append(sometimes())
    return monitors


__all__ = ["PREFIX", "SystemMetrics", "measured"]
