"""Kills drivers at random moments and resumes them: what a campaign must survive, for any runtime.

The driver is a process of its own that runs (or resumes) the campaign of
:func:`pilotwave.testing.runtime_contract.campaign` with a recording oracle. May import the core.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_DRIVER = """
import json, sys
from pathlib import Path
from pilotwave.testing.faulty_oracles import RecordingOracleConfig
from pilotwave.testing.runtime_contract import campaign

job = json.loads(sys.argv[1])
oracle = RecordingOracleConfig(**job["oracle"])
fields = {"queries": job["queries"], "batch_size": job["batch_size"], **job["fields"]}
driven = campaign(oracle, job["runtime"], **fields)
run_dir = Path(job["run_dir"])
if (run_dir / "ledger.sqlite").exists():
    driven.resume(run_dir)
else:
    driven.run(run_dir)
"""


@dataclass(frozen=True)
class KilledCampaign:
    """A campaign whose driver is killed.

    Attributes:
        folder: For the run and the oracle's records.
        runtime: The section of a campaign file.
        queries: The budget.
        batch_size: Of a proposal.
        delay: Mean seconds that the oracle takes.
        fields: Further sections of the campaign.
    """

    folder: Path
    runtime: dict[str, Any]
    queries: int = 160
    batch_size: int = 16
    delay: float = 0.02
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path:
        """Of the campaign."""
        return self.folder / "run"

    def finished(self) -> list[str]:
        """Returns the query ids that the oracle answered, in order."""
        path = self.folder / "finished"
        return path.read_text().split() if path.exists() else []

    def start(self) -> subprocess.Popen[bytes]:
        """Starts a driver that runs the campaign, or resumes it if it was begun."""
        self.folder.mkdir(parents=True, exist_ok=True)
        job = {
            "oracle": {
                "started_file": str(self.folder / "started"),
                "finished_file": str(self.folder / "finished"),
                "delay": self.delay,
            },
            "runtime": self.runtime,
            "queries": self.queries,
            "batch_size": self.batch_size,
            "run_dir": str(self.run_dir),
            "fields": self.fields,
        }
        with (self.folder / "driver.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", _DRIVER, json.dumps(job)], stdout=log, stderr=log, start_new_session=True
            )

    def run_to_the_end(self, seconds: float) -> None:
        """Runs or resumes without a kill.

        Raises:
            AssertionError: The driver failed; its log is in the message.
        """
        code = self.start().wait(seconds)
        assert code == 0, (self.folder / "driver.log").read_text()[-3000:]

    def kill_at(self, moments: list[int], seed: int, seconds: float) -> int:
        """Kills a driver each time the oracle has given so many answers in all, and a random moment later.

        Args:
            moments: Numbers of answers, ascending.
            seed: Of the random moments.
            seconds: How long each driver may take to get there.

        Returns:
            How many drivers were really killed at work.
        """
        pauses = random.Random(seed)
        killed = 0
        for moment in moments:
            driver = self.start()
            deadline = time.monotonic() + seconds
            while len(self.finished()) < moment and driver.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(pauses.uniform(0.0, 2 * self.delay))
            if driver.poll() is None:
                os.kill(driver.pid, signal.SIGKILL)
                killed += 1
            driver.wait()
        return killed


__all__ = ["KilledCampaign"]
