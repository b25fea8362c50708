"""The log of a run, read back: the files of the campaign and its workers in the order of time, while it runs too.

What a log does not hold (the run is older than logs, or they were put aside long ago) is told from the ledger. May
import :mod:`pilotwave.archive` and :mod:`pilotwave.report`.
"""

from __future__ import annotations

import heapq
import json
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave.archive.ledger import Ledger
from pilotwave.archive.project.from_run import run_id_of
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.errors import RunDirectoryError
from pilotwave.report.log_lines import LEVELS, Line, in_order, line_of, rfc3339
from pilotwave.report.redaction import make_redactor

_NUMBERED = re.compile(r"^(?P<name>.*?)\.(?P<number>\d+)\.jsonl$")


@dataclass(frozen=True)
class Wanted:
    """Which lines.

    Attributes:
        level: This one and above.
        query: About this query, or None for any.
        proposal: About this proposal.
        worker: From or about this worker.
        events: Of these kinds; empty for all.
    """

    level: str = "info"
    query: str | None = None
    proposal: int | None = None
    worker: str | None = None
    events: frozenset[str] = frozenset()

    def takes(self, line: Mapping[str, Any]) -> bool:
        """Says whether a line is wanted."""
        level = line.get("level")
        if level in LEVELS and LEVELS.index(level) < LEVELS.index(self.level):
            return False
        if self.events and line.get("event") not in self.events:
            return False
        for name in ("query", "proposal", "worker"):
            wanted = getattr(self, name)
            if wanted is not None and line.get(name) != wanted:
                return False
        return True


class RunLog:
    """The log of one run.

    Args:
        run_dir: Its directory; a campaign may be writing to it.

    Raises:
        RunDirectoryError: There is no run here.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run = RunDirectory(run_dir)
        if not self._run.exists():
            raise RunDirectoryError(f"{run_dir}: no run here; give the directory of a run, e.g. runs/demo")
        self._places: dict[Path, tuple[int, int]] = {}
        self._sequence = 0

    def last(self, wanted: Wanted, count: int | None) -> list[Line]:
        """Returns the last wanted lines, the oldest first.

        Args:
            wanted: Which.
            count: At most so many; None for all.

        Raises:
            StorageError: The ledger cannot be read.
        """
        self._places = {path: _end_of(path) for path in self._files()}
        found: deque[Line] = deque(maxlen=count)
        first: str | None = None
        for line in self._logged():
            first = first or str(line["time"])
            if wanted.takes(line):
                found.append(line)
        if count is not None and len(found) == count:
            return list(found)
        earlier: deque[Line] = deque(maxlen=None if count is None else count - len(found))
        earlier.extend(line for line in self._from_ledger(0, first) if wanted.takes(line))
        return [*earlier, *found]

    def new(self, wanted: Wanted) -> list[Line]:
        """Returns the wanted lines that came since the last call of this or :meth:`last`."""
        files = self._files()
        if not files:  # the run keeps no log
            return [line for line in self._from_ledger(self._sequence, None) if wanted.takes(line)]
        lines: list[Line] = []
        for path in files:
            lines += self._rest_of(path)
        lines.sort(key=lambda line: str(line["time"]))
        return [line for line in lines if wanted.takes(line)]

    def is_at_work(self) -> bool:
        """Says whether lines may still come."""
        return self._run.is_locked() or self._run.is_written()

    def _files(self) -> list[Path]:
        """Returns the files that are written to, not those that were put aside."""
        return sorted(path for path in self._run.logs.glob("*.jsonl") if not _NUMBERED.match(path.name))

    def _logged(self) -> Iterator[Line]:
        series = [(line for path in [*_older(path), path] for line in _lines_of(path)) for path in self._files()]
        yield from heapq.merge(*series, key=lambda line: str(line["time"]))

    def _from_ledger(self, after: int, until: str | None) -> Iterator[Line]:
        """Yields the lines for the events that a log does not hold, secrets hidden as there."""
        redact = make_redactor()
        with Ledger.open(self._run.ledger_file, read_only=True) as ledger:
            same = {"campaign": ledger.meta().get("name"), "run": run_id_of(ledger)}
            for event in ledger.events(after):
                self._sequence = event.sequence
                if until is not None and rfc3339(event.time) >= until:
                    return
                line = line_of(event)
                yield in_order({**same, **line, "message": redact(line["message"])})

    def _rest_of(self, path: Path) -> list[Line]:
        """Returns what was added to a file since it was last looked at, and to the one it took the place of."""
        inode, position = self._places.get(path, (0, 0))
        lines: list[Line] = []
        try:
            if inode not in (0, path.stat().st_ino):
                put_aside = next((old for old in _older(path) if old.stat().st_ino == inode), None)
                lines += [] if put_aside is None else _read_from(put_aside, position)[0]
                position = 0
            added, end = _read_from(path, position)
            self._places[path] = (path.stat().st_ino, end)
        except FileNotFoundError:  # put aside this very moment: next time
            return lines
        return lines + added


def _older(path: Path) -> list[Path]:
    """Returns the files that were put aside, the oldest first."""
    found = []
    for other in path.parent.glob(f"{path.stem}.*.jsonl"):
        match = _NUMBERED.match(other.name)
        if match and match["name"] == path.stem:
            found.append((int(match["number"]), other))
    return [other for _, other in sorted(found, reverse=True)]


def _end_of(path: Path) -> tuple[int, int]:
    """Returns which file it is and where its last whole line ends."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        back = min(size, 1 << 16)
        file.seek(size - back)
        return os.fstat(file.fileno()).st_ino, size - back + file.read().rfind(b"\n") + 1


def _read_from(path: Path, position: int) -> tuple[list[Line], int]:
    with path.open("rb") as file:
        file.seek(position)
        data = file.read()
    whole = data.rfind(b"\n") + 1
    return list(_parsed(data[:whole].splitlines())), position + whole


def _lines_of(path: Path) -> Iterator[Line]:
    try:
        with path.open("rb") as file:
            yield from _parsed(file)
    except FileNotFoundError:  # the oldest, gone this very moment
        return


def _parsed(texts: Iterable[bytes]) -> Iterator[Line]:
    """Leaves out what is no line of ours: a driver may have been killed in the middle of one."""
    for text in texts:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("time"), str):
            yield line


__all__ = ["RunLog", "Wanted"]
