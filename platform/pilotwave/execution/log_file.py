"""A file of JSON objects, one a line, bounded in all: full files are renamed and the oldest goes.

Lines are kept for a moment and handed to the operating system together, so they survive the death of the process
but are never waited for on a disk: what must survive a power cut is in the ledger. May import the standard library.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FLUSH_SECONDS = 1.0
"""No line waits longer in this process, if the file is looked after by :meth:`LogFile.flush_if_due`."""
LARGEST_BYTES = 8 << 20
KEPT_FILES = 8
"""The current file and seven older ones: 64 MiB in all, some 200,000 lines."""


class LogFile:
    """An open file; several threads may write.

    Args:
        path: Ends in ``.jsonl``; older files are ``name.1.jsonl`` (the newest of them), ``name.2.jsonl`` and so on.
        largest_bytes: A file that would grow over it is put aside first.
        kept: How many files there are at most.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path, largest_bytes: int = LARGEST_BYTES, kept: int = KEPT_FILES) -> None:
        self.path = path
        self._largest = largest_bytes
        self._kept = kept
        self._waiting: list[str] = []
        self._lock = threading.Lock()
        self._flushed = time.monotonic()
        self._descriptor = self._open()
        self._size = os.fstat(self._descriptor).st_size
        if self._size and not self._ends_a_line():
            self._waiting.append("")  # a driver was killed in the middle of one

    def write(self, line: Mapping[str, Any], *, now: bool = False) -> None:
        """Adds a line.

        Args:
            line: JSON-compatible; a number that JSON does not know becomes text.
            now: Whether to hand it over at once.

        Raises:
            OSError: The disk is full or gone.
        """
        text = _text_of(line)
        with self._lock:
            self._waiting.append(text)
            if now or time.monotonic() - self._flushed >= FLUSH_SECONDS:
                self._flush()

    def flush_if_due(self) -> None:
        """Hands over what has waited long enough; raises as :meth:`write` does."""
        if self._waiting and time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hands over what waits; raises as :meth:`write` does."""
        with self._lock:
            self._flush()

    def close(self) -> None:
        """Hands over what waits and closes the file; may be called twice."""
        with self._lock:
            if self._descriptor < 0:
                return
            try:
                self._flush()
            finally:
                os.close(self._descriptor)
                self._descriptor = -1

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._flushed = time.monotonic()
        if not waiting or self._descriptor < 0:
            return
        data = ("\n".join(waiting) + "\n").encode()
        if self._size and self._size + len(data) > self._largest:
            self._put_aside()
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            view = view[written:]
        self._size += len(data)

    def _put_aside(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        for number in range(self._kept - 1, 0, -1):
            newer = self.path if number == 1 else older_file(self.path, number - 1)
            if newer.exists():
                os.replace(newer, older_file(self.path, number))
        self._descriptor = self._open()
        self._size = 0

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def _ends_a_line(self) -> bool:
        return os.pread(self._descriptor, 1, self._size - 1) == b"\n"


def older_file(path: Path, number: int) -> Path:
    """Returns the name of a file that was put aside, 1 for the last one."""
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def _text_of(line: Mapping[str, Any]) -> str:
    try:
        return json.dumps(line, ensure_ascii=False, allow_nan=False)
    except ValueError:  # NaN or infinity, which no other reader of JSON would take
        return json.dumps({name: _plain(value) for name, value in line.items()}, ensure_ascii=False)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and value - value != 0 else value


__all__ = ["FLUSH_SECONDS", "KEPT_FILES", "LARGEST_BYTES", "LogFile", "older_file"]
