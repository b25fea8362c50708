"""Receipts: an answer on disk before anybody is told of it, so that a killed driver never pays twice.

The process that asked the oracle writes ``<query_id>.<attempt>.json`` durably and only then acknowledges.
On resume the driver adopts the receipts that its ledger does not know, and discards each once the ledger
holds it. Workers that outlive a driver ask for it only while no newer one has begun (:class:`Asker`).
May import :mod:`pilotwave.archive.records` and the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pilotwave.archive.records import evaluation_from_json, evaluation_to_json
from pilotwave.types import Evaluation

_SUFFIX = ".json"
_LOCK = ".lock"
_DRIVER = ".driver"


@dataclass(frozen=True)
class Asker:
    """On whose behalf a worker asks that is not the driver's own and may outlive it.

    Attributes:
        receipts: Of the run.
        driver: Which driver of the run, see :func:`newest_driver`.
    """

    receipts: Path
    driver: str

    @contextlib.contextmanager
    def asking(self) -> Iterator[bool]:
        """Around one question: marks that a receipt may come, and says whether the question may be asked at all.

        It may not if a newer driver has begun: that one has taken up the run's questions and asks them itself. A
        newer driver names itself first and waits for the mark to go second, so no question falls between.
        """
        handle = hold(self.receipts)
        try:
            yield newest_driver(self.receipts) == self.driver
        finally:
            os.close(handle)


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


def hold(directory: Path) -> int:
    """Marks this process as one that may still leave receipts here, for as long as it lives.

    Returns:
        The descriptor of the lock; closing it, or dying, ends the mark.
    """
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def newest_driver(directory: Path) -> str:
    """Returns the mark of the driver that began last here, an empty text if none did."""
    try:
        return (directory / _DRIVER).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def wait_until_quiet(directory: Path, seconds: float) -> bool:
    """Becomes the newest driver, then waits until no process holds the directory.

    From the first on, nothing is asked any more that an earlier driver left with workers of others; after the
    second, the answers of its oracles are all in.

    Returns:
        False if some process held it all the time.
    """
    mark = directory / f"{_DRIVER}.{secrets.token_hex(4)}"
    mark.write_text(secrets.token_hex(8), encoding="utf-8")
    mark.replace(directory / _DRIVER)
    deadline = time.monotonic() + seconds
    handle = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
    finally:
        os.close(handle)


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


__all__ = [
    "Asker",
    "discard_receipt",
    "hold",
    "newest_driver",
    "read_receipt",
    "read_receipts",
    "receipt_path",
    "wait_until_quiet",
    "write_receipt",
]
