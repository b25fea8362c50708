"""The project archive: every answer of every campaign in one folder, durable, findable and removable.

::

    with ProjectArchive.open(Path("runs/archive"), read_only=True) as archive:
        archive.table("value > 60 and oracle = 'xtb:polarizability'", ["record_id", "value"])

One process owns an archive and appends; any number may read it at the same time, and none of them ever sees half
a write. May import numpy, pyarrow and the archive's own modules.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilotwave.archive.project import filters, rewriting, schema
from pilotwave.archive.project.appending import Appender
from pilotwave.archive.project.contents import Contents
from pilotwave.archive.project.damage import Damage
from pilotwave.archive.project.errors import ArchiveError, DamagedArchiveError
from pilotwave.archive.project.files import storage_errors, sync_folder
from pilotwave.archive.project.keys import EvaluationKey
from pilotwave.archive.project.manifest import NAME, Manifest
from pilotwave.archive.project.neighbours import NeighbourIndexes
from pilotwave.archive.project.opening import Seen, foreign_files, hold, opened, sweep
from pilotwave.archive.project.promises import JOURNAL, Promise, RemovalReceipt, promised
from pilotwave.archive.project.record import AnswerRecord
from pilotwave.archive.project.statistics import statistics_of
from pilotwave.archive.project.verification import damage_of

LatentType = Literal["float16", "float32"]


class ProjectArchive:
    """An open archive; use :meth:`create` or :meth:`open`, and close it or use it as a context manager.

    Everything that reads raises :class:`DamagedArchiveError` rather than to go on with, or without, bytes that
    are not those that were written.

    Attributes:
        path: The archive's folder.
        read_only: Whether this process is one of its readers.
    """

    def __init__(self, path: Path, contents: Contents, seen: Seen | None, held: ExitStack) -> None:
        self.path = path
        self.read_only = seen is not None
        self._contents = contents
        self._seen = seen
        self._held = held
        self._indexes = NeighbourIndexes(path)
        self._appender = Appender(path)
        self._closed = False

    @classmethod
    def create(cls, path: Path, *, latents: LatentType = "float32") -> Self:
        """Makes an empty archive and opens it as its owner.

        Args:
            path: A folder; it must not hold anything.
            latents: How latents and noise sequences are kept, for good.

        Raises:
            ArchiveError: The folder holds something, or the type is unknown.
            StorageError: The folder cannot be written.
        """
        if latents not in get_args(LatentType):
            raise ArchiveError(f"expected latents {' or '.join(get_args(LatentType))}, got {latents!r}")
        if (path / NAME).exists():
            raise ArchiveError(f"{path} holds an archive already; open it, or choose another folder")
        if path.exists() and not path.is_dir():
            raise ArchiveError(f"{path} is a file and no folder; choose another place for the archive")
        if found := foreign_files(path):
            raise ArchiveError(f"{path} holds {found[0]} and no archive; choose another folder")
        with ExitStack() as stack:
            stack.callback(os.close, hold(path))
            with storage_errors(path):
                for folder in ("segments", "parts", "index", "journal", "receipts"):
                    (path / folder).mkdir(parents=True, exist_ok=True)
                sync_folder(path)
            if not (path / NAME).exists():
                Manifest(latents).store(path)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Opens an archive.

        An owner finishes what an earlier one promised, cuts off what was never acknowledged and deletes files
        that no longer belong to the archive.

        Raises:
            ArchiveError: There is none, it is of a newer version, or another process owns it.
            DamagedArchiveError: The manifest is damaged. Other damage is said when it is met.
            StorageError: It cannot be written.
        """
        if read_only:
            contents, seen = opened(path)
            return cls(path, contents, seen, ExitStack())
        Manifest.load(path)
        with ExitStack() as stack:
            stack.callback(os.close, hold(path))
            archive = cls(path, Contents(path, Manifest.load(path)), None, stack.pop_all())
        try:
            archive._take_over()
        except BaseException:
            archive._held.close()
            raise
        return archive

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Saves the indexes of an owner that have changed, and lets the next owner in."""
        if self._closed:
            return
        try:
            if not self.read_only:
                self._commit(self._indexes.save(self._contents.manifest))
        finally:
            self._closed = True
            self._contents.close()
            self._held.close()

    @property
    def latents(self) -> str:
        """How latents and noise sequences are kept, ``"float16"`` or ``"float32"``."""
        return self._contents.manifest.latents

    def __len__(self) -> int:
        return self._whole().rows

    def __contains__(self, record_id: object) -> bool:
        return isinstance(record_id, str) and int(self._locate([record_id])[0]) >= 0

    def append(self, records: Sequence[AnswerRecord]) -> list[str]:
        """Adds records; when this returns they are on the disk.

        Args:
            records: Those whose id is known already are left as they are.

        Returns:
            The ids that are new, in order.

        Raises:
            ArchiveError: It was opened to read, or a record cannot be stored; none was added.
            StorageError: They could not be written; none was added.
        """
        contents = self._owned()
        known = contents.locate([record.record_id for record in records]) >= 0
        fresh = {
            record.record_id: record for record, old in reversed(list(zip(records, known, strict=True))) if not old
        }
        ordered = list(reversed(fresh.values()))
        if ordered:
            self._contents = self._appender.append(contents, schema.table_of(ordered, self.latents))
        return [record.record_id for record in ordered]

    def get(self, record_id: str) -> AnswerRecord:
        """Returns one record.

        Raises:
            KeyError: It is not there.
        """
        return self.records([record_id])[0]

    def records(self, record_ids: Sequence[str]) -> list[AnswerRecord]:
        """Returns records in the order of their ids.

        Raises:
            KeyError: One is not there; it is named.
        """
        rows = self._locate(record_ids)
        if (rows < 0).any():
            raise KeyError(record_ids[int(np.argmax(rows < 0))])
        return self._records(rows)

    def table(self, where: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Returns records as columns, in the order in which they were added.

        Args:
            where: A condition in SQL over the columns, e.g. ``"value > 60 and status = 'ok'"``; all by default.
            columns: Their names; by default all but the heavy ones (``sample_blob``, ``latent``, ``noise``).

        Raises:
            ArchiveError: A column is not there, or the condition is no condition.
        """
        wanted = schema.light_columns() if columns is None else list(columns)
        if unknown := [name for name in wanted if name not in schema.schema().names]:
            expected = ", ".join(schema.schema().names)
            raise ArchiveError(f"there is no column {unknown[0]!r}; expected any of {expected}")
        contents = self._whole()
        rows = None if where is None else filters.matching_rows(where, contents.read)
        return contents.read(wanted, rows)

    def lookup(self, key: EvaluationKey) -> list[AnswerRecord]:
        """Returns the answers to exactly this question, in the order in which they were added.

        Args:
            key: The question; a fidelity of None matches any.
        """
        contents = self._whole()
        rows = contents.find_keys(np.array([key.digest()], np.uint64))
        return [
            record
            for record in self._records(rows)
            if (record.oracle, record.oracle_version, record.oracle_parameters, record.canonical)
            == (key.oracle, key.oracle_version, key.oracle_parameters, key.canonical)
            and key.fidelity in (None, record.fidelity)
        ]

    def neighbours(
        self, backbone: str, latents: npt.ArrayLike, k: int
    ) -> tuple[npt.NDArray[np.float64], list[list[str]]]:
        """Returns the records of a backbone whose latents are nearest.

        Args:
            backbone: Its fingerprint: latents of different models cannot be compared.
            latents: Array or tensor of shape (n, *latent_shape).
            k: How many neighbours each.

        Returns:
            Euclidean distances of shape (n, min(k, records of the backbone)), nearest first, exact, and the
            record ids in the same order.

        Raises:
            ArchiveError: The latents are of another size.
        """
        queries = np.asarray(latents, np.float32)
        if queries.ndim < 1 or k < 1:
            raise ArchiveError(f"expected latents of shape (n, *latent_shape) and k >= 1, got {queries.shape}, {k}")
        contents = self._whole()
        distances, rows = self._indexes.search(contents, backbone, queries.reshape(len(queries), -1), k)
        names = contents.read(["record_id"], rows.reshape(-1)).column(0).to_pylist()
        width = rows.shape[1]
        return distances, [names[place * width : (place + 1) * width] for place in range(len(queries))]

    def stats(self) -> dict[str, Any]:
        """Returns what it holds: JSON-compatible counts by campaign, oracle, contributor and status, and bytes."""
        return statistics_of(self._whole())

    def digest(self) -> str:
        """Returns the SHA-256 over all records, hex; how and in which order they came here does not matter."""
        column = self._whole().read(["digest"]).column(0).to_pylist()
        return hashlib.sha256(b"".join(sorted(column))).hexdigest()

    def verify(self) -> list[Damage]:
        """Reads every file and checks every frame, block and record; returns what is damaged."""
        return damage_of(self._now())

    def compact(self, *, drop_damaged: bool = False) -> None:
        """Merges segments and small parts into Parquet and memory-mapped latents.

        Args:
            drop_damaged: Go on without the records that cannot be read. Those of a run come back with
                ``pilotwave archive add RUN_DIR``.

        Raises:
            DamagedArchiveError: Something is damaged; nothing has changed.
        """
        contents = self._owned()
        if drop_damaged:
            self._commit(rewriting.salvaged(contents))
            self._finish_promises()
        self._commit(self._indexes.save(rewriting.compacted(self._contents)))

    def remove(self, record_ids: Sequence[str], *, reason: str) -> RemovalReceipt:
        """Takes records out of every file of the archive, for good.

        Once the promise is on the disk it will be kept: whatever happens, the next owner finishes it. The parts
        and segments that held a record are written anew without it, indexes as well. Records that had reused a
        removed answer say ``reused_from = 'removed'``.

        Args:
            record_ids: Those that are not there are counted.
            reason: One line for the receipt, which names no record.

        Raises:
            DamagedArchiveError: The archive is damaged; nothing was promised.
            StorageError: It could not be written; if the promise was, the next owner keeps it.
        """
        contents = self._owned()
        contents.check_whole()
        wanted = sorted(set(record_ids))
        present = int((contents.locate(wanted) >= 0).sum())
        return self._keep(Promise.make(self.path, wanted, reason, present, self.digest()))

    def _keep(self, promise: Promise) -> RemovalReceipt:
        contents = self._contents
        manifest = rewriting.without(contents, promise.record_ids)
        if manifest.contents != contents.manifest.contents or contents.manifest.indexes:
            gone = schema.id_digests(promise.record_ids)
            self._commit(self._indexes.forget(contents, gone, manifest))
        return promise.keep(self.path, self.digest())

    def _finish_promises(self) -> None:
        for path in promised(self.path):
            self._keep(Promise.load(path))

    def _take_over(self) -> None:
        """Brings what an earlier owner left behind in order."""
        with storage_errors(self.path):
            sweep(self.path, self._contents.manifest)
        self._appender.cut_torn_end(self._contents)
        try:
            self._finish_promises()
        except DamagedArchiveError:
            # The archive must open to be mended: compact(drop_damaged=True) keeps the promise, verify names it.
            return

    def _commit(self, manifest: Manifest) -> None:
        """Makes a manifest the archive's, and deletes what belonged only to the last one."""
        if manifest == self._contents.manifest:
            return
        manifest.store(self.path)
        self._contents = Contents(self.path, manifest, self._contents)
        with storage_errors(self.path):
            sweep(self.path, manifest)

    def _now(self) -> Contents:
        if self._closed:
            raise ArchiveError(f"{self.path}: the archive was closed; open it again")
        if self._seen is not None:
            self._contents, self._seen = opened(self.path, self._contents, self._seen)
        return self._contents

    def _whole(self) -> Contents:
        contents = self._now()
        contents.check_whole()
        return contents

    def _owned(self) -> Contents:
        if self.read_only:
            raise ArchiveError(f"{self.path} was opened to read; open it as its owner to change it")
        return self._now()

    def _locate(self, record_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        contents = self._now()
        rows = contents.locate(record_ids)
        if (rows < 0).any():
            contents.check_whole()  # "not there" may be said only if everything can be read
        return rows

    def _records(self, rows: npt.NDArray[np.int64]) -> list[AnswerRecord]:
        return schema.records_of(self._contents.read(schema.schema().names, rows), self.latents)

    def batches(self, size: int = 1024) -> Iterator[list[AnswerRecord]]:
        """Yields all records, so many at a time, in the order in which they were added."""
        contents = self._whole()
        for start in range(0, contents.rows, size):
            yield self._records(np.arange(start, min(start + size, contents.rows)))


__all__ = ["JOURNAL", "Damage", "LatentType", "ProjectArchive", "RemovalReceipt"]
