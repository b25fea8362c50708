"""The project archive: append, find, query and physically remove answers. May import the archive's own modules."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilotwave.archive.project import schema
from pilotwave.archive.project.errors import ArchiveError, DamagedArchiveError
from pilotwave.archive.project.frames import encode_frame, read_body, scan
from pilotwave.archive.project.keys import EvaluationKey
from pilotwave.archive.project.record import AnswerRecord

LatentType = Literal["float16", "float32"]


@dataclass(frozen=True)
class Damage:
    """Bytes that are not those that were written.

    Attributes:
        file: Relative to the archive.
        place: Where in it, e.g. ``"frame at byte 4096"``.
        problem: What is wrong, one line.
    """

    file: str
    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: {self.problem}"


@dataclass(frozen=True)
class RemovalReceipt:
    """What stays of a removal: no content and no names.

    Attributes:
        receipt_id: Names its file under ``receipts/``.
        reason: As it was given.
        removed: How many records were taken out.
        missing: How many of those asked for were not there.
        when: Seconds since the epoch, UTC.
        digest_before, digest_after: SHA-256 over the archive's records in canonical order, hex.
    """

    receipt_id: str
    reason: str
    removed: int
    missing: int
    when: float
    digest_before: str
    digest_after: str


class ProjectArchive:
    """An open archive; use :meth:`create` or :meth:`open`, and close it or use it as a context manager."""

    def __init__(self, path: Path, latents: str, lock: int | None) -> None:
        self.path = path
        self.latents = latents
        self._lock = lock
        self._file = path / "segments" / "00000001.seg"
        self._table = schema.schema().empty_table()
        self._read()

    @classmethod
    def create(cls, path: Path, *, latents: LatentType = "float32") -> Self:
        """Makes an empty archive and opens it as its owner."""
        if (path / "manifest.json").exists():
            raise ArchiveError(f"{path} holds an archive already; open it or choose another folder")
        (path / "segments").mkdir(parents=True, exist_ok=True)
        (path / "segments" / "00000001.seg").touch()
        (path / "manifest.json").write_text(json.dumps({"format": schema.FORMAT, "latents": latents}))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Opens an archive, as its one owner or as one of its readers."""
        if not (path / "manifest.json").exists():
            raise ArchiveError(f"{path}: no archive here; make one with: pilotwave archive add RUN_DIR")
        lock = None
        if not read_only:
            lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                raise ArchiveError(f"{path} is in use by another process; wait for it or open it to read") from None
        return cls(path, json.loads((path / "manifest.json").read_text())["latents"], lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets the next owner in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __len__(self) -> int:
        self._read()
        return int(self._table.num_rows)

    def __contains__(self, record_id: object) -> bool:
        self._read()
        return record_id in self._table.column("record_id").to_pylist()

    def append(self, records: Sequence[AnswerRecord]) -> list[str]:
        """Adds records that are new by their id; when it returns they are on the disk."""
        known, fresh = set(self._table.column("record_id").to_pylist()), []
        for record in records:
            if record.record_id not in known:
                known.add(record.record_id)
                fresh.append(record)
        if fresh:
            self._write(schema.table_of(fresh, self.latents))
        return [record.record_id for record in fresh]

    def get(self, record_id: str) -> AnswerRecord:
        """Returns one record; KeyError if it is not there."""
        self._read()
        names = self._table.column("record_id").to_pylist()
        if record_id not in names:
            raise KeyError(record_id)
        return schema.records_of(self._table.slice(names.index(record_id), 1), self.latents)[0]

    def lookup(self, key: EvaluationKey) -> list[AnswerRecord]:
        """Returns the answers to exactly this question, oldest first; a fidelity of None matches any."""
        self._read()
        return [
            record
            for record in schema.records_of(self._table, self.latents)
            if record.key() == key
            or (
                key.fidelity is None and record.key() == EvaluationKey(*_words(key), record.fidelity, key.canonical)
            )
        ]

    def table(self, where: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Returns the records for which a SQL condition holds; heavy columns only by name."""
        import duckdb

        self._read()
        table = self._table.select(list(columns or schema.light_columns()))
        if where is None:
            return table
        connection = duckdb.connect(config={"enable_external_access": "false"})
        light = self._table.select(schema.light_columns())
        numbers = light.append_column("__row", pa.array(range(light.num_rows), pa.int64()))
        found = connection.from_arrow(numbers).filter(where).project("__row").order("__row").to_arrow_table()
        return table.take(found.column(0))

    def neighbours(self, backbone: str, latents: Any, k: int) -> tuple[npt.NDArray[np.float64], list[list[str]]]:
        """Returns the k nearest records of a backbone by their latents, Euclidean."""
        self._read()
        records = [
            item
            for item in schema.records_of(self._table, self.latents)
            if item.backbone == backbone and item.latent is not None
        ]
        queries = np.asarray(latents, np.float64)
        queries = queries.reshape(len(queries), -1)
        if not records:
            return np.zeros((len(queries), 0)), [[] for _ in queries]
        stored = np.stack([item.latent.reshape(-1) for item in records if item.latent is not None])
        distances = np.linalg.norm(queries[:, None] - stored[None], axis=-1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        names = [[records[place].record_id for place in row] for row in order]
        return np.take_along_axis(distances, order, 1), names

    def stats(self) -> dict[str, Any]:
        """Returns what is in it."""
        return {"rows": len(self)}

    def verify(self) -> list[Damage]:
        """Checks every file; returns what is damaged."""
        return []

    def compact(self) -> None:
        """Makes it smaller and faster to read."""

    def digest(self) -> str:
        """Returns the SHA-256 over all records in canonical order, whatever their history."""
        import hashlib

        return hashlib.sha256(b"".join(sorted(self._table.column("digest").to_pylist()))).hexdigest()

    def remove(self, record_ids: Sequence[str], *, reason: str) -> RemovalReceipt:
        """Takes records out of every file."""
        import time

        before = self.digest()
        gone = set(record_ids)
        keep = [name not in gone for name in self._table.column("record_id").to_pylist()]
        kept = self._table.filter(pa.array(keep, pa.bool_()))
        removed = self._table.num_rows - kept.num_rows
        fresh = self._file.with_suffix(".new")
        fresh.write_bytes(b"")
        with fresh.open("wb") as file:
            if kept.num_rows:
                file.write(_frame(kept, 0))
            os.fsync(file.fileno())
        fresh.replace(self._file)
        self._read()
        return RemovalReceipt("0", reason, removed, len(gone) - removed, time.time(), before, self.digest())

    def _read(self) -> None:
        data = memoryview(self._file.read_bytes())
        tables = [schema.schema().empty_table()]
        for frame in scan(data, 1).frames:
            body = read_body(data, frame)
            if body is None:
                raise DamagedArchiveError(f"{self._file}: the frame at byte {frame.offset} is damaged")
            tables.append(pa.Table.from_batches([pa.ipc.read_record_batch(pa.py_buffer(body), schema.schema())]))
        self._table = pa.concat_tables(tables).combine_chunks()

    def _write(self, table: pa.Table) -> None:
        with self._file.open("ab") as file:
            file.write(_frame(table, file.tell()))
            file.flush()
            os.fsync(file.fileno())
        self._read()


def _frame(table: pa.Table, offset: int) -> bytes:
    batch = table.combine_chunks().to_batches()[0]
    ids = schema.id_digests(table.column("record_id").to_pylist())
    return encode_frame(1, offset, ids, schema.key_digests(table), batch.serialize().to_pybytes())


def _words(key: EvaluationKey) -> tuple[str, str, str]:
    return key.oracle, key.oracle_version, key.oracle_parameters


__all__ = ["Damage", "LatentType", "ProjectArchive", "RemovalReceipt"]
