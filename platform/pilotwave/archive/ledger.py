"""The ledger: an append-only sqlite file of everything a campaign asked and was answered.

It is written before an oracle is asked (``reserved``) and before an answer is acknowledged (``settled``),
each time synchronised to disk, so that after ``kill -9`` of anything a campaign resumes with no answer lost
and none paid for twice. Many events may be written together, with one synchronisation for all of them. Triggers
refuse updates and deletions. Readers (``status``, ``top``, reports) may open it while a campaign writes. May
import :mod:`pilotwave.types`, :mod:`pilotwave.samples` and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pilotwave.archive.candidate_rows import candidate_of, candidate_row
from pilotwave.archive.events import Event, EventKind
from pilotwave.archive.records import evaluation_from_json, evaluation_to_json
from pilotwave.errors import RunDirectoryError, StorageError, TakenOverError
from pilotwave.types import Candidate, Evaluation

FORMAT = 1
_to_text = json.JSONEncoder(allow_nan=False, sort_keys=True).encode

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE candidates (
    query_id TEXT PRIMARY KEY,
    proposal INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    noise_sequence BLOB NOT NULL,
    noise_shape TEXT NOT NULL,
    latent BLOB NOT NULL,
    condition BLOB NOT NULL,
    identity TEXT,
    media TEXT,
    sample_fields TEXT,
    sample_blob BLOB,
    infeasible TEXT,
    properties TEXT NOT NULL
);
CREATE INDEX candidates_of_proposal ON candidates (proposal);
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    kind TEXT NOT NULL,
    record TEXT NOT NULL
);
"""
_APPEND_ONLY = """
CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


class Ledger:
    """An open ledger; one writer at a time, any number of readers.

    A lock keeps writers apart (:meth:`pilotwave.archive.run_directory.RunDirectory.become_writer`). Where a lock
    fails, on storage that forgot it, the events' numbers still tell: a writer who finds that another one has
    written since writes nothing any more and says so (:class:`pilotwave.errors.TakenOverError`).

    Use :meth:`create` or :meth:`open`; close it, or use it as a context manager.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, *, writes: bool = True) -> None:
        self._connection = connection
        self._writes = writes
        self._last = _last_sequence(connection) if writes else 0
        self._durable = self._last
        self._is_together = False
        self.path = path

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, str]) -> Self:
        """Creates a ledger.

        Args:
            path: The file; it must not exist.
            meta: What it belongs to, e.g. ``{"campaign": digest}``.

        Raises:
            StorageError: The file cannot be written.
        """
        if path.exists():
            raise RunDirectoryError(f"{path} exists already; resume its campaign or choose another run directory")
        # Made under another name and then renamed: nobody ever sees, or is left with, half a ledger.
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        with _storage_errors(path):
            unfinished.unlink(missing_ok=True)
            connection = _connect(unfinished, read_only=False)
            with connection:
                make_tables(connection)
                rows = {**meta, "format": str(FORMAT)}
                connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
            cls(connection, unfinished).close()
            unfinished.replace(path)
            return cls(_connect(path, read_only=False), path)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Opens a ledger.

        Raises:
            RunDirectoryError: There is none, or it is of another format.
            StorageError: It cannot be read.
        """
        if not path.exists():
            raise RunDirectoryError(f"{path}: no ledger here; give the directory of a run, e.g. runs/demo")
        with _storage_errors(path):
            ledger = cls(_connect(path, read_only=read_only), path, writes=not read_only)
            found = ledger.meta().get("format")
        if found != str(FORMAT):
            raise RunDirectoryError(f"{path}: expected ledger format {FORMAT}, got {found}; use a newer pilotwave")
        return ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; a writer leaves one plain file that also opens from a read-only place."""
        if self._writes:
            # Refused while somebody reads: then the next writer tidies up.
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA busy_timeout = 500")
                self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()

    def meta(self) -> dict[str, str]:
        """Returns what the ledger belongs to."""
        return dict(self._connection.execute("SELECT key, value FROM meta"))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Makes all that is written inside durable at once: it is on the disk when this has ended, not before.

        So it is, too, if an error ends it that is not the storage's own. May stand inside itself.

        Raises:
            StorageError: Something could not be written; nothing was since the beginning or the last
                :meth:`commit`.
        """
        if self._is_together:
            yield
            return
        self._is_together = True
        try:
            yield
        except StorageError:
            self._take_back()
            raise
        except BaseException:
            self.commit()
            raise
        else:
            self.commit()
        finally:
            self._is_together = False

    def commit(self) -> None:
        """Inside :meth:`together`: brings what was written so far to the disk.

        Raises:
            StorageError: It could not be; nothing of it was written.
        """
        if not self._connection.in_transaction:
            return
        try:
            with _storage_errors(self.path):
                self._connection.commit()
            self._durable = self._last
        except StorageError:
            self._take_back()
            raise

    def append(self, kind: EventKind, record: Mapping[str, Any]) -> Event:
        """Writes one event; when this returns it is on the disk, unless it is written :meth:`together` with others.

        Raises:
            StorageError: It could not be written; nothing of it was.
        """
        with self._writing():
            return self._insert_event(kind, record)

    def settle(self, kind: EventKind, evaluation: Evaluation) -> Event:
        """Writes the end of an attempt (``ATTEMPTED``) or of a query (``SETTLED``)."""
        return self.append(kind, evaluation_to_json(evaluation))

    def add_candidates(self, candidates: Sequence[Candidate], record: Mapping[str, Any]) -> Event:
        """Writes the candidates of a proposal and its ``GENERATED`` event, all or nothing."""
        rows = [candidate_row(candidate) for candidate in candidates]
        with self._writing(), self._all_or_nothing():
            self._connection.executemany(f"INSERT INTO candidates VALUES ({', '.join('?' * 13)})", rows)
            return self._insert_event(EventKind.GENERATED, record)

    def remember(self, candidates: Sequence[Candidate], evaluations: Sequence[Evaluation]) -> list[Event]:
        """Writes answers of earlier campaigns with their candidates, all or nothing."""
        rows = [candidate_row(candidate) for candidate in candidates]
        with self._writing(), self._all_or_nothing():
            self._connection.executemany(f"INSERT INTO candidates VALUES ({', '.join('?' * 13)})", rows)
            return [self._insert_event(EventKind.REMEMBERED, evaluation_to_json(item)) for item in evaluations]

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yields the events with a sequence number above ``after``, in order."""
        query = "SELECT sequence, time, kind, record FROM events WHERE sequence > ? ORDER BY sequence"
        with _storage_errors(self.path):
            for sequence, when, kind, record in self._connection.execute(query, (after,)):
                yield Event(sequence, when, EventKind(kind), json.loads(record))

    def ends_of(self, query_ids: Iterable[str], before: int) -> dict[str, Evaluation]:
        """Returns how queries ended, or what was remembered under these names, from the events before one.

        It looks back from there and stops when all are found.
        """
        missing, found = set(query_ids), dict[str, Evaluation]()
        query = (
            "SELECT record FROM events WHERE sequence < ? AND kind IN ('settled', 'remembered') "
            "ORDER BY sequence DESC"
        )
        with _storage_errors(self.path):
            for (text,) in self._connection.execute(query, (before,)):
                if not missing:
                    break
                record = json.loads(text)
                if record["query_id"] in missing:
                    missing.remove(record["query_id"])
                    found[record["query_id"]] = evaluation_from_json(record)
        return found

    def candidate(self, query_id: str) -> Candidate:
        """Returns one candidate.

        Raises:
            KeyError: No such query id.
        """
        found = self.candidates([query_id])
        if not found:
            raise KeyError(query_id)
        return found[0]

    def candidates(self, query_ids: Sequence[str]) -> list[Candidate]:
        """Returns the candidates of these ids that exist, in the order given."""
        found = {}
        with _storage_errors(self.path):
            for start in range(0, len(query_ids), 500):
                part = query_ids[start : start + 500]
                query = f"SELECT * FROM candidates WHERE query_id IN ({', '.join('?' * len(part))})"
                for row in self._connection.execute(query, part):
                    found[row[0]] = candidate_of(row)
        return [found[query_id] for query_id in query_ids if query_id in found]

    def feasible_identities(self) -> set[str]:
        """Returns the identities of all samples that an oracle may be or was asked about."""
        return set(self.each_feasible_identity())

    def each_feasible_identity(self) -> Iterator[str]:
        """Yields those one by one, a repeated one several times: there may be millions."""
        query = "SELECT identity FROM candidates WHERE infeasible IS NULL AND identity IS NOT NULL"
        with _storage_errors(self.path):
            for (identity,) in self._connection.execute(query):
                yield identity

    def identities(self) -> list[tuple[str, str | None, str | None]]:
        """Returns of each candidate, in the order made: its id, its sample's identity, and why it is infeasible."""
        with _storage_errors(self.path):
            rows = self._connection.execute("SELECT query_id, identity, infeasible FROM candidates ORDER BY rowid")
            return [(query_id, identity, infeasible) for query_id, identity, infeasible in rows]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, or a part of the one that is open."""
        with _storage_errors(self.path):
            if not self._is_together:
                with self._connection:
                    yield
                self._durable = self._last
                return
            if not self._connection.in_transaction:
                self._connection.execute("BEGIN IMMEDIATE")
            yield

    def _take_back(self) -> None:
        """Takes back what was written since the last commit."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.rollback()
        self._last = self._durable

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Takes back what was written inside if an error ends it, and leaves what was written before."""
        if not self._connection.in_transaction:
            yield  # then the transaction itself is all or nothing
            return
        self._connection.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK TO part")
            raise
        finally:
            self._connection.execute("RELEASE part")

    def _insert_event(self, kind: EventKind, record: Mapping[str, Any]) -> Event:
        now = time.time()
        text = _to_text(record)
        cursor = self._connection.execute(
            "INSERT INTO events (time, kind, record) VALUES (?, ?, ?)", (now, kind.value, text)
        )
        sequence = int(cursor.lastrowid or 0)
        if sequence > self._last + 1:  # within the transaction, so nothing of it is written
            raise TakenOverError(
                f"{self.path}: somebody else has written here since event {self._last}: another optimizer has "
                "taken this campaign over, and this one stops"
            )
        self._last = sequence
        return Event(sequence, now, kind, record)


def make_tables(connection: sqlite3.Connection) -> None:
    """Makes the empty tables of a ledger, and the triggers that keep them append-only."""
    connection.executescript(_SCHEMA)
    for table in ("candidates", "events"):
        for verb in ("UPDATE", "DELETE"):
            connection.executescript(_APPEND_ONLY.format(table=table, verb=verb))


def _last_sequence(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'"
    ).fetchone()
    return int(number)


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(uri, uri=True, timeout=30.0, check_same_thread=False)
    if not read_only:
        # Write-ahead logging lets `status` read while a campaign writes; FULL makes every commit durable.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, sqlite3.IntegrityError):
            raise
        raise StorageError(
            f"{path}: the ledger cannot be read or written: {error}; free some disk space or mend the mount, "
            "then run `pilotwave resume` (no settled answer is lost)"
        ) from error


__all__ = ["FORMAT", "Event", "EventKind", "Ledger", "make_tables"]
