"""Two nodes under a campaign: killed, parted, and a hundred kills over 500 queries."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotwave.archive.ledger import Event, EventKind, Ledger
from pilotwave.testing.chaos import Chaos, Leg, Report
from pilotwave.testing.chaos_suite import Grounds, grounds

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def where() -> Iterator[Grounds]:
    pytest.importorskip("ray", reason="the Ray runtime needs the extra 'ray'")
    with grounds() as found:
        yield found


def test_a_node_that_dies_or_is_cut_off_costs_at_most_what_was_in_flight(where: Grounds, tmp_path: Path) -> None:
    kills = where.possible({"node": 1, "raylet": 1, "partition": 1, "optimizer": 1, "driver": 1})
    report = Chaos(tmp_path, [Leg(where.on_nodes("node"), 80, kills)], seed=3).run()
    assert not report.verdict.broken
    assert report.verdict.kills == kills
    assert report.resumes == report.needed == 1


@pytest.mark.parametrize("seconds", [30.0, 90.0])  # 90: its node ends itself before it is heard of again
def test_an_optimizer_that_is_cut_off_never_writes_beside_the_new_one(
    where: Grounds, tmp_path: Path, seconds: float
) -> None:
    if where.networks is None:
        pytest.skip(where.why_not)
    # Ray places it where it is asked to, if it can; the test is of those that were on the node that is cut off.
    for number in range(4):
        report, alive = cut_off(where, tmp_path / str(number), seconds)
        assert not report.verdict.broken
        if report.kills[0].ends_optimizer:
            break
    else:
        pytest.fail("the optimizer was never on the node that was cut off")
    first, *others = started(tmp_path / str(number) / "run")
    assert others
    # It lived on for as long as it was cut off, and the new one waited for its end before it wrote a word.
    assert alive[first.record["pid"]] > report.kills[0].began + 10.0
    assert others[0].record["pid"] != first.record["pid"]
    assert others[0].time > alive[first.record["pid"]] - 0.1


@pytest.mark.timeout(7200)
def test_a_hundred_kills_over_five_hundred_queries(where: Grounds, tmp_path: Path) -> None:
    report = Chaos(tmp_path, where.hundred_kills(), seed=0, patience=600.0).run()
    assert not report.verdict.broken
    assert report.verdict.kills.total() == 100
    assert report.resumes == report.needed
    assert report.verdict.repeated.total() <= report.verdict.in_flight.total()


def cut_off(where: Grounds, folder: Path, seconds: float) -> tuple[Report, dict[int, float]]:
    """Parts the nodes once; returns what came of it and when each optimizer was last seen alive."""
    alive: dict[int, float] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for event in started(folder / "run"):
                if is_alive(event.record["pid"]):
                    alive[event.record["pid"]] = time.time()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        place = where.on_nodes("client", seconds)
        return Chaos(folder, [Leg(place, 60, {"partition": 1})], seed=4).run(), alive
    finally:
        done.set()
        watcher.join()


def started(run_dir: Path) -> list[Event]:
    if not (run_dir / "ledger.sqlite").exists():
        return []
    with Ledger.open(run_dir / "ledger.sqlite", read_only=True) as ledger:
        return [event for event in ledger.events() if event.kind is EventKind.STARTED]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
