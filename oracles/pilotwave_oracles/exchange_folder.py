"""A folder through which candidates go out and results come back, over days and over restarts.

``candidates/`` holds each candidate once; ``candidates.csv`` and ``candidates.sdf`` list them all and are made from
it. ``results/`` belongs to whoever measures. ``problems.txt`` names the lines there that cannot be used. May import
pilotwave and pilotwave_oracles.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pilotwave.errors import OracleFailure
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample, Sample
from pilotwave_oracles.results_file import Columns, Result, ResultsFile, read_results
from pilotwave_oracles.sample_files import npy_bytes, png_bytes, sdf_record

_LOG = logging.getLogger(__name__)

_MOST_COLUMNS = 256
"""Arrays of at most so many numbers have a column x1, x2, … for each in candidates.csv."""


@dataclass(frozen=True)
class Entry:
    """A candidate in the folder.

    Attributes:
        number: From 1, in the order of writing.
        id: The query's.
        digest: Of the sample.
        written: Seconds since the epoch.
        columns: What candidates.csv says of it.
        record: Its record in candidates.sdf, or "".
    """

    number: int
    id: str
    digest: str
    written: float
    columns: dict[str, str]
    record: str


class ExchangeFolder:
    """See the module. One object per folder and process; threads and processes may share the folder.

    Args:
        folder: Where everything lies; made if need be.
        columns: How results are to be read.
        settle_seconds: A results file counts once it has not been changed for so long: it may still be copied.
        look_seconds: How often results are looked for at most.
    """

    def __init__(self, folder: Path, columns: Columns, settle_seconds: float, look_seconds: float) -> None:
        self.folder = folder
        self._columns = columns
        self._settle_seconds = settle_seconds
        self._look_seconds = look_seconds
        self._entries: dict[str, Entry] = {}
        self._published: dict[str, tuple[tuple[int, int] | None, int]] = {}
        self._files: dict[str, tuple[tuple[int, int], ResultsFile]] = {}
        self._results: dict[str, Result] = {}
        self._looked = float("-inf")
        self._problems: list[str] | None = None
        self._lock = threading.RLock()

    def put(self, query_id: str, sample: Sample) -> Entry:
        """Writes a candidate, unless it is there.

        Raises:
            OracleFailure: Stage ``"folder"``: another candidate has this id, or nothing can be written; stage
                ``"encode"`` or ``"parse"``: the sample cannot be written as a file.
        """
        fields, blob = sample.payload()
        digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode() + blob).hexdigest()
        try:
            with self._lock, self._held():
                self._load()
                entry = self._entries.get(query_id)
                if entry is None:
                    entry = self._write(query_id, sample, digest)
                elif entry.digest != digest:
                    raise OracleFailure(
                        f"{self.folder} holds another candidate {query_id} already; "
                        "give every campaign a folder of its own",
                        stage="folder",
                    )
                self._list()
                return entry
        except OSError as error:
            reason = error.strerror or str(error)
            raise OracleFailure(f"{self.folder}: {reason}", stage="folder", retryable=True, cost=0.0) from error

    def result(self, query_id: str) -> Result | None:
        """Returns what was handed in for a candidate, or None if there is nothing yet."""
        with self._lock:
            if time.monotonic() - self._looked >= self._look_seconds:
                with contextlib.suppress(OSError):  # a lost mount comes back
                    self._look()
                self._looked = time.monotonic()
            return self._results.get(query_id)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Holds the folder against other processes."""
        for place in ("candidates", "results"):
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _load(self) -> None:
        """Reads the candidates that others have written, or an earlier process."""
        known = {_file_name(query_id) for query_id in self._entries}
        for path in (self.folder / "candidates").glob("*.json"):
            if path.name not in known:
                entry = Entry(**json.loads(path.read_text(encoding="utf-8")))
                self._entries[entry.id] = entry

    def _write(self, query_id: str, sample: Sample, digest: str) -> Entry:
        """Writes the sample's own file and, as the last thing, the entry that makes it count."""
        place = self.folder / "candidates"
        columns, suffix, data, record = _as_files(sample, query_id)
        file = place / f"{quote(query_id, safe='')}{suffix}"
        _write_whole(file, data)
        columns = {"id": query_id, "media": sample.media, "file": f"candidates/{file.name}", **columns}
        entry = Entry(len(self._entries) + 1, query_id, digest, time.time(), columns, record)
        _write_whole(place / _file_name(query_id), json.dumps(vars(entry)).encode())
        self._entries[query_id] = entry
        return entry

    def _list(self) -> None:
        """Brings candidates.csv, candidates.sdf and manifest.json up to date."""
        entries = sorted(self._entries.values(), key=lambda entry: entry.number)
        names = list(entries[0].columns)

        def rows(some: list[Entry]) -> str:
            table = io.StringIO()
            writer = csv.DictWriter(table, names, restval="", extrasaction="ignore", lineterminator="\n")
            if some[:1] == entries[:1]:
                writer.writeheader()
            writer.writerows(entry.columns for entry in some)
            return table.getvalue()

        changed = self._publish("candidates.csv", entries, rows)
        if any(entry.record for entry in entries):
            self._publish("candidates.sdf", entries, lambda some: "".join(entry.record for entry in some))
        if changed:
            _write_whole(self.folder / "manifest.json", json.dumps(self._manifest(names), indent=2).encode())

    def _publish(self, name: str, entries: list[Entry], render: Callable[[list[Entry]], str]) -> bool:
        """Completes a list of ours; one that somebody has edited is kept under another name."""
        path = self.folder / name
        stamp, count = self._published.get(name, (None, 0))
        if stamp is not None and stamp == _stamp(path):  # nobody else has written since
            rest = render(entries[count:]).encode()
        else:
            data = render(entries).encode()
            found = path.read_bytes() if path.exists() else b""
            if not data.startswith(found):
                number = len(list(self.folder.glob(f"edited-*-{name}"))) + 1
                path.rename(self.folder / f"edited-{number}-{name}")
                _LOG.warning("%s was edited; it is kept as edited-%d-%s", path, number, name)
                found = b""
            rest = data[len(found) :]  # also what a kill in the middle of a line has left out
        if rest:
            with path.open("ab") as file:
                file.write(rest)
                file.flush()
                os.fsync(file.fileno())
        self._published[name] = _stamp(path), len(entries)
        return bool(rest)

    def _manifest(self, names: list[str]) -> dict[str, Any]:
        return {
            "format": 1,
            "written_by": "pilotwave, oracle kind file-drop",
            "candidates": len(self._entries),
            "columns_of_candidates": names,
            "results": "Put CSV, TSV or SDF files into results/, in any order, as they come.",
            "columns_of_results": {
                self._columns.id: "the id from candidates.csv",
                self._columns.value: "a number" + (f" in {self._columns.unit}" if self._columns.unit else ""),
                "failure": "in place of a value: why there is none",
                "unit, cost, fidelity": "if you like; other columns with numbers are kept as properties",
            },
            "problems": "problems.txt names the lines that cannot be used.",
        }

    def _look(self) -> None:
        """Reads the results files that are new or were changed, and writes down what is wrong with them."""
        results = self.folder / "results"
        files: dict[str, tuple[tuple[int, int], ResultsFile]] = {}
        for path in sorted(results.iterdir()) if results.is_dir() else []:
            name = f"results/{path.name}"
            if path.name.startswith((".", "~")) or path.suffix in (".tmp", ".part") or not path.is_file():
                continue
            stamp = _stamp(path)
            if stamp is None:
                continue
            if name in self._files and self._files[name][0] == stamp:
                files[name] = self._files[name]
            elif time.time() - stamp[1] / 1e9 >= self._settle_seconds:
                files[name] = stamp, read_results(name, path.read_bytes(), self._columns)
        written = {path.name for path in (self.folder / "candidates").glob("*.json")}
        self._files = files
        problems = [problem for _, file in files.values() for problem in file.problems]
        self._results, others = _settled([item for _, file in files.values() for item in file.results], written)
        self._report(problems + others)

    def _report(self, problems: list[str]) -> None:
        if problems == self._problems:
            return
        for problem in problems:
            if problem not in (self._problems or ()):
                _LOG.warning("%s/%s", self.folder, problem)
        self._problems = problems
        path = self.folder / "problems.txt"
        if problems:
            _write_whole(path, "".join(f"{problem}\n" for problem in problems).encode())
        else:
            path.unlink(missing_ok=True)


_OPEN: dict[tuple[Path, Columns, float, float], ExchangeFolder] = {}
_OPENING = threading.Lock()


def open_folder(folder: Path, columns: Columns, settle_seconds: float, look_seconds: float) -> ExchangeFolder:
    """Returns the one object of this process for a folder, so that a thousand that wait look at it once."""
    key = (folder, columns, settle_seconds, look_seconds)
    with _OPENING:
        if key not in _OPEN:
            _OPEN[key] = ExchangeFolder(*key)
        return _OPEN[key]


def _settled(found: list[Result], written: set[str]) -> tuple[dict[str, Result], list[str]]:
    """Returns the result of each candidate, and what is wrong between lines: strangers and contradictions."""
    results: dict[str, Result] = {}
    contradicted: set[str] = set()
    problems = []
    for result in found:
        before = results.setdefault(result.id, result)
        if _file_name(result.id) not in written:
            del results[result.id]
            problems.append(f"{result.place}: no candidate {result.id!r:.60}; candidates.csv has the ids")
        elif not before.says_the_same(result):
            contradicted.add(result.id)
            problems.append(
                f"{result.place}: {result.id} is {_said(result)} here and {_said(before)} in {before.place}; "
                "take one out, nothing counts until then"
            )
    return {name: result for name, result in results.items() if name not in contradicted}, problems


def _said(result: Result) -> str:
    return f"{result.value:g}" if result.value is not None else f"a failure ({result.failure!r:.40})"


def _as_files(sample: Sample, query_id: str) -> tuple[dict[str, str], str, bytes, str]:
    """Returns a candidate's columns, the suffix and bytes of its file, and its record of an SD file."""
    if isinstance(sample, MoleculeSample):
        record = sdf_record(sample, query_id, {"id": query_id, "smiles": sample.smiles})
        return {"smiles": sample.smiles}, ".mol", sample.mol_block.encode(), record
    if isinstance(sample, ImageSample):
        return {"class_name": sample.class_name or ""}, ".png", png_bytes(sample), ""
    assert isinstance(sample, ArraySample)
    numbers = sample.array.ravel().tolist()
    columns = {f"x{place}": f"{number:.9g}" for place, number in enumerate(numbers, 1)}
    return columns if len(columns) <= _MOST_COLUMNS else {}, ".npy", npy_bytes(sample), ""


def _stamp(path: Path) -> tuple[int, int] | None:
    """Returns size and time of change, or None if there is no such file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _file_name(query_id: str) -> str:
    return f"{quote(query_id, safe='')}.json"


def _write_whole(path: Path, data: bytes) -> None:
    """Writes a file that is seen whole or not at all, also after a crash."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


__all__ = ["Entry", "ExchangeFolder", "open_folder"]
