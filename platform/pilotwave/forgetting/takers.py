"""Other runs that took answers of a run by way of a project archive: their ledgers hold copies.

A warm start copies latents, noise and values; a reused answer its value. May import :mod:`pilotwave.archive`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.project import run_id_of
from pilotwave.archive.run_directory import RunDirectory


@dataclass(frozen=True)
class Taker:
    """A run that took answers.

    Attributes:
        path: Its directory.
        run_id: Its run id.
        records: The record ids that it took, as it names them.
        answers: How many answers of its own come from those.
    """

    path: Path
    run_id: str
    records: tuple[str, ...]
    answers: int


def runs_beside(folders: Iterable[Path]) -> list[Path]:
    """Returns the run directories that lie in these folders, each once."""
    found = {file.parent.resolve() for folder in folders for file in folder.glob("*/ledger.sqlite")}
    return sorted(found)


def takers_of(run_id: str, ids: Collection[str] | None, runs: Iterable[Path]) -> list[Taker]:
    """Finds the runs that took answers of a run.

    Args:
        run_id: Of the run that gave them.
        ids: Its query ids in question; all if None.
        runs: Where to look; what is no readable ledger took nothing that could be read.
    """
    wanted = None if ids is None else {f"{run_id}/{query_id}" for query_id in ids}
    found = []
    for path in runs:
        records: set[str] = set()
        answers: set[str] = set()
        for query_id, sources in _taken(RunDirectory(path), f"{run_id}/"):
            hits = sources if wanted is None else sources & wanted
            if hits:
                records |= hits
                answers.add(query_id)
        if answers:
            with Ledger.open(RunDirectory(path).ledger_file, read_only=True) as ledger:
                found.append(Taker(path, run_id_of(ledger), tuple(sorted(records)), len(answers)))
    return found


def _taken(run: RunDirectory, prefix: str) -> list[tuple[str, set[str]]]:
    query = "SELECT record FROM events WHERE kind IN (?, ?) AND instr(record, ?)"
    kinds = (EventKind.SETTLED.value, EventKind.REMEMBERED.value)
    try:
        uri = f"{run.ledger_file.as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=30.0)) as raw:
            records = [json.loads(text) for (text,) in raw.execute(query, (*kinds, prefix))]
    except (sqlite3.Error, ValueError):
        return []
    return [
        (
            record["query_id"],
            {word for word in (record.get("reused_from") or "").split() if word.startswith(prefix)},
        )
        for record in records
    ]


__all__ = ["Taker", "runs_beside", "takers_of"]
