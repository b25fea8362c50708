"""Adds frames to the live segment of an archive. May import pyarrow and the archive's own modules."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from pilotwave.archive.project import schema, segments
from pilotwave.archive.project.contents import Contents
from pilotwave.archive.project.files import storage_errors, sync_folder, write_all, write_durably
from pilotwave.archive.project.frames import encode_frame, frame_of
from pilotwave.archive.project.manifest import Entry, SegmentEntry
from pilotwave.archive.project.segments import Segment


class Appender:
    """Writes to an archive that this process owns.

    Args:
        archive: Its folder.
    """

    def __init__(self, archive: Path) -> None:
        self._archive = archive

    def append(self, contents: Contents, table: pa.Table) -> Contents:
        """Writes records as one frame and waits until it is on the disk.

        Args:
            contents: Of the archive.
            table: All columns of the format that is written now; at least one row.

        Returns:
            The contents with the records.

        Raises:
            StorageError: They could not be written; none of them is in the archive.
        """
        contents = self._with_live_segment(contents)
        live = contents.live
        assert live is not None
        ids, keys = schema.id_digests(table.column("record_id").to_pylist()), schema.key_digests(table)
        body = table.combine_chunks().to_batches()[0].serialize().to_pybytes()
        data = encode_frame(live.entry.number, live.end, ids, keys, body)
        with storage_errors(live.path):
            descriptor = os.open(live.path, os.O_WRONLY)
            try:
                os.lseek(descriptor, live.end, os.SEEK_SET)
                write_all(descriptor, data)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, live.end)
                raise
            finally:
                os.close(descriptor)
        live.added(frame_of(data, live.entry.number, live.end), ids, keys)
        return contents

    def cut_torn_end(self, contents: Contents) -> None:
        """Cuts off what a killed owner had begun to write and never acknowledged."""
        live = contents.live
        if live is None or not live.torn:
            return
        with storage_errors(live.path):
            descriptor = os.open(live.path, os.O_WRONLY)
            try:
                os.ftruncate(descriptor, live.end)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        live.torn = 0

    def _with_live_segment(self, contents: Contents) -> Contents:
        live = contents.live
        if live is not None and _is_good(live):
            return contents
        manifest = contents.manifest
        entries: list[Entry] = [
            replace(entry, sealed=live.end) if live is not None and entry == live.entry else entry
            for entry in manifest.contents
        ]
        entry = SegmentEntry(manifest.next_number, schema.FORMAT)
        path = self._archive / entry.names()[0]
        with storage_errors(path):
            path.parent.mkdir(exist_ok=True)
            write_durably(path, b"")
            sync_folder(path.parent)
        following = manifest.changed(contents=(*entries, entry), next_number=manifest.next_number + 1)
        following.store(self._archive)
        return Contents(self._archive, following, contents)


def _is_good(live: Segment) -> bool:
    """A segment that is damaged, full or of an older format is not appended to."""
    return not live.damage and live.end < segments.SEGMENT_BYTES and live.entry.format == schema.FORMAT


__all__ = ["Appender"]
