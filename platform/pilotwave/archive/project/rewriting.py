"""Writes records anew: what compaction merges, and what a removal leaves.

Everything is written under new names; the caller commits it with a manifest. May import pyarrow and the archive's
own modules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilotwave.archive.project import part_writer, schema
from pilotwave.archive.project.contents import Container, Contents
from pilotwave.archive.project.errors import DamagedArchiveError
from pilotwave.archive.project.files import storage_errors, sync_folder
from pilotwave.archive.project.manifest import Entry, Manifest, PartEntry
from pilotwave.archive.project.part_writer import PartWriter
from pilotwave.archive.project.parts import SLICE, Part
from pilotwave.archive.project.segments import Segment
from pilotwave.errors import StorageError

REMOVED = "removed"
"""What ``reused_from`` says once the record it named was removed."""

Change = Callable[[pa.Table], pa.Table]


def compacted(contents: Contents) -> Manifest:
    """Merges neighbouring segments and small parts into parts.

    Raises:
        DamagedArchiveError: Something of them is damaged; nothing has changed.
        StorageError: It could not be written; nothing has changed.
    """
    contents.check_whole()
    runs: list[list[Container]] = []
    entries: list[Entry | int] = []
    for item in contents.containers:
        if isinstance(item, Part) and item.rows >= part_writer.PART_ROWS // 2:
            entries.append(item.entry)
        elif entries and isinstance(entries[-1], int):
            runs[entries[-1]].append(item)
        else:
            entries.append(len(runs))
            runs.append([item])
    # A part that stands alone is as compact as it gets.
    alone = [len(run) == 1 and isinstance(run[0], Part) for run in runs]
    writer = _Writer(contents)
    made: list[Entry] = []
    for entry in entries:
        if not isinstance(entry, int):
            made.append(entry)
        elif alone[entry]:
            made.append(runs[entry][0].entry)
        else:
            made += writer.write(piece for item in runs[entry] for piece in item.batches())
    return writer.manifest(made)


def salvaged(contents: Contents) -> Manifest:
    """Writes what can be read of everything that is damaged anew, and leaves the damage out."""
    opened = {(type(item.entry), item.entry.number): item for item in contents.containers}
    writer = _Writer(contents)
    made: list[Entry] = []
    for entry in contents.manifest.contents:
        item = opened.get((type(entry), entry.number)) or _open_damaged(contents, entry)
        if item is None:
            continue
        if _is_whole(item):
            made.append(entry)
        else:
            made += writer.write(item.batches(skip_damaged=True))
    return writer.manifest(made)


def without(contents: Contents, record_ids: Collection[str]) -> Manifest:
    """Writes the parts and segments anew that hold, or refer to, any of these records.

    Raises:
        DamagedArchiveError: Something is damaged; nothing has changed.
        StorageError: It could not be written; nothing has changed.
    """
    contents.check_whole()
    gone = frozenset(record_ids)
    found = contents.locate(sorted(record_ids))
    places = np.searchsorted(contents.starts(), found[found >= 0], side="right") - 1
    touched = set(places.tolist())
    writer = _Writer(contents)
    made: list[Entry] = []
    for place, item in enumerate(contents.containers):
        if place in touched or _sources(item.read(["reused_from"])) & gone:
            made += writer.write(_without(piece, gone) for piece in item.batches())
        else:
            made.append(item.entry)
    return writer.manifest(made)


class _Writer:
    """Writes parts with numbers that no file had before."""

    def __init__(self, contents: Contents) -> None:
        self._archive = contents.archive
        self._manifest = contents.manifest
        self._next = contents.manifest.next_number

    def write(self, tables: Iterator[pa.Table]) -> list[PartEntry]:
        """Writes records into as many parts as they need, none if there are none."""
        with storage_errors(self._archive / "parts"):
            return self._written(tables)

    def _written(self, tables: Iterator[pa.Table]) -> list[PartEntry]:
        made: list[PartEntry] = []
        part: PartWriter | None = None
        try:
            for table in _gathered(tables):
                start = 0
                while start < table.num_rows:
                    if part is None:
                        part = PartWriter(self._archive, self._next)
                        self._next += 1
                    piece = table.slice(start, part_writer.PART_ROWS - part.rows)
                    part.add(piece)
                    start += piece.num_rows
                    if part.rows >= part_writer.PART_ROWS:
                        made.append(part.finish())
                        part = None
            if part is not None:
                made.append(part.finish())
                part = None
        finally:
            if part is not None:
                part.abandon()
        if made:
            sync_folder(self._archive / "parts")
        return made

    def manifest(self, contents: Sequence[Entry]) -> Manifest:
        """Returns the manifest that commits what was written."""
        return self._manifest.changed(contents=tuple(contents), next_number=self._next)


def _gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Puts small tables together: frames of one record would take longer one by one."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        if rows >= SLICE:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _without(table: pa.Table, gone: frozenset[str]) -> pa.Table:
    names = pa.array(sorted(gone), pa.string())
    kept = table.filter(pc.invert(pc.is_in(table.column("record_id"), names)))
    if not _sources(kept) & gone:
        return kept
    told = [_without_words(text, gone) for text in kept.column("reused_from").to_pylist()]
    kept = _with_column(kept, "reused_from", pa.array(told, pa.string()))
    return _with_column(kept, "digest", pa.array([schema.row_digest(row) for row in schema.rows_of(kept)]))


def _sources(table: pa.Table) -> set[str]:
    """Returns the records whose answers were used; one row may name several, with spaces between."""
    texts = pc.unique(table.column("reused_from").drop_null()).to_pylist()
    return {word for text in texts for word in text.split(" ")}


def _without_words(text: str | None, gone: frozenset[str]) -> str | None:
    return None if text is None else " ".join(REMOVED if word in gone else word for word in text.split(" "))


def _with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(place), column.cast(table.schema.field(place).type))


def _open_damaged(contents: Contents, entry: Entry) -> Container | None:
    try:
        if isinstance(entry, PartEntry):
            return Part(contents.archive, entry, contents.manifest.latents, find=False)
        return Segment(contents.archive, entry)
    except (DamagedArchiveError, FileNotFoundError):
        return None
    except OSError as error:
        # Out of reach is not damaged: it may be there again tomorrow.
        raise StorageError(f"{entry.names()[0]} cannot be read: {error.strerror}; nothing was dropped") from error


def _is_whole(item: Container) -> bool:
    found = item.damaged_blocks() if isinstance(item, Part) else item.damaged_frames()
    return next(iter(found), None) is None


__all__ = ["REMOVED", "compacted", "salvaged", "without"]
