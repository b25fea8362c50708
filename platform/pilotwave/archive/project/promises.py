"""Removals that were promised, and the receipts of those that are done.

A promise is written, and on the disk, before anything is removed, so that whoever owns the archive next finishes
it. It names the records, and is deleted once they are gone; a receipt names none. May import the archive's own
modules.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pilotwave.archive.project.errors import DamagedArchiveError
from pilotwave.archive.project.files import (
    delete,
    read_document,
    replace_durably,
    storage_errors,
    sync_folder,
    to_document,
)

JOURNAL = "journal"
RECEIPTS = "receipts"


@dataclass(frozen=True)
class RemovalReceipt:
    """What stays of a removal: no content and no names.

    Attributes:
        receipt_id: Names its file, ``receipts/<receipt_id>.json``.
        reason: As it was given.
        removed: How many records were taken out.
        missing: How many of those asked for were not there.
        when: Of the promise, in seconds since the epoch, UTC.
        digest_before, digest_after: SHA-256 over the archive's records in canonical order, hex.
    """

    receipt_id: str
    reason: str
    removed: int
    missing: int
    when: float
    digest_before: str
    digest_after: str

    def store(self, archive: Path) -> None:
        """Writes it down."""
        folder = archive / RECEIPTS
        with storage_errors(folder):
            folder.mkdir(exist_ok=True)
            replace_durably(folder / f"{self.receipt_id}.json", to_document(asdict(self)))


@dataclass(frozen=True)
class Promise:
    """A removal that will happen, whatever happens.

    Attributes:
        receipt_id: Of the receipt to come; names the promise, too.
        record_ids: What is to be removed.
        reason: As it was given.
        present: How many of the records were there.
        when: Seconds since the epoch, UTC.
        digest_before: Of the archive at that moment.
    """

    receipt_id: str
    record_ids: tuple[str, ...]
    reason: str
    present: int
    when: float
    digest_before: str

    @classmethod
    def make(
        cls, archive: Path, record_ids: Collection[str], reason: str, present: int, digest_before: str
    ) -> Self:
        """Promises a removal; when this returns it will be done.

        Raises:
            StorageError: The promise could not be written, and was not made.
        """
        now = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        name = f"{stamp}-{secrets.token_hex(4)}"
        promise = cls(name, tuple(sorted(record_ids)), reason, present, now, digest_before)
        with storage_errors(archive / JOURNAL):
            (archive / JOURNAL).mkdir(exist_ok=True)
            replace_durably(promise.path(archive), to_document(asdict(promise)))
        return promise

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a promise back.

        Raises:
            DamagedArchiveError: It is damaged, so nobody knows what was promised.
        """
        fields: Mapping[str, Any] = read_document(path)
        try:
            return cls(**{**fields, "record_ids": tuple(fields["record_ids"])})
        except (KeyError, TypeError) as error:
            raise DamagedArchiveError(f"{path} is no promise of a removal: {error!r}") from error

    def path(self, archive: Path) -> Path:
        """Returns the file that holds it."""
        return archive / JOURNAL / f"{self.receipt_id}.json"

    def keep(self, archive: Path, digest_after: str) -> RemovalReceipt:
        """Signs the removal off: the receipt is written, then the names are deleted."""
        receipt = RemovalReceipt(
            receipt_id=self.receipt_id,
            reason=self.reason,
            removed=self.present,
            missing=len(self.record_ids) - self.present,
            when=self.when,
            digest_before=self.digest_before,
            digest_after=digest_after,
        )
        receipt.store(archive)
        with storage_errors(archive / JOURNAL):
            delete(self.path(archive))
            sync_folder(archive / JOURNAL)
        return receipt


def promised(archive: Path) -> list[Path]:
    """Returns the files of all promises that are not kept yet, oldest first."""
    return sorted((archive / JOURNAL).glob("[0-9]*.json"))


__all__ = ["JOURNAL", "RECEIPTS", "Promise", "RemovalReceipt", "promised"]
