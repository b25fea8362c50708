"""Where the records of a run are held, before they are taken out. May import :mod:`pilotwave.forgetting`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pilotwave.archive.ledger import Ledger
from pilotwave.archive.reduced_ledger import without
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.execution.learned_model import MODEL_FOLDER
from pilotwave.execution.receipts import read_receipts
from pilotwave.forgetting.byte_search import files_under
from pilotwave.report.results import NAMES


@dataclass(frozen=True)
class Place:
    """One place.

    Attributes:
        kind: ledger, receipt, checkpoint, model, log, result, metrics, artifact, outbox, or archive.
        path: A file, or where a tracked run is.
        what: What is there and becomes of it, for people.
    """

    kind: str
    path: str
    what: str

    def to_json(self) -> dict[str, Any]:
        """Returns it for programs."""
        return asdict(self)


def counted(number: int, word: str) -> str:
    """Returns ``"1 record"``, ``"2 records"``."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def places_in_run(run: RunDirectory, ids: Collection[str]) -> list[Place]:
    """Returns the places in a run directory that hold, or were computed from, records of these ids."""
    gone = set(ids)
    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        changed = sum(without(event.kind, event.record, gone) != dict(event.record) for event in ledger.events())
    what = f"{counted(len(gone), 'candidate')}, {counted(changed, 'event')}; written anew without them"
    found = [Place("ledger", str(run.ledger_file), what)]
    found += [Place("receipt", str(path), "deleted") for path in receipts_of(run, gone)]
    found += [
        Place("checkpoint", str(path), "deleted; resuming learns again from the ledger")
        for path in files_under(run.checkpoints)
    ]
    what = "what was learned; deleted, resuming makes it anew"
    found += [Place("model", str(path), what) for path in files_under(run.path / MODEL_FOLDER)]
    what = "what happened, line by line; deleted, `pilotwave logs` tells it from the ledger"
    found += [Place("log", str(path), what) for path in files_under(run.logs)]
    made_anew = set(NAMES.values())
    for path in files_under(run.results):
        anew = path.parent == run.results and path.name in made_anew
        found.append(
            Place("result", str(path), "made anew from the ledger" if anew else "deleted; export it again")
        )
    return found


def receipts_of(run: RunDirectory, ids: Collection[str]) -> list[Path]:
    """Returns the receipts of these queries that are still on the disk, and what was left half-written."""
    gone = set(ids)
    taken = {item.query_id for item in read_receipts(run.receipts) if gone & set((item.reused_from or "").split())}
    found = []
    for path in files_under(run.receipts):
        query_id, _, _ = path.name.removesuffix(".json").rpartition(".")
        of_them = path.suffix == ".json" and unquote(query_id) in gone | taken
        if of_them or path.suffix == ".tmp":
            found.append(path)
    return found


__all__ = ["Place", "counted", "places_in_run", "receipts_of"]
