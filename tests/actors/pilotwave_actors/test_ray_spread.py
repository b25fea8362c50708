"""The runs of a comparison on real Ray actors: equal results, errors in one line, and an actor that dies."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pilotwave.bench.comparison import Comparison, compare
from pilotwave.bench.methods import Method
from pilotwave.bench.spread import InlineSpread, open_spread
from pilotwave.bench.suites import load_suite

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
pytest.importorskip("sklearn", reason="the digits need scikit-learn")


def comparison(output: Path, queries: int = 64) -> Comparison:
    suite = load_suite("analytic")
    tasks = tuple(suite.find(name) for name in ("digits-hidden", "digits-class+noise"))
    methods = (Method("random"), Method("fast-direct", {"scores": "standardised", "step_size": 1.0}))
    return Comparison(suite, tasks, methods, (0, 1), queries, output)


def untimed(records: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    timed = ("seconds", "cpu_seconds")
    return [
        {
            **record,
            "batches": [{key: batch[key] for key in batch if key not in timed} for batch in record["batches"]],
        }
        for record in records
    ]


def test_one_worker_and_several_give_equal_results(tmp_path: Path) -> None:
    alone = compare(comparison(tmp_path / "alone"), InlineSpread(), lambda progress: None)
    together = compare(comparison(tmp_path / "together"), open_spread(4, "local"), lambda progress: None)
    assert len(alone.records) == 8
    assert untimed(together.records) == untimed(alone.records)


def test_what_raises_on_a_worker_comes_back_as_one_line(tmp_path: Path) -> None:
    wrong = dataclasses.replace(comparison(tmp_path), methods=(Method("ddpo"), Method("random")), seeds=(0,))
    pytest.importorskip("peft")
    outcome = compare(wrong, open_spread(2, "local"), lambda progress: None)
    assert len(outcome.records) == 2
    assert [request.method.kind for request, _ in outcome.failures] == ["ddpo", "ddpo"]
    assert all(message and "\n" not in message for _, message in outcome.failures)


def test_the_run_of_a_killed_worker_is_done_again(tmp_path: Path) -> None:
    undisturbed = compare(comparison(tmp_path / "alone", 320), InlineSpread(), lambda progress: None)
    killed: list[int] = []

    def kill_once() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            found = pids_of_runners()
            if len(found) >= 2:
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.01)

    thread = threading.Thread(target=kill_once)
    thread.start()
    outcome = compare(comparison(tmp_path / "killed", 320), open_spread(2, "local"), lambda progress: None)
    thread.join()
    assert killed
    assert not outcome.failures
    assert untimed(outcome.records) == untimed(undisturbed.records)


def pids_of_runners() -> list[int]:
    """Finds the runners that are at work by what Ray calls them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if title.startswith("ray::Runner.run"):
                found.append(int(entry.name))
    return found
