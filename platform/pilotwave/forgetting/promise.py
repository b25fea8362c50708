"""The promise: what a forgetting will do, on the disk before anything is done, so that a kill loses nothing.

``RUN_DIR/forgotten/promised.json`` names what must go; it is deleted when that is gone. May import
:mod:`pilotwave.storage`, :mod:`pilotwave.tracking` and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pilotwave.errors import RunDirectoryError
from pilotwave.storage import sync_folder, write_atomically
from pilotwave.tracking.mlflow_forgetting import MetricChange

FORMAT = 1
FOLDER, FILE = "forgotten", "promised.json"


@dataclass(frozen=True)
class Promise:
    """Everything that is needed to finish.

    Attributes:
        receipt: The name of the receipt to be.
        when: UTC, ISO 8601.
        kind: Of the request.
        named: How many records the request is about.
        ids: The query ids that go.
        queries: How many of them were paid for.
        salt: Of the hashes that stand for the ids in the receipt; never written elsewhere.
        had_results: Whether the result files have to be made anew.
        changes: What the tracked metrics become.
        artifacts: Paths of tracked artifacts that are made from the result files.
        archive: The project archive's folder, or None.
        archived: The record ids that go from there.
        before: SHA-256 of files that are going to change, by their name.
    """

    receipt: str
    when: str
    kind: str
    named: int
    ids: tuple[str, ...]
    queries: int
    salt: str
    had_results: bool = False
    changes: tuple[MetricChange, ...] = ()
    artifacts: tuple[str, ...] = ()
    archive: str | None = None
    archived: tuple[str, ...] = ()
    before: Mapping[str, str] = field(default_factory=dict)

    def hashed(self, query_id: str) -> str:
        """Returns what stands for an id where no content may stand."""
        return hashlib.sha256(f"{self.salt}/{query_id}".encode()).hexdigest()

    def public_name(self, path: Path, folder: Path) -> str:
        """Returns a file's name relative to a folder, with the hash of an id in the id's place."""
        name = os.path.relpath(path, folder)
        for query_id in sorted(self.ids, key=len, reverse=True):
            name = name.replace(query_id, self.hashed(query_id))
        return name


def promised_file(run_dir: Path) -> Path:
    """Returns where the promise of a run directory lies."""
    return run_dir / FOLDER / FILE


def write_promise(run_dir: Path, promise: Promise) -> None:
    """Writes a promise down, durably; from now on it will be kept.

    Raises:
        StorageError: It cannot be written; nothing was promised.
    """
    text = json.dumps({"format": FORMAT, **asdict(promise)}, indent=1)
    write_atomically(promised_file(run_dir), text.encode())


def read_promise(run_dir: Path) -> Promise | None:
    """Returns the promise that was not kept yet, or None.

    Raises:
        RunDirectoryError: There is one that cannot be read.
    """
    path = promised_file(run_dir)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != FORMAT:
            raise ValueError("it is of another format; use a newer pilotwave")
        return _promise_of(fields)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"{path}: a promised forgetting cannot be read ({error}); forget the same again after moving it away"
        ) from error


def delete_promise(run_dir: Path) -> None:
    """Deletes the promise, durably, and what a kill left of writing one."""
    path = promised_file(run_dir)
    for file in (*path.parent.glob(".*.tmp"), path):
        file.unlink(missing_ok=True)
    sync_folder(path.parent)


def _promise_of(fields: Mapping[str, Any]) -> Promise:
    listed: Sequence[Mapping[str, Any]] = fields["changes"]
    tuples = {name: tuple(fields[name]) for name in ("ids", "artifacts", "archived")}
    return Promise(**{**fields, **tuples, "changes": tuple(MetricChange(**item) for item in listed)})


__all__ = ["FOLDER", "Promise", "delete_promise", "promised_file", "read_promise", "write_promise"]
