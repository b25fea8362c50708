"""What one check says, and how to run something in a child process that cannot hang or crash us.

May import the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import IO, Literal

_MODULE = re.compile(r"^([a-z_0-9]+\.)+(?=[A-Z])")
"""The module before the name of an exception."""

CheckStatus = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: What was looked at.
        status: ``"ok"``; ``"warning"``: a campaign such as the demo's runs all the same; ``"missing"``: it does
            not.
        found: What is there, one line.
        remedy: How to mend it, one line; empty if nothing is to be done.
    """

    name: str
    status: CheckStatus
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """Returns it for programs."""
        return asdict(self)


@dataclass(frozen=True)
class ChildResult:
    """How a child process ended.

    Attributes:
        ok: Whether it ended by itself with exit code 0.
        line: The last line it printed; why it failed if it did.
    """

    ok: bool
    line: str


def run_child(code: str, *, seconds: float, environment: Mapping[str, str] | None = None) -> ChildResult:
    """Runs Python code in a process group of its own and kills the whole group afterwards.

    Args:
        code: Prints what it found as its last line; an exception says what went wrong.
        seconds: Its wall-clock limit.
        environment: Variables on top of ours.
    """
    # Files, not pipes: a daemon that the child leaves behind would hold a pipe open for ever.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            code_returned = child.wait(seconds)
        except subprocess.TimeoutExpired:
            return ChildResult(False, f"no answer within {seconds:.0f} s")
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if code_returned == 0:
            return ChildResult(True, _last_line(output))
        if code_returned < 0:
            return ChildResult(False, f"the process was killed by {signal.Signals(-code_returned).name}")
        return ChildResult(False, _MODULE.sub("", _last_line(errors)) or f"exit code {code_returned}")


def _last_line(file: IO[str]) -> str:
    file.seek(0)
    lines = [line.strip() for line in file if line.strip()]
    return lines[-1] if lines else ""


__all__ = ["Check", "CheckStatus", "ChildResult", "run_child"]
