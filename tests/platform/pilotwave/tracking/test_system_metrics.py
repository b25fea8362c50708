"""The machine's load: measured by MLflow, named for its pages, counted on after a resume."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from pilotwave.tracking.parameters import without_password
from pilotwave.tracking.system_metrics import SystemMetrics, measured


def test_what_is_measured() -> None:
    told: list[tuple[Mapping[str, float], int]] = []
    twice = threading.Event()

    def log(metrics: Mapping[str, float], step: int) -> None:
        told.append((metrics, step))
        if len(told) == 2:
            twice.set()

    load = SystemMetrics(log, seconds=0.1)
    load.start(since=time.time() - 50)
    load.start(since=0)  # it runs already
    assert twice.wait(60)
    load.stop()
    time.sleep(0.3)
    count = len(told)
    time.sleep(0.3)
    assert len(told) == count
    metrics, step = told[0]
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= metrics.keys()
    assert {"system/disk_usage_percentage", "system/network_receive_megabytes"} <= metrics.keys()
    assert all(name.startswith("system/") and isinstance(value, float) for name, value in metrics.items())
    assert 500 <= step < told[1][1] < 5000


def test_a_monitor_that_fails_is_left_out() -> None:
    class Fine:
        def collect_metrics(self) -> None: ...

        def aggregate_metrics(self) -> dict[str, float]:
            return {"x": 1}

        def clear_metrics(self) -> None: ...

    class Broken(Fine):
        def collect_metrics(self) -> None:
            raise RuntimeError("the driver is gone")

    assert measured([Broken(), Fine()]) == {"system/x": 1.0}


def test_passwords_are_not_written_down() -> None:
    address = "postgresql+psycopg2://user:sec:ret@host:5432/mlflow"
    assert without_password("postgresql://user:secret@host/db?x=1") == "postgresql://user:***@host/db?x=1"
    assert "sec" not in without_password(address)
    for text in ("http://host:5000", "sqlite:////tmp/mlflow.db", "a:b@c", "https://user@host/x", "", "é://"):
        assert without_password(text) == text
