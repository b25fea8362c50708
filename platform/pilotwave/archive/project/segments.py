"""A segment: the appended frames of one file, read while they may still be added to.

May import pyarrow, numpy and the archive's own modules.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pilotwave.archive.project import frames, schema
from pilotwave.archive.project.digests import Digests, DigestTable, Rows
from pilotwave.archive.project.errors import DamagedArchiveError
from pilotwave.archive.project.frames import Frame
from pilotwave.archive.project.manifest import SegmentEntry

SEGMENT_BYTES = 64 << 20
"""A segment that has grown to this is sealed and the next one begun."""
_KEPT_BYTES = 16 << 20
"""How many bytes of frames stay decoded."""


class Segment:
    """An open segment; frames whose index cannot be trusted are named in :attr:`damage` and left out.

    Attributes:
        entry: What the manifest says of it.
        end: Where the last whole frame ends.
        torn: Bytes after it that were never acknowledged.
        damage: Place and problem of what cannot be read.

    Raises:
        FileNotFoundError: There is no such file.
    """

    def __init__(self, archive: Path, entry: SegmentEntry) -> None:
        self.entry = entry
        self.path = archive / entry.names()[0]
        self.end = 0
        self.torn = 0
        self.damage: list[tuple[int, str]] = []
        self._frames: list[Frame] = []
        self._starts: list[int] = []
        self._ids, self._keys = DigestTable(), DigestTable()
        self._decoded: OrderedDict[int, pa.Table] = OrderedDict()
        self._decoded_bytes = 0
        # Read by calls and not mapped: the owner cuts a torn end off, and a mapped page that is gone kills.
        self._descriptor = os.open(self.path, os.O_RDONLY)
        self.refresh()

    @property
    def rows(self) -> int:
        """How many records."""
        return len(self._ids)

    def refresh(self) -> None:
        """Takes in the frames that were added since."""
        size = os.fstat(self._descriptor).st_size
        if size == self.end and size:
            return
        found = frames.scan(self._source, self.entry.number, self.end, size)
        self.damage += found.damage
        ids, keys = [], []
        for frame in found.frames:
            index = frames.read_index(self._source, frame)
            if index is None:
                self.damage.append((frame.offset, "the digests of a frame are damaged"))
                continue
            self._place(frame)
            ids.append(index[0])
            keys.append(index[1])
        if ids:
            self._ids.extend(np.concatenate(ids))
            self._keys.extend(np.concatenate(keys))
        self.end, self.torn = found.end, found.torn
        sealed = self.entry.sealed
        if sealed is not None and self.end != sealed:
            self.damage.append((self.end, f"expected {sealed} bytes, {self.end} can be read"))

    def close(self) -> None:
        """Lets go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def added(self, frame: Frame, ids: Digests, keys: Digests) -> None:
        """Takes in a frame that its owner has just written."""
        self._place(frame)
        self._ids.extend(ids)
        self._keys.extend(keys)
        self.end = frame.end

    def find_ids(self, digests: Digests) -> tuple[Rows, Rows]:
        """Returns positions in ``digests`` and the rows that may have these record ids."""
        return self._ids.find(digests)

    def find_keys(self, digests: Digests) -> tuple[Rows, Rows]:
        """Returns positions in ``digests`` and the rows that may answer these questions."""
        return self._keys.find(digests)

    def id_digests(self) -> Digests:
        """Returns the digest of every row's record id, in the order of the rows."""
        return self._ids.in_row_order()

    def read(self, columns: Sequence[str], rows: Rows | None = None) -> pa.Table:
        """Returns columns of the format that is written now.

        Args:
            columns: Their names.
            rows: Which, in this order; all by default.
        """
        names = list(columns)
        if rows is None:
            tables = [_copy(self._decode(place).select(names)) for place in range(len(self._frames))]
            return pa.concat_tables(tables) if tables else schema.schema().empty_table().select(names)
        places = np.searchsorted(np.array(self._starts), rows, side="right") - 1
        order = np.argsort(places, kind="stable")
        tables = []
        for place in np.unique(places).tolist():
            wanted = rows[order][places[order] == place] - self._starts[place]
            tables.append(self._decode(place).select(names).take(wanted))
        if not tables:
            return schema.schema().empty_table().select(names)
        return pa.concat_tables(tables).take(np.argsort(order, kind="stable"))

    def batches(self, *, skip_damaged: bool = False) -> Iterator[pa.Table]:
        """Yields all records with all columns, a frame at a time; ``skip_damaged`` leaves out what is damaged."""
        for place in range(len(self._frames)):
            try:
                yield self._decode(place)
            except DamagedArchiveError:
                if not skip_damaged:
                    raise

    def latents(self, rows: Rows, width: int, dtype: str) -> np.ndarray:
        """Returns latents of one size, shape (n, width) in numbers."""
        column = self.read(["latent"], rows).column(0).to_pylist()
        return np.frombuffer(b"".join(column), dtype).reshape(len(rows), width)

    def damaged_frames(self) -> Iterator[tuple[int, str]]:
        """Reads everything again; yields places and problems."""
        yield from self.damage
        for frame in self._frames:
            if frames.read_index(self._source, frame) is None:
                yield frame.offset, "the digests of a frame are damaged"
            if frames.read_body(self._source, frame) is None:
                yield frame.offset, f"the {frame.rows} records of a frame are damaged"

    def _place(self, frame: Frame) -> None:
        self._starts.append(self._starts[-1] + self._frames[-1].rows if self._frames else 0)
        self._frames.append(frame)

    def _source(self, start: int, stop: int) -> bytes:
        pieces, place = [], start
        while place < stop and (piece := os.pread(self._descriptor, stop - place, place)):
            pieces.append(piece)
            place += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _decode(self, place: int) -> pa.Table:
        if place in self._decoded:
            self._decoded.move_to_end(place)
            return self._decoded[place]
        frame = self._frames[place]
        body = frames.read_body(self._source, frame)
        if body is None:
            raise DamagedArchiveError(
                f"{self.path} is damaged in the frame at byte {frame.offset}; `pilotwave archive verify` lists all "
                "damage, `pilotwave archive compact --drop-damaged` goes on without it"
            )
        batch = pa.ipc.read_record_batch(pa.py_buffer(body), schema.SCHEMAS[self.entry.format])
        table = schema.upgraded(pa.Table.from_batches([batch]), self.entry.format)
        self._decoded[place] = table
        self._decoded_bytes += len(body)
        while len(self._decoded) > 1 and self._decoded_bytes > _KEPT_BYTES:
            oldest, _ = self._decoded.popitem(last=False)
            self._decoded_bytes -= self._frames[oldest].body_bytes
        return table


def _copy(table: pa.Table) -> pa.Table:
    """A few columns of a frame by themselves: as slices they would keep all of it in memory, latents and noise."""
    return table.take(np.arange(len(table)))


__all__ = ["SEGMENT_BYTES", "Segment"]
