"""The receipt of a forgetting: that it was done, when, how much, and digests before and after; no content.

May import the standard library, :mod:`pilotwave.storage` and :mod:`pilotwave.forgetting.promise`.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pilotwave.errors import RunDirectoryError
from pilotwave.forgetting.promise import FOLDER
from pilotwave.storage import write_atomically


@dataclass(frozen=True)
class ForgettingReceipt:
    """What remains of a forgetting.

    Attributes:
        receipt: Its name.
        kind: Of the request: query, contributor, where, or corrective.
        promised, finished: UTC, ISO 8601.
        records: How many records went; paid-for queries among them stay spent.
        queries: How many those are.
        hashed_ids: Salted hashes of the ids; the salt was told to whoever asked and is stored nowhere.
        files: From each changed file to its SHA-256 before and after, None where there was or is no such file.
        state: SHA-256 of what the ledger says now.
        archive: The project archive's receipt: its digests before and after; None without one.
        collect_garbage: Whether an operator still has to run ``mlflow gc`` on the tracking server.
        signed_by: User and machine.
    """

    receipt: str
    kind: str
    promised: str
    finished: str
    records: int
    queries: int
    hashed_ids: tuple[str, ...]
    files: Mapping[str, tuple[str | None, str | None]]
    state: str
    archive: Mapping[str, Any] | None
    collect_garbage: bool
    signed_by: str

    def to_json(self) -> dict[str, Any]:
        """Returns it with a digest over all of it, under ``"signature"``."""
        fields = json.loads(json.dumps(asdict(self)))
        return {**fields, "signature": _signature(fields)}


def signer() -> str:
    """Returns who signs: user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def write_receipt(folder: Path, receipt: ForgettingReceipt) -> Path:
    """Writes a receipt into a run directory; returns where."""
    path = folder / FOLDER / f"{receipt.receipt}.json"
    write_atomically(path, (json.dumps(receipt.to_json(), indent=2) + "\n").encode())
    return path


def check_receipt(path: Path) -> dict[str, Any]:
    """Reads a receipt.

    Raises:
        RunDirectoryError: It is missing, or was changed after it was signed.
    """
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        signature = fields.pop("signature")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise RunDirectoryError(f"{path}: expected a receipt of a forgetting, got {error}") from error
    if signature != _signature(fields):
        raise RunDirectoryError(f"{path}: the receipt was changed after it was signed")
    return fields


def file_digest(path: Path) -> str | None:
    """Returns the SHA-256 of a file, or None if there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        return None


def _signature(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


__all__ = ["ForgettingReceipt", "check_receipt", "file_digest", "signer", "write_receipt"]
