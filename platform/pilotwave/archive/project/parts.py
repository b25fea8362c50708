"""A compacted part: columns as Parquet, latents and noise as raw memory-mapped bytes, digests for finding.

::

    parts/NNNNNNNN.parquet   all columns but latents and noise, and where those begin in their files
    parts/NNNNNNNN.latents   the bytes of all latents, in the order of the rows
    parts/NNNNNNNN.noise     the same for the noise sequences
    parts/NNNNNNNN.keys      digests of record ids, sorted, and their rows; the same for the questions
    parts/NNNNNNNN.sums      SHA-256 of every 64 KiB of the four

May import pyarrow, numpy and the archive's own modules.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilotwave.archive.project import schema
from pilotwave.archive.project.blocks import CheckedFile, block_count
from pilotwave.archive.project.digests import Digests, Rows, find_sorted, in_row_order
from pilotwave.archive.project.errors import DamagedArchiveError
from pilotwave.archive.project.manifest import PART_FILES, PartEntry

PAYLOADS = {"latent": "latents", "noise": "noise"}
"""Columns that lie in files of their own."""
SLICE = 512
"""How many records with all their bytes are in memory at once."""


class Part:
    """An open part. Nothing of it is handed out unverified.

    Args:
        archive: The archive's folder.
        entry: What the manifest says of it.
        latents: The type of latents and noise.
        find: False to open it although its digests are damaged.

    Raises:
        FileNotFoundError: A file of it is missing.
        DamagedArchiveError: A file has another size than it should, or the checksums or digests are damaged.
    """

    def __init__(self, archive: Path, entry: PartEntry, latents: str, *, find: bool = True) -> None:
        self.entry = entry
        self.rows = entry.rows
        self.archive = archive
        self._dtype = np.dtype(latents)
        self._files = self._open_files()
        self._parquet: pq.ParquetFile | None = None
        self._offsets: dict[str, np.ndarray] = {}
        if find:
            self._ids, self._id_rows, self._keys, self._key_rows = self._read_digests()

    def find_ids(self, digests: Digests) -> tuple[Rows, Rows]:
        """Returns positions in ``digests`` and the rows that may have these record ids."""
        return find_sorted(self._ids, self._id_rows, digests)

    def find_keys(self, digests: Digests) -> tuple[Rows, Rows]:
        """Returns positions in ``digests`` and the rows that may answer these questions."""
        return find_sorted(self._keys, self._key_rows, digests)

    def id_digests(self) -> Digests:
        """Returns the digest of every row's record id, in the order of the rows."""
        return in_row_order(self._ids, self._id_rows)

    def read(self, columns: Sequence[str], rows: Rows | None = None) -> pa.Table:
        """Returns columns of the format that is written now.

        Args:
            columns: Their names.
            rows: Which, in this order; all by default.
        """
        if rows is None:
            tables = [self._columns(group, columns) for group in range(self._groups())]
            return pa.concat_tables(tables) if tables else schema.schema().empty_table().select(list(columns))
        order = np.argsort(rows, kind="stable")
        wanted, starts = rows[order], self._group_starts()
        tables = []
        for group in np.unique(np.searchsorted(starts, wanted, side="right") - 1).tolist():
            inside = wanted[(wanted >= starts[group]) & (wanted < starts[group + 1])] - starts[group]
            tables.append(self._columns(group, columns, inside))
        if not tables:
            return schema.schema().empty_table().select(list(columns))
        return pa.concat_tables(tables).take(pa.array(np.argsort(order, kind="stable")))

    def batches(self, *, skip_damaged: bool = False) -> Iterator[pa.Table]:
        """Yields all records with all columns, a few hundred at a time.

        Args:
            skip_damaged: Leave out what cannot be read instead of raising.
        """
        try:
            groups = self._groups()
        except DamagedArchiveError:
            if skip_damaged:
                return
            raise
        for group in range(groups):
            try:
                light = self._stored(group, _stored_names(schema.SCHEMAS[self.entry.format].names))
            except DamagedArchiveError:
                if skip_damaged:
                    continue
                raise
            for start in range(0, light.num_rows, SLICE):
                piece = light.slice(start, SLICE)
                try:
                    yield self._upgraded(self._with_payloads(piece, tuple(PAYLOADS)))
                except DamagedArchiveError:
                    if not skip_damaged:
                        raise
                    for row in range(piece.num_rows):
                        try:
                            yield self._upgraded(self._with_payloads(piece.slice(row, 1), tuple(PAYLOADS)))
                        except DamagedArchiveError:
                            continue

    def latents(self, rows: Rows, width: int) -> np.ndarray:
        """Returns latents of one size as they lie in the memory-mapped file, shape (n, width) in numbers."""
        offsets = self._latent_offsets()[rows]
        raw = self._files["latents"].gather(offsets, width * self._dtype.itemsize)
        return np.ascontiguousarray(raw).view(self._dtype).reshape(len(rows), width)

    def damaged_blocks(self) -> Iterator[tuple[str, int]]:
        """Reads everything again; yields files and places that are damaged."""
        for kind, file in self._files.items():
            for start in file.damaged_blocks():
                yield f"parts/{self.entry.number:08d}.{kind}", start

    def _open_files(self) -> dict[str, CheckedFile]:
        stem = self.archive / "parts" / f"{self.entry.number:08d}"
        path = stem.with_suffix(".sums")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.entry.sums:
            raise DamagedArchiveError(f"{path} is damaged: the checksums of a part do not hold", path)
        sums = np.frombuffer(data, np.uint8).reshape(-1, 32)
        files, start = {}, 0
        for kind in PART_FILES:
            size = self.entry.sizes[kind]
            stop = start + block_count(size)
            files[kind] = CheckedFile(stem.with_suffix(f".{kind}"), size, sums[start:stop])
            start = stop
        return files

    def _read_digests(self) -> tuple[Digests, Any, Digests, Any]:
        data, n = self._files["keys"].read(0, 24 * self.rows), self.rows
        ids, id_rows = np.frombuffer(data, "<u8", n), np.frombuffer(data, "<u4", n, 8 * n)
        keys, key_rows = np.frombuffer(data, "<u8", n, 12 * n), np.frombuffer(data, "<u4", n, 20 * n)
        return ids, id_rows, keys, key_rows

    def _file(self) -> pq.ParquetFile:
        if self._parquet is None:
            self._parquet = pq.ParquetFile(pa.PythonFile(self._files["parquet"].reader(), mode="r"))
        return self._parquet

    def _groups(self) -> int:
        return int(self._file().num_row_groups)

    def _group_starts(self) -> np.ndarray:
        meta = self._file().metadata
        return np.cumsum([0, *(meta.row_group(group).num_rows for group in range(self._groups()))])

    def _stored(self, group: int, names: Sequence[str]) -> pa.Table:
        return self._file().read_row_group(group, columns=list(names), use_threads=False)

    def _columns(self, group: int, columns: Sequence[str], rows: Rows | None = None) -> pa.Table:
        everything = self.entry.format != schema.FORMAT
        wanted = schema.SCHEMAS[self.entry.format].names if everything else list(columns)
        table = self._stored(group, _stored_names(wanted))
        if rows is not None:
            table = table.take(pa.array(rows))
        table = self._with_payloads(table, [name for name in wanted if name in PAYLOADS])
        return (self._upgraded(table) if everything else table).select(list(columns))

    def _upgraded(self, table: pa.Table) -> pa.Table:
        return schema.upgraded(table.select(schema.SCHEMAS[self.entry.format].names), self.entry.format)

    def _with_payloads(self, table: pa.Table, names: Sequence[str]) -> pa.Table:
        for name in names:
            offsets = table.column(f"{name}_offset").to_pylist()
            shapes = table.column(f"{name}_shape").to_pylist()
            sizes = [0 if shape is None else math.prod(shape) * self._dtype.itemsize for shape in shapes]
            file = self._files[PAYLOADS[name]]
            pieces = [
                None if offset is None else file.read(offset, offset + size)
                for offset, size in zip(offsets, sizes, strict=True)
            ]
            table = table.append_column(name, pa.array(pieces, pa.large_binary()))
        return table

    def _latent_offsets(self) -> np.ndarray:
        if "latent" not in self._offsets:
            tables = [self._stored(group, ["latent_offset"]) for group in range(self._groups())]
            column = pa.concat_tables(tables).column(0) if tables else pa.chunked_array([], pa.int64())
            self._offsets["latent"] = column.fill_null(-1).to_numpy()
        return self._offsets["latent"]


def stored_schema(format: int) -> pa.Schema:
    """Returns the columns of a part's Parquet file: payloads are replaced by where they begin."""
    return pa.schema(
        [
            pa.field(f"{item.name}_offset", pa.int64()) if item.name in PAYLOADS else item
            for item in schema.SCHEMAS[format]
        ]
    )


def _stored_names(names: Sequence[str]) -> list[str]:
    needed: list[str] = []
    for name in names:
        needed += [f"{name}_offset", f"{name}_shape"] if name in PAYLOADS else [name]
    return list(dict.fromkeys(needed))


__all__ = ["PAYLOADS", "SLICE", "Part", "stored_schema"]
