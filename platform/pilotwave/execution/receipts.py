"""Receipts: an answer on disk before anybody is told of it, so that a killed driver never pays twice.

The process that asked the oracle writes ``<query_id>.<attempt>.json`` durably and only then acknowledges.
On resume the driver adopts the receipts that its ledger does not know, and discards each once the ledger
holds it. May import :mod:`pilotwave.archive.records` and the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from urllib.parse import quote

from pilotwave.archive.records import evaluation_from_json, evaluation_to_json
from pilotwave.types import Evaluation

_SUFFIX = ".json"


def receipt_path(directory: Path, query_id: str, attempt: int) -> Path:
    """Returns where the receipt of one attempt lies; ids that are no file names are percent-encoded."""
    return directory / f"{quote(query_id, safe='')}.{attempt}{_SUFFIX}"


def write_receipt(directory: Path, evaluation: Evaluation) -> Path:
    """Writes the evaluation so that it survives the loss of every process and of power.

    The file appears whole or not at all: written beside its name, flushed to the disk, renamed, and the
    directory flushed. A second receipt of the same attempt replaces the first.

    Raises:
        OSError: It could not be written (a full disk).
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = receipt_path(directory, evaluation.query_id, evaluation.attempt)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(evaluation_to_json(evaluation), stream, allow_nan=False)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(directory)
    return path


def read_receipt(directory: Path, query_id: str, attempt: int) -> Evaluation | None:
    """Returns the receipt of one attempt, or None if there is none."""
    return _read(receipt_path(directory, query_id, attempt))


def read_receipts(directory: Path) -> list[Evaluation]:
    """Returns every whole receipt, ordered by query and attempt.

    What a killed process left half-written is passed over: files that were never renamed, and files that
    are not an evaluation in JSON (a disk that lied about its flush).
    """
    if not directory.is_dir():
        return []
    found = [_read(path) for path in directory.iterdir() if path.suffix == _SUFFIX]
    receipts = [evaluation for evaluation in found if evaluation is not None]
    return sorted(receipts, key=lambda evaluation: (evaluation.query_id, evaluation.attempt))


def discard_receipt(directory: Path, evaluation: Evaluation) -> None:
    """Removes the receipt of an evaluation that the ledger now holds; nothing happens if there is none."""
    receipt_path(directory, evaluation.query_id, evaluation.attempt).unlink(missing_ok=True)


def _read(path: Path) -> Evaluation | None:
    try:
        return evaluation_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["discard_receipt", "read_receipt", "read_receipts", "receipt_path", "write_receipt"]
