"""Running a program that may hang, flood the disk or leave children behind.

Each runs in a session of its own, which is killed as a whole when the program is done with or overdue. May import
the standard library.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

OUTPUT_LIMIT = 64 * 2**20
"""Bytes that a program may write to each of its standard streams."""

STDOUT, STDERR = "stdout.txt", "stderr.txt"
"""Where its standard streams go, in its folder."""

_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Finished:
    """How a program ended.

    Attributes:
        code: Its exit code; the negative number of the signal that killed it.
        overdue: It was killed at the time limit.
        flooded: It was killed because it wrote more than :data:`OUTPUT_LIMIT`.
    """

    code: int
    overdue: bool = False
    flooded: bool = False


def run_program(
    arguments: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    stdin: Path | None,
    seconds: float | None,
) -> Finished:
    """Runs a program to its end, its output in :data:`STDOUT` and :data:`STDERR` of its folder.

    Args:
        arguments: The program's path, and what it is given.
        folder: Where it runs.
        environment: All of its environment.
        stdin: The file that it reads from, or None for an empty one.
        seconds: Wall-clock limit, or None.

    Raises:
        OSError: It could not be started.
    """
    outputs = [folder / STDOUT, folder / STDERR]
    with contextlib.ExitStack() as files:
        source = files.enter_context(stdin.open("rb")) if stdin is not None else subprocess.DEVNULL
        process = subprocess.Popen(
            list(arguments),
            cwd=folder,
            env=dict(environment),
            stdin=source,
            stdout=files.enter_context(outputs[0].open("wb")),
            stderr=files.enter_context(outputs[1].open("wb")),
            start_new_session=True,
        )
    try:
        return _watched(process, outputs, seconds)
    finally:
        end_session(process)


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Kills a program that was started in a session of its own, with everything that is left of it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _watched(process: subprocess.Popen[bytes], outputs: Sequence[Path], seconds: float | None) -> Finished:
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        left = _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, deadline - time.monotonic())
        if _ended(process, max(0.0, left)):
            return Finished(process.wait())
        if deadline is not None and time.monotonic() >= deadline:
            end_session(process)
            return Finished(process.returncode, overdue=True)
        if any(path.stat().st_size > OUTPUT_LIMIT for path in outputs if path.exists()):
            end_session(process)
            return Finished(process.returncode, flooded=True)


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Waits until a process has ended, without polling where the kernel can say so."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, or an old kernel
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process.returncode is not None
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


class EndedError(Exception):
    """A conversation is over: the program closed its output or cannot be written to."""


class Conversation:
    """A program that stays and answers line by line. One thread speaks to it."""

    def __init__(self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> None:
        """Starts it in a folder, where :data:`STDERR` takes what it says besides; see :func:`run_program`.

        Raises:
            OSError: It could not be started.
        """
        self.stderr = folder / STDERR
        with self.stderr.open("wb") as errors:
            self.process = subprocess.Popen(
                list(arguments),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                start_new_session=True,
            )
        self._rest = b""

    def exchange(self, line: str, seconds: float | None) -> str:
        """Writes a line and returns the next line that begins like a JSON object; others are passed over.

        Raises:
            TimeoutError: There is none in time.
            EndedError: The program has ended, closed its output, or wrote too much.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        self._drain()
        self._write(f"{line}\n".encode(), deadline)
        while True:
            reply = self._line(deadline)
            if reply.lstrip().startswith(b"{"):
                return reply.decode(errors="replace")

    def end(self) -> int:
        """Kills it; returns its exit code, or the negative number of the signal that had ended it already."""
        with contextlib.suppress(OSError):
            _stream(self.process.stdin).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.1)
        end_session(self.process)
        _stream(self.process.stdout).close()
        return self.process.returncode

    def _drain(self) -> None:
        """Forgets what it wrote unasked since its last reply."""
        descriptor = _stream(self.process.stdout).fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        self._rest = b""
        while poll.poll(0):
            if not os.read(descriptor, 65536):
                raise EndedError

    def _write(self, data: bytes, deadline: float | None) -> None:
        descriptor = _stream(self.process.stdin).fileno()
        os.set_blocking(descriptor, False)
        while data:
            self._wait(descriptor, select.POLLOUT, deadline)
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise EndedError from error

    def _line(self, deadline: float | None) -> bytes:
        descriptor = _stream(self.process.stdout).fileno()
        while b"\n" not in self._rest:
            self._wait(descriptor, select.POLLIN, deadline)
            data = os.read(descriptor, 65536)
            self._rest += data
            if not data or len(self._rest) > OUTPUT_LIMIT:
                raise EndedError
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _wait(self, descriptor: int, event: int, deadline: float | None) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        milliseconds = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poll.poll(milliseconds):
            raise TimeoutError


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


__all__ = [
    "OUTPUT_LIMIT",
    "STDERR",
    "STDOUT",
    "Conversation",
    "EndedError",
    "Finished",
    "end_session",
    "run_program",
]
