from __future__ import annotations

from pathlib import Path

from pilotwave.protocols import Tracker
from pilotwave.testing.tracker_contract import TrackerContract
from pilotwave.tracking.none_tracker import NoTrackingConfig


class TestNoTracker(TrackerContract):
    def make(self, run_dir: Path) -> Tracker:
        return NoTrackingConfig(kind="none").build(run_dir)


def test_it_writes_nothing(tmp_path: Path) -> None:
    tracker = NoTrackingConfig(kind="none").build(tmp_path)
    tracker.start("campaign", {"a": 1}, {})
    tracker.log({"best": 1.0}, step=1)
    tracker.finish("finished")
    assert list(tmp_path.iterdir()) == []
