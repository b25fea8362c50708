"""Processes that a test started, and all that came of them, known by a mark in their environment.

Whoever kills must kill its own: other clusters and campaigns may be at work on the machine. A mark is inherited by
every process that a marked one starts, Ray's workers and the oracles of evaluators included, and survives the death
of parents. May import the standard library.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "PILOTWAVE_TEST_NODE"
"""The environment variable that carries the mark."""
_GUARD = "oracle_guard.py"


class MarkedProcesses:
    """The living processes with one mark.

    Args:
        mark: The value of :data:`MARK`.
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def environment(self) -> dict[str, str]:
        """Returns what a process has in its environment to be one of these."""
        return {MARK: self.mark}

    def all(self) -> list[int]:
        """Returns the ids of all of them."""
        return [pid for pid in _pids() if self._is_marked(pid)]

    def actors(self, name: str) -> list[int]:
        """Returns the processes of a Ray actor class, e.g. ``"Optimizer"``."""
        return [pid for pid in self.all() if command_of(pid)[0].startswith(f"ray::{name}")]

    def programs(self, ending: str) -> list[int]:
        """Returns those whose program's path ends so, e.g. ``"raylet/raylet"``."""
        return [pid for pid in self.all() if command_of(pid)[0].endswith(ending)]

    def oracles(self) -> list[int]:
        """Returns the processes in which oracles run, without their guards, which have the same command."""
        return [pid for pid in self.all() if _is_guard(pid) and _is_guard(parent_of(pid))]

    def end(self, seconds: float = 60.0) -> None:
        """Kills them, and what they start meanwhile, until none is left."""
        deadline = time.monotonic() + seconds
        while (left := self.all()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def _is_marked(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            return f"{MARK}={self.mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return False


def command_of(pid: int) -> list[str]:
    """Returns the command line of a process as it shows it, or one empty word if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return [""]


def parent_of(pid: int) -> int:
    """Returns the parent's id, or 0 if the process is gone."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return 0


def _is_guard(pid: int) -> bool:
    return any(word.endswith(_GUARD) for word in command_of(pid))


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


__all__ = ["MARK", "MarkedProcesses", "command_of", "parent_of"]
