"""A small study on the analytic backbone whose oracle writes down what it was asked, for tests of tuning.

May import the core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_ORACLE = """
import os
import time


def score(sample, context):
    line = f"{{sample.array.tobytes().hex()[:24]}}\\n".encode()
    descriptor = os.open({records!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line)
    os.close(descriptor)
    time.sleep({delay})
    return float(((sample.array - 0.5) ** 2).sum())
"""


class SmallStudy:
    """The fields of a study in a folder, and what its oracle was asked.

    Args:
        folder: Holds the oracle's file and its record.
        queries: To each campaign.
        delay: Seconds for a question.
    """

    def __init__(self, folder: Path, queries: int = 32, delay: float = 0.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.records = folder / "asked"
        self._queries = queries
        (folder / "scored.py").write_text(_ORACLE.format(records=str(self.records), delay=delay))

    def fields(self, **changes: Any) -> dict[str, Any]:
        """Returns the fields of the study."""
        campaign = {
            "name": "small",
            "backbone": {"kind": "analytic", "dim": 4, "steps": 3},
            "oracle": {"kind": "python", "function": f"{self.folder}/scored.py:score", "version": "1"},
            "objective": {"direction": "minimize"},
            "algorithm": {"kind": "noise-search"},
            "budget": {"queries": self._queries, "batch_size": 8},
            "runtime": {"kind": "inline", "evaluators": 1, "mode": "synchronous"},
        }
        campaign["oracle"]["isolation"] = "thread"  # type: ignore[index]
        study = {
            "name": "tried",
            "campaign": campaign,
            "search": {"algorithm.radius": {"choice": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}},
            "objective": "level",
            "samples": 3,
            "scheduler": "none",
        }
        return {**study, **changes}

    def asked(self) -> list[str]:
        """Returns what the oracle was asked, in order."""
        return self.records.read_text().split() if self.records.exists() else []


__all__ = ["SmallStudy"]
