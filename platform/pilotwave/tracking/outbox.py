"""What is on its way to a tracking server: in memory, and in a file so that a killed process loses none of it.

May import the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

Entry = dict[str, Any]

CAPACITY = 50_000
"""Entries kept while a server is away; a week of batches."""


class Outbox:
    """A queue that survives the process. Thread-safe; it never raises on account of the file.

    An entry that was sent just before a kill may be sent again: sending must be idempotent.

    Args:
        path: Of the file; entries that a killed process left there come first.
        capacity: Later entries are dropped, and counted in :attr:`dropped`, while so many wait.
    """

    def __init__(self, path: Path, capacity: int = CAPACITY) -> None:
        self.dropped = 0
        self._path = path
        self._capacity = capacity
        self._lock = threading.Lock()
        self._entries = _read(path)

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entry: Entry) -> None:
        """Adds a JSON-compatible entry at the end."""
        with self._lock:
            if len(self._entries) >= self._capacity:
                self.dropped += 1
                return
            self._entries.append(entry)
            # No fsync: the ledger holds the same facts durably, this only outlives the process. On a full or
            # read-only disk memory has to do.
            with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def first(self, count: int) -> list[Entry]:
        """Returns up to so many entries from the front, which stay until they are removed."""
        with self._lock:
            return self._entries[:count]

    def remove(self, count: int) -> None:
        """Removes so many entries from the front: they were sent."""
        with self._lock:
            del self._entries[:count]
            with contextlib.suppress(OSError):  # they would be sent twice, which changes nothing
                self._rewrite()

    def _rewrite(self) -> None:
        if not self._entries:
            self._path.unlink(missing_ok=True)
            return
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in self._entries), encoding="utf-8")
        temporary.replace(self._path)


def _read(path: Path) -> list[Entry]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # a line that a killed process did not finish
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


__all__ = ["CAPACITY", "Entry", "Outbox"]
