"""Everything an archive holds at one moment, as one sequence of rows over its parts and segments.

May import pyarrow, numpy and the archive's own modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pilotwave.archive.project import schema
from pilotwave.archive.project.damage import Damage
from pilotwave.archive.project.digests import Digests, Rows
from pilotwave.archive.project.errors import DamagedArchiveError
from pilotwave.archive.project.manifest import Entry, Manifest, PartEntry, SegmentEntry
from pilotwave.archive.project.parts import Part
from pilotwave.archive.project.segments import Segment

Container = Part | Segment


class Contents:
    """Opens what a manifest names. What cannot be opened is in :meth:`damage` and left out.

    Args:
        archive: The archive's folder.
        manifest: What it consists of.
        earlier: An earlier moment, whose open files are taken over where nothing has changed.
    """

    def __init__(self, archive: Path, manifest: Manifest, earlier: Contents | None = None) -> None:
        self.archive = archive
        self.manifest = manifest
        self.containers: list[Container] = []
        self._unopened: list[Damage] = []
        kept = {(type(item.entry), item.entry.number): item for item in (earlier.containers if earlier else ())}
        for entry in manifest.contents:
            known = kept.get((type(entry), entry.number))
            if known is not None and known.entry == entry:
                self.containers.append(known)
                del kept[type(entry), entry.number]
                continue
            try:
                self.containers.append(_open(archive, entry, manifest.latents))
            except (DamagedArchiveError, OSError) as error:
                self._unopened.append(_unopened(entry, error))
        for left in kept.values():
            if isinstance(left, Segment):
                left.close()

    @property
    def rows(self) -> int:
        """How many records, of what can be read."""
        return sum(item.rows for item in self.containers)

    @property
    def live(self) -> Segment | None:
        """The segment that is appended to, or None."""
        last = self.containers[-1] if self.containers else None
        return last if isinstance(last, Segment) and last.entry.sealed is None else None

    def close(self) -> None:
        """Lets go of all files."""
        for item in self.containers:
            if isinstance(item, Segment):
                item.close()

    def refresh(self) -> None:
        """Takes in what was appended since."""
        if self.live is not None:
            self.live.refresh()

    def damage(self) -> list[Damage]:
        """Returns what is known to be damaged without reading everything."""
        found = list(self._unopened)
        for item in self.containers:
            if isinstance(item, Segment):
                found += [Damage(item.entry.names()[0], f"byte {place}", why) for place, why in item.damage]
        return found

    def check_whole(self) -> None:
        """Refuses to go on as if what cannot be read were not there.

        Raises:
            DamagedArchiveError: Something is damaged.
        """
        found = self.damage()
        if found:
            raise DamagedArchiveError(
                f"{self.archive} is damaged: {found[0]}; `pilotwave archive verify` lists all damage, "
                "`pilotwave archive compact --drop-damaged` goes on without it"
            )

    def starts(self) -> Rows:
        """Returns the row at which each container begins, and the number of rows: shape (containers + 1,)."""
        return np.cumsum([0, *(item.rows for item in self.containers)], dtype=np.int64)

    def locate(self, record_ids: Sequence[str]) -> Rows:
        """Returns the row of each record, -1 where there is none: shape (n,)."""
        found = np.full(len(record_ids), -1, np.int64)
        positions, rows = self._find(lambda item, wanted: item.find_ids(wanted), schema.id_digests(record_ids))
        if len(rows):
            # A short digest can be another name's: the name decides.
            names = self.read(["record_id"], rows).column(0).to_pylist()
            for position, row, name in zip(positions.tolist(), rows.tolist(), names, strict=True):
                if record_ids[position] == name:
                    found[position] = row
        return found

    def find_keys(self, digests: Digests) -> Rows:
        """Returns the rows that may answer any of these questions, in order."""
        return np.sort(self._find(lambda item, wanted: item.find_keys(wanted), digests)[1])

    def id_digests(self) -> Digests:
        """Returns the digest of every row's record id, shape (rows,)."""
        return np.concatenate([np.zeros(0, np.uint64), *(item.id_digests() for item in self.containers)])

    def rows_of_digests(self, digests: Digests) -> Rows:
        """Returns a row for each digest of a record id, -1 where there is none: shape (n,)."""
        found = np.full(len(digests), -1, np.int64)
        positions, rows = self._find(lambda item, wanted: item.find_ids(wanted), digests)
        found[positions] = rows
        return found

    def read(self, columns: Sequence[str], rows: Rows | None = None) -> pa.Table:
        """Returns columns.

        Args:
            columns: Their names.
            rows: Which rows, in this order; all by default.

        Raises:
            DamagedArchiveError: What was asked for is damaged.
        """
        empty = schema.schema().empty_table().select(list(columns))
        if rows is None:
            return pa.concat_tables([empty, *(item.read(columns) for item in self.containers)])
        tables, order = [empty], []
        for item, positions, local in self._by_container(rows):
            tables.append(item.read(columns, local))
            order.append(positions)
        if not order:
            return empty
        back = np.argsort(np.concatenate(order), kind="stable")
        return pa.concat_tables(tables).take(pa.array(back))

    def latents(self, rows: Rows, width: int) -> np.ndarray:
        """Returns latents of one size as numbers of the archive's type, shape (n, width)."""
        found = np.zeros((len(rows), width), np.dtype(self.manifest.latents))
        for item, positions, local in self._by_container(rows):
            if isinstance(item, Part):
                found[positions] = item.latents(local, width)
            else:
                found[positions] = item.latents(local, width, self.manifest.latents)
        return found

    def _by_container(self, rows: Rows) -> list[tuple[Container, Rows, Rows]]:
        """Splits rows into containers, positions in ``rows``, and rows of the container."""
        starts = self.starts()
        if len(rows) and (rows.min() < 0 or rows.max() >= starts[-1]):
            raise IndexError(f"expected rows below {starts[-1]}, got {rows.min()} to {rows.max()}")
        places = np.searchsorted(starts, rows, side="right") - 1
        found = []
        for place in np.unique(places).tolist():
            positions = np.nonzero(places == place)[0]
            found.append((self.containers[place], positions, rows[positions] - starts[place]))
        return found

    def _find(self, look: Callable[[Container, Digests], tuple[Rows, Rows]], wanted: Digests) -> tuple[Rows, Rows]:
        positions, rows, start = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        for item in self.containers:
            hits, local = look(item, wanted)
            positions.append(hits)
            rows.append(local + start)
            start += item.rows
        return np.concatenate(positions), np.concatenate(rows)


def _open(archive: Path, entry: Entry, latents: str) -> Container:
    if isinstance(entry, SegmentEntry):
        return Segment(archive, entry)
    return Part(archive, entry, latents)


def _unopened(entry: Entry, error: Exception) -> Damage:
    path = error.path if isinstance(error, DamagedArchiveError) else Path(str(getattr(error, "filename", "")))
    name = entry.names()[0]
    if path is not None:
        name = (Path(name).parent / path.name).as_posix()
    what = f"{entry.rows} records are out of reach" if isinstance(entry, PartEntry) else "records are out of reach"
    if isinstance(error, FileNotFoundError):
        return Damage(name, "the whole file", f"it is missing, {what}")
    if isinstance(error, OSError):
        return Damage(name, "the whole file", f"it cannot be read ({error.strerror or error}), {what}")
    return Damage(name, "the file as a whole", f"it is not as it was written, {what}")


__all__ = ["Container", "Contents"]
