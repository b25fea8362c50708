"""A ledger without some of its records: written anew beside the old one and put in its place at once.

Deleting rows would leave their bytes in free pages and logs, and the ledger's triggers refuse it; a new file has
never held them. The copy is append-only like every ledger. May import :mod:`pilotwave.archive` and
:mod:`pilotwave.errors`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from pilotwave.archive.ledger import Event, EventKind, Ledger, make_tables
from pilotwave.archive.state import CampaignState
from pilotwave.errors import StorageError
from pilotwave.storage import sync_folder

_NEW = ".{name}.reduced"
_LOGS = ("-wal", "-shm", "-journal")
_BUSY_MILLISECONDS = 10_000


def settle_into_one_file(path: Path) -> None:
    """Moves what a killed driver left in the write-ahead log into the ledger's file, and removes the log.

    Raises:
        RunDirectoryError: There is no ledger.
        StorageError: A reader keeps the log open, or it cannot be written.
    """
    Ledger.open(path, read_only=True).close()  # says what is wrong if it is none
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
            mode = connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
    except sqlite3.Error as error:
        raise StorageError(
            f"{path}: expected to be alone with the ledger, got: {error}; end what reads it, then repeat"
        ) from error
    left = [suffix for suffix in _LOGS if path.with_name(path.name + suffix).exists()]
    if mode != "delete" or left:
        raise StorageError(f"{path}: something still reads the ledger; end it (status, top), then repeat")


def without(kind: EventKind, record: Mapping[str, Any], gone: Collection[str]) -> dict[str, Any] | None:
    """Returns an event's record without these query ids, or None if nothing of the event is left.

    A list keeps its other members; an event about one of the queries goes, and so does a ``TOLD`` of none.
    """
    if record.get("query_id") in gone:
        return None
    kept = {
        key: [item for item in value if not (isinstance(item, str) and item in gone)]
        if isinstance(value, list)
        else value
        for key, value in record.items()
    }
    return None if kind is EventKind.TOLD and not kept["query_ids"] else kept


def is_reduced(path: Path, receipt: str) -> bool:
    """Says whether the ledger was written anew for this forgetting already."""
    with Ledger.open(path, read_only=True) as ledger:
        return any(
            event.kind is EventKind.FORGOTTEN and event.record["receipt"] == receipt for event in ledger.events()
        )


def reduce_ledger(path: Path, gone: Collection[str], *, receipt: str, queries: int) -> None:
    """Replaces a ledger by one without these query ids, and notes how many of them were paid for.

    After a kill at any moment the old ledger is there, whole, or the new one. Call
    :func:`settle_into_one_file` before, and hold the run's locks.

    Args:
        path: The ledger.
        gone: The ids to leave out.
        receipt: The name of the forgetting's receipt.
        queries: How many of the ids were paid for.

    Raises:
        StorageError: It cannot be read or written; the old one is in place.
    """
    new = path.with_name(_NEW.format(name=path.name))
    try:
        for leftover in (new, *(new.with_name(new.name + suffix) for suffix in _LOGS)):
            leftover.unlink(missing_ok=True)
        with closing(sqlite3.connect(new)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA temp_store = MEMORY")
            make_tables(connection)
            connection.execute("ATTACH ? AS old", (f"{path}",))
            connection.execute("CREATE TEMP TABLE gone (query_id TEXT PRIMARY KEY)")
            with connection:
                _copy(connection, gone, receipt, queries)
        os.replace(new, path)
        sync_folder(path.parent)
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{path} could not be written anew: {error}; free some space, then repeat") from error


def ledger_digest(path: Path) -> str:
    """Returns the SHA-256 of what a ledger says, the same however its file is laid out."""
    digest = hashlib.sha256()
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as raw:
        for table, order in (("meta", "key"), ("candidates", "query_id"), ("events", "sequence")):
            for row in raw.execute(f"SELECT * FROM {table} ORDER BY {order}"):
                for cell in row:
                    data = cell if isinstance(cell, bytes) else repr(cell).encode()
                    digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _copy(connection: sqlite3.Connection, gone: Collection[str], receipt: str, queries: int) -> None:
    connection.executemany("INSERT INTO temp.gone VALUES (?)", [(query_id,) for query_id in sorted(gone)])
    connection.execute("INSERT INTO main.meta SELECT * FROM old.meta")
    connection.execute(
        "INSERT INTO main.candidates SELECT * FROM old.candidates "
        "WHERE query_id NOT IN (SELECT query_id FROM temp.gone) ORDER BY rowid"
    )
    last, before, after = 0, CampaignState(), CampaignState()
    rows = connection.execute("SELECT sequence, time, kind, record FROM old.events ORDER BY sequence")
    insert = "INSERT INTO main.events (sequence, time, kind, record) VALUES (?, ?, ?, ?)"
    for last, when, kind, text in rows:
        event = Event(last, when, EventKind(kind), json.loads(text))
        before.apply(event)
        kept = without(event.kind, event.record, gone)
        if kept is not None:
            after.apply(dataclasses.replace(event, record=kept))
            connection.execute(insert, (last, when, kind, json.dumps(kept, allow_nan=False, sort_keys=True)))
    cost = before.spending.committed - after.spending.committed  # what was paid stays paid
    note = json.dumps({"cost": max(0.0, cost), "queries": queries, "receipt": receipt}, sort_keys=True)
    connection.execute(insert, (last + 1, time.time(), EventKind.FORGOTTEN.value, note))


__all__ = ["is_reduced", "ledger_digest", "reduce_ledger", "settle_into_one_file", "without"]
