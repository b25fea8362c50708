"""A process of its own for code that may hang, crash or print: started, spoken to, killed whole.

The mechanism only; which questions are asked and what a death means for an evaluation is decided in
:mod:`pilotwave.execution.oracle_process`. May import the standard library and the modules beside it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilotwave.execution.frames import FrameError, receive_frame, send_frame
from pilotwave.execution.oracle_guard import ENDED, memory_below

_LOG = logging.getLogger(__name__)
_GUARD = Path(__file__).with_name("oracle_guard.py")
_KEPT_LINES = 200
_GRACE_SECONDS = 2.0
_KILL_SECONDS = 5.0

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
SINGLE_THREADED: Mapping[str, str] = dict.fromkeys(_THREAD_VARIABLES, "1")
"""Numerical libraries read these at import; without them every evaluator takes all cores (xTB: 10x slower)."""


class WorkerDiedError(Exception):
    """The process ended before it replied; the message says how, with the last line that it wrote.

    Attributes:
        over_memory: Whether it was ended for holding more memory than it may.
    """

    def __init__(self, message: str, *, over_memory: bool = False) -> None:
        super().__init__(message)
        self.over_memory = over_memory


class WorkerProcess:
    """A running worker. One thread speaks to it; :meth:`kill` may be called from any.

    Attributes:
        lines_written: How many lines it has written so far.
    """

    def __init__(self, name: str, environment: Mapping[str, str], memory_limit: int | None = None) -> None:
        """Starts guard and worker.

        Args:
            name: For the log.
            environment: Added to this process's own environment, before anything is imported there.
            memory_limit: Bytes that the worker and whatever it starts may hold together.
        """
        self._name = name
        self._memory_limit = memory_limit
        self._channel, worker_end = socket.socketpair()
        self._lifeline, guard_end = socket.socketpair()
        with worker_end, guard_end:
            fds = guard_end.fileno(), worker_end.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_GUARD), *map(str, fds), json.dumps(sys.path), str(memory_limit or 0)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                pass_fds=fds,
                start_new_session=True,
            )
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.lines_written = 0
        self._reader = threading.Thread(target=self._read_output, name=f"{name} output", daemon=True)
        self._reader.start()

    def send(self, message: object, deadline: float) -> None:
        """Sends a message.

        Raises:
            TimeoutError: The deadline (``time.monotonic``) passed before all of it was taken.
            WorkerDiedError: The worker is gone.
        """
        try:
            send_frame(self._channel, message, deadline)
        except TimeoutError:
            raise
        except OSError as error:
            raise self._obituary() from error

    def receive(self, deadline: float) -> Any:
        """Waits for a message; raises as :meth:`send` does."""
        try:
            return receive_frame(self._channel, deadline)
        except TimeoutError:
            raise
        except FrameError as error:
            self.kill()
            raise WorkerDiedError(
                f"the oracle's process wrote garbage into its channel and was killed ({error})"
            ) from error
        except (EOFError, OSError) as error:
            raise self._obituary() from error

    def is_alive(self) -> bool:
        """Says whether it can be asked; one that has just died may still look so."""
        return self._process.poll() is None

    def memory(self) -> int:
        """Returns how many bytes the worker, and whatever it started, hold now."""
        return memory_below(self._process.pid)

    def recent_output(self, since: int = 0) -> list[str]:
        """Returns the last lines that the worker wrote to its standard streams, at most 200.

        Args:
            since: Those before are left out, as :attr:`lines_written` counted them.
        """
        lines, written = list(self._lines), self.lines_written
        return lines[max(0, len(lines) - max(0, written - since)) :]

    def kill(self) -> None:
        """Kills the worker and everything that it started, and waits until they are gone."""
        with contextlib.suppress(OSError):
            self._lifeline.sendall(b"K")  # on purpose; a lifeline that only closes means that the driver was killed
            self._lifeline.shutdown(socket.SHUT_WR)  # the guard can still report the wait status
        try:
            self._process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            _LOG.warning("%s: its guard did not end within %.0f s and was killed", self._name, _KILL_SECONDS)
            self._process.kill()
            self._process.wait()
        self._reader.join(1.0)

    def close(self) -> None:
        """Lets an idle worker end by itself, then makes sure."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_SECONDS)
        self.kill()
        self._channel.close()
        self._lifeline.close()

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                text = line.decode(errors="replace").rstrip()[:2000]
                if text:
                    self._lines.append(text)
                    self.lines_written += 1
                    _LOG.debug("%s: %s", self._name, text)

    def _obituary(self) -> WorkerDiedError:
        """Says how the worker ended, after making sure that it did."""
        status, held = self._last_words()
        self.kill()
        last = f"; its last line: {self._lines[-1]}" if self._lines else ""
        if held and self._memory_limit:
            held_mib, limit_mib = held / 2**20, self._memory_limit / 2**20
            how = f"held {held_mib:.0f} MiB, more than the {limit_mib:.0f} MiB of its memory_limit, and was killed"
        else:
            how = describe_wait_status(status)
        return WorkerDiedError(f"the oracle's process {how}{last}", over_memory=held > 0)

    def _last_words(self) -> tuple[int | None, int]:
        """Returns the wait status that the guard reports, and what was held if that was too much."""
        self._lifeline.settimeout(_KILL_SECONDS)
        with contextlib.suppress(OSError, struct.error):
            status, held = ENDED.unpack(self._lifeline.recv(ENDED.size))
            return int(status), int(held)
        return None, 0


def describe_wait_status(status: int | None) -> str:
    """Puts the wait status of a process into words."""
    if status is None:
        return "is gone"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name
        hint = "out of memory?" if name == "SIGKILL" else (signal.strsignal(number) or "").lower()
        return f"was killed by {name} ({hint})"
    code = os.WEXITSTATUS(status)
    hint = " (128 + SIGKILL: out of memory?)" if code == 128 + signal.SIGKILL else ""
    return f"exited with code {code}{hint}"


def deadline_after(seconds: float) -> float:
    """Returns the moment so many seconds from now on the clock of ``time.monotonic``."""
    return time.monotonic() + seconds


__all__ = ["SINGLE_THREADED", "WorkerDiedError", "WorkerProcess", "deadline_after", "describe_wait_status"]
