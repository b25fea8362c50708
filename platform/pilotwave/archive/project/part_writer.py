"""Writes compacted parts: records go in as tables, files and an entry for the manifest come out.

Nothing that it writes belongs to the archive until a manifest names it. May import pyarrow, numpy and the
archive's own modules.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilotwave.archive.project import schema
from pilotwave.archive.project.blocks import BlockWriter
from pilotwave.archive.project.files import write_durably
from pilotwave.archive.project.manifest import PART_FILES, PartEntry
from pilotwave.archive.project.parts import PAYLOADS, stored_schema

PART_ROWS = 1 << 17
"""How many records a part holds at most."""
GROUP_ROWS = 1 << 13
"""How many records share a row group of the Parquet file at most."""
GROUP_BYTES = 32 << 20
"""A row group is closed once its samples take so much."""


class PartWriter:
    """A part that is being written.

    Args:
        archive: The archive's folder.
        number: Of the part; its files must not exist.
    """

    def __init__(self, archive: Path, number: int) -> None:
        stem = archive / "parts" / f"{number:08d}"
        stem.parent.mkdir(exist_ok=True)
        self.number = number
        self.rows = 0
        self._stem = stem
        self._files = {kind: BlockWriter(stem.with_suffix(f".{kind}")) for kind in PART_FILES}
        self._columns = stored_schema(schema.FORMAT)
        # Dictionaries pay where words repeat; ids, hashes and samples hardly ever do.
        unlike = {"record_id", "query_id", "content", "identity", "canonical", "sample_blob", "digest"}
        self._parquet = pq.ParquetWriter(
            self._files["parquet"],
            self._columns,
            compression="zstd",
            use_dictionary=[item.name for item in self._columns if item.name not in unlike],
        )
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._ids: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []

    def add(self, table: pa.Table) -> None:
        """Takes records with all columns of the format that is written now."""
        if not table.num_rows:
            return
        self._ids.append(schema.id_digests(table.column("record_id").to_pylist()))
        self._keys.append(schema.key_digests(table))
        self.rows += table.num_rows
        light = table
        for name in PAYLOADS:
            offsets = self._write_payload(name, table.column(name))
            place = light.column_names.index(name)
            light = light.set_column(place, f"{name}_offset", offsets)
        self._waiting.append(light.cast(self._columns))
        self._waiting_rows += light.num_rows
        self._waiting_bytes += light.column("sample_blob").nbytes
        if self._waiting_rows >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
            self._write_group()

    def finish(self) -> PartEntry:
        """Waits until all files are on the disk; returns the part's entry for a manifest."""
        if self._waiting:
            self._write_group()
        self._parquet.close()
        for digests in (self._ids, self._keys):
            column = np.concatenate(digests)
            order = np.argsort(column, kind="stable")
            self._files["keys"].write(column[order].astype("<u8").tobytes())
            self._files["keys"].write(order.astype("<u4").tobytes())
        sums = b"".join(self._files[kind].finish() for kind in PART_FILES)
        write_durably(self._stem.with_suffix(".sums"), sums)
        sizes = {kind: file.size for kind, file in self._files.items()}
        return PartEntry(self.number, schema.FORMAT, self.rows, sizes, hashlib.sha256(sums).hexdigest())

    def abandon(self) -> None:
        """Lets go of the files and deletes them."""
        for kind, file in self._files.items():
            file.close()
            self._stem.with_suffix(f".{kind}").unlink(missing_ok=True)

    def _write_payload(self, name: str, column: pa.ChunkedArray) -> pa.Array:
        file, offsets = self._files[PAYLOADS[name]], []
        for value in column:
            data = value.as_buffer()
            offsets.append(None if data is None else file.size)
            if data is not None:
                file.write(data)
        return pa.array(offsets, pa.int64())

    def _write_group(self) -> None:
        table = pa.concat_tables(self._waiting).combine_chunks()
        for start in range(0, table.num_rows, GROUP_ROWS):
            piece = table.slice(start, GROUP_ROWS)
            self._parquet.write_table(piece, row_group_size=GROUP_ROWS)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0


__all__ = ["GROUP_ROWS", "PART_ROWS", "PartWriter"]
