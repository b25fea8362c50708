"""A campaign file and an oracle of the user's own that writes down what it was asked, for tests of ways in.

The drivers are processes of their own, so that they can be killed and have an environment of their own. May import
the core.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pilotwave.testing.two_nodes import TwoNodeCluster

_CAMPAIGN = """
name: small
backbone: {{kind: analytic, dim: 6, steps: 3}}
oracle: {{kind: python, function: "recording_oracle.py:score", version: "1"}}
objective: {{direction: minimize}}
algorithm: {{kind: random}}
budget: {{queries: {queries}, batch_size: 8}}
runtime: {{kind: ray, evaluators: 2, mode: synchronous}}
seed: 3
"""
_ORACLE = """
import os
import time


def score(sample, context):
    note("started", context)
    time.sleep({delay})
    note("finished", context)
    return float(sample.array.sum())


def note(what, context):
    line = f"{{context.query_id}}\\n".encode()
    descriptor = os.open(os.path.join({records!r}, what), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line)
    os.close(descriptor)
"""


class RecordedCampaign:
    """A campaign file in a folder, driven by ``pilotwave`` in processes of their own.

    Args:
        folder: Holds the campaign, the oracle's file, and its records.
        queries: The budget.
        delay: Seconds for a question.
    """

    def __init__(self, folder: Path, queries: int = 16, delay: float = 0.05) -> None:
        self.folder = folder
        self.records = folder / "records"
        self.records.mkdir(parents=True)
        self.file = folder / "campaign.yaml"
        self.file.write_text(_CAMPAIGN.format(queries=queries))
        self.oracle = folder / "recording_oracle.py"
        self.oracle.write_text(_ORACLE.format(delay=delay, records=str(self.records)))

    def started(self) -> list[str]:
        """Returns the query ids that were asked, in order."""
        return self._lines("started")

    def finished(self) -> list[str]:
        """Returns the query ids that were answered, in order."""
        return self._lines("finished")

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], before: str = ""
    ) -> subprocess.Popen[str]:
        """Starts ``pilotwave`` with these arguments; its output goes to ``driver.log``.

        Args:
            arguments: Of the command.
            environment: All of it.
            before: Python that runs first, in the same process.
        """
        code = f"{before}\nimport sys\nfrom pilotwave.cli import main\nsys.argv[0] = 'pilotwave'\nmain()"
        with self.log_file.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                cwd=self.folder,
                env=dict(environment),
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    @property
    def log_file(self) -> Path:
        """What the drivers printed."""
        return self.folder / "driver.log"

    def log(self) -> str:
        """Returns what the drivers printed."""
        return self.log_file.read_text()

    def run_to_the_end(self, arguments: Sequence[str], environment: Mapping[str, str], before: str = "") -> int:
        """Runs a driver and returns its exit code."""
        return self.start(arguments, environment, before).wait(280)

    def wait_until_answered(
        self, count: int, cluster: TwoNodeCluster, driver: subprocess.Popen[str] | None
    ) -> None:
        """Waits until the oracle has given so many answers.

        Args:
            count: In all.
            cluster: Where it is asked.
            driver: Must stay alive meanwhile; None if it was killed.

        Raises:
            AssertionError: The driver ended, or it took too long.
        """

        def happened() -> bool:
            assert driver is None or driver.poll() is None, f"the driver ended:\n{self.log()[-3000:]}"
            return len(self.finished()) >= count

        cluster.wait_until(happened, f"{count} answers")

    def _lines(self, what: str) -> list[str]:
        path = self.records / what
        return path.read_text().split() if path.exists() else []


def kill(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """Sends a signal to a driver that is still at work."""
    assert process.poll() is None
    os.kill(process.pid, number)


__all__ = ["RecordedCampaign", "kill"]
