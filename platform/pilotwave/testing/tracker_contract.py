"""What every tracker must do, as tests: subclass :class:`TrackerContract` and give its two factories.

A tracker fails open: whatever is wrong with what it writes to, nothing is raised and the campaign goes on.
May import pytest, pilotwave's protocols and the standard library.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import pytest

from pilotwave.protocols import Tracker

PARAMETERS: dict[str, Any] = {
    "name": "a campaign",
    "budget": {"queries": 32, "batch_size": 8},
    "constraints": [{"kind": "structure"}, {"kind": "synthesizability", "limit": 4.5}],
    "empty": {},
    "nothing": None,
    "atoms (Å)": [1, 2, 3],
    "long": "x" * 20_000,
}
"""Of all kinds that a resolved campaign can hold."""


class TrackerContract:
    """Subclass it, name the class ``Test…``, and override the factories."""

    def make(self, run_dir: Path) -> Tracker:
        """Returns a new tracker of the run in this directory, one that can write."""
        raise NotImplementedError

    def make_broken(self, run_dir: Path) -> Tracker:
        """Returns one whose server, database or disk is not there; a new one if there is no such thing."""
        return self.make(run_dir)

    @pytest.fixture
    def run_dir(self, tmp_path: Path) -> Path:
        path = tmp_path / "runs" / "one"
        path.mkdir(parents=True)
        return path

    def test_it_is_a_tracker(self, run_dir: Path) -> None:
        assert isinstance(self.make(run_dir), Tracker)

    def test_a_whole_campaign(self, run_dir: Path) -> None:
        tracker = self.make(run_dir)
        tracker.start("campaign", PARAMETERS, {"run_dir": str(run_dir)})
        for step in (8, 16, 24, 32):
            tracker.log({"batch_mean": 1.5 * step, "best": float(step)}, step=step)
        (run_dir / "best.sdf").write_text("$$$$\n")
        tracker.artifact(str(run_dir / "best.sdf"))
        self._check_line(tracker)
        tracker.finish("finished")
        self._check_line(tracker)

    def test_a_resumed_campaign(self, run_dir: Path) -> None:
        for status in ("killed", "failed", "finished"):
            tracker = self.make(run_dir)
            tracker.start("campaign", {"budget": {"queries": 32}}, {})
            tracker.log({"best": 1.0}, step=8)
            tracker.finish(status)

    def test_changed_parameters_on_resume(self, run_dir: Path) -> None:
        for queries in (32, 64):
            tracker = self.make(run_dir)
            tracker.start("campaign", {"budget": {"queries": queries}}, {"tag": str(queries)})
            tracker.finish("finished")
            self._check_line(tracker)

    def test_odd_numbers_names_and_files(self, run_dir: Path) -> None:
        tracker = self.make(run_dir)
        tracker.start("campaign", {}, {"long": "y" * 20_000})
        tracker.log({"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "huge": 1e308}, step=0)
        tracker.log({"gap (eV) é/../x": 1.0, "n" * 400: 2.0}, step=10**12)
        tracker.log({}, step=1)
        tracker.artifact(str(run_dir / "not there"))
        tracker.artifact(str(run_dir))
        tracker.finish("an unknown word")
        self._check_line(tracker)

    def test_any_order_of_calls(self, run_dir: Path) -> None:
        tracker = self.make(run_dir)
        self._check_line(tracker)
        tracker.finish("finished")
        tracker.log({"best": 1.0}, step=0)
        tracker.start("campaign", {}, {})
        tracker.start("campaign", {}, {})
        tracker.finish("finished")
        tracker.finish("failed")
        tracker.log({"best": 2.0}, step=1)
        self._check_line(tracker)

    def test_logging_from_several_threads(self, run_dir: Path) -> None:
        tracker = self.make(run_dir)
        tracker.start("campaign", {}, {})

        def log(number: int) -> None:
            for step in range(50):
                tracker.log({f"metric {number}": float(step)}, step=step)

        threads = [threading.Thread(target=log, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tracker.finish("finished")
        self._check_line(tracker)

    def test_what_is_broken_costs_nothing(self, run_dir: Path) -> None:
        tracker = self.make_broken(run_dir)
        tracker.start("campaign", PARAMETERS, {})
        tracker.log({"best": 1.0}, step=0)
        tracker.artifact(__file__)
        self._check_line(tracker)
        tracker.finish("finished")
        self._check_line(tracker)

    def _check_line(self, tracker: Tracker) -> None:
        line = tracker.describe()
        assert line.strip()
        assert "\n" not in line


__all__ = ["PARAMETERS", "TrackerContract"]
