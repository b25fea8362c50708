from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pilotwave.storage import load_checkpoint, save_checkpoint
from pilotwave.training.history import ComputeLog, TrainingHistory
from pilotwave.training.progress import TrainingProgress, TrainingWatcher, watcher_of


def report(seen: int, **quality: float) -> TrainingProgress:
    return TrainingProgress(seen, 1000, 2.0 / seen, 3.0 / seen, 10.0, 5.0, quality)


def test_a_resumed_run_has_the_whole_curve(tmp_path: Path) -> None:
    history = TrainingHistory()
    history.add(report(10))
    history.add(report(20, strict_validity=0.5))
    save_checkpoint(tmp_path / "checkpoint.pt", {"history": history.state()})
    resumed = TrainingHistory(load_checkpoint(tmp_path / "checkpoint.pt")["history"])
    resumed.add(report(30))
    assert [point.seen for point in resumed.points] == [10, 20, 30]
    assert resumed.table("molecules") == [
        "| molecules seen | loss | held-out loss | strict validity |",
        "|---|---|---|---|",
        "| 10 | 0.2000 | 0.3000 |  |",
        "| 20 | 0.1000 | 0.1500 | 0.500 |",
        "| 30 | 0.0667 | 0.1000 |  |",
    ]


def test_a_second_look_at_the_same_place_keeps_the_loss() -> None:
    history = TrainingHistory()
    history.add(report(10, validity=0.5))
    history.add(TrainingProgress(10, 1000, float("nan"), 0.25, 0.0, 0.0, {"validity": 0.75}))
    (point,) = history.points
    assert (point.loss, point.held_out_loss, point.quality) == (0.2, 0.25, {"validity": 0.75})


@given(points=st.integers(1, 200), every=st.integers(1, 40), rows=st.integers(2, 30))
def test_a_long_curve_is_thinned_and_keeps_its_end(points: int, every: int, rows: int) -> None:
    history = TrainingHistory()
    for number in range(1, points + 1):
        history.add(report(number, validity=0.5) if number % every == 0 else report(number))
    lines = history.table("pictures", rows)[2:]
    assert len(lines) <= rows
    assert lines[-1].startswith(f"| {points} |")
    measured = points // every
    if measured < rows:
        assert sum(line.endswith("| 0.500 |") for line in lines) == measured


def test_the_parts_of_a_run_add_up() -> None:
    log = ComputeLog([{"where": "one GPU", "seconds": 7200.0, "processor_seconds": 7000.0}])
    log.begin("one process of 1 thread")
    log.begin("one GPU")
    state = {part["where"]: part["seconds"] for part in log.state()}
    assert state.keys() == {"one GPU", "one process of 1 thread"}
    assert state["one GPU"] >= 7200.0
    lines = ComputeLog(log.state()).lines()
    assert lines[0].startswith("one GPU: 2.00 h on the clock, 1.94 h of processor time")
    assert lines[-1].startswith("together 2.00 h")


def test_a_plain_function_is_a_watcher_that_only_takes_reports() -> None:
    reports: list[TrainingProgress] = []
    watcher = watcher_of(reports.append)
    watcher.announce("preparing")
    watcher.tick(1, 2, 3.0)
    watcher(report(10))
    assert [item.seen for item in reports] == [10]
    assert not watcher.must_stop()
    screen = TrainingWatcher()
    assert watcher_of(screen) is screen
