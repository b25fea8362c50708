"""The frames of a segment: one an append, each with checksums, so that no damage passes for an answer.

::

    header   128 bytes: magic, rows, segment, offset in the file, lengths, SHA-256 of index and body, of itself
    index    the short digests of record ids (rows times uint64), then those of the questions
    body     one Arrow IPC record batch

The header names its segment and place, so a frame that was moved or doubled is noticed, and after damage the
next frame can be found. A write that was cut short leaves less than a whole frame at the end of the file, or
zeros; that is *torn*, and was never acknowledged. May import numpy and :mod:`pilotwave.archive.project`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAGIC = b"PWFRAME1"
_FIELDS = struct.Struct("<8sIIQQQQ32s32s")
HEADER = _FIELDS.size + 16
"""Bytes of a header; the last 16 are the beginning of the SHA-256 of the others."""

Digests = npt.NDArray[np.uint64]

Source = Callable[[int, int], bytes]
"""Returns the bytes of a file from a place to another; fewer if it ends before."""


@dataclass(frozen=True)
class Frame:
    """Where one append lies in its segment.

    Attributes:
        offset: Of its header in the file.
        rows: How many records.
        index_bytes, body_bytes: Lengths.
        index_sha, body_sha: SHA-256 of both.
    """

    offset: int
    rows: int
    index_bytes: int
    body_bytes: int
    index_sha: bytes
    body_sha: bytes

    @property
    def index_start(self) -> int:
        """Where the digests begin."""
        return self.offset + HEADER

    @property
    def body_start(self) -> int:
        """Where the records begin."""
        return self.index_start + self.index_bytes

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.body_start + self.body_bytes


@dataclass(frozen=True)
class Scan:
    """What was found in a segment.

    Attributes:
        frames: The whole ones, in order, headers checked, contents not.
        end: Where the last whole frame ends.
        torn: Bytes after it that were never acknowledged.
        damage: Places where no header could be read, ``(offset, why)``.
    """

    frames: list[Frame]
    end: int
    torn: int
    damage: list[tuple[int, str]]


def encode_frame(segment: int, offset: int, ids: Digests, keys: Digests, body: bytes) -> bytes:
    """Returns the bytes of a frame that will stand at this offset of this segment."""
    index = ids.astype("<u8").tobytes() + keys.astype("<u8").tobytes()
    index_sha, body_sha = hashlib.sha256(index).digest(), hashlib.sha256(body).digest()
    fields = (MAGIC, len(ids), 0, segment, offset, len(index), len(body), index_sha, body_sha)
    head = _FIELDS.pack(*fields)
    return b"".join([head, hashlib.sha256(head).digest()[:16], index, body])


def frame_of(data: bytes, segment: int, offset: int) -> Frame:
    """Returns where a frame lies that :func:`encode_frame` has just made."""
    frame = _header(data[:HEADER], segment, offset)
    assert frame is not None
    return frame


def scan(source: Source, segment: int, start: int, size: int) -> Scan:
    """Finds the frames of a segment by their headers.

    Args:
        source: Reads the file.
        segment: The segment's number.
        start: Where to begin: 0 or the end of a frame.
        size: Where to end: how long the file is.
    """
    frames: list[Frame] = []
    damage: list[tuple[int, str]] = []
    place = start
    while place < size:
        frame = _header(source(place, min(place + HEADER, size)), segment, place)
        if frame is not None and frame.end <= size:
            frames.append(frame)
            place = frame.end
            continue
        if frame is not None or size - place < HEADER or not any(source(place, size)):
            return Scan(frames, place, size - place, damage)  # cut short while it was written
        damage.append((place, "the header of a frame is damaged"))
        place = _next_header(source(place + 1, size), segment, place + 1)
    return Scan(frames, size, 0, damage)


def read_index(source: Source, frame: Frame) -> tuple[Digests, Digests] | None:
    """Returns the digests of ids and questions, or None if they are damaged."""
    index = source(frame.index_start, frame.body_start)
    if hashlib.sha256(index).digest() != frame.index_sha or len(index) != 16 * frame.rows:
        return None
    digests = np.frombuffer(index, "<u8")
    return digests[: frame.rows], digests[frame.rows :]


def read_body(source: Source, frame: Frame) -> bytes | None:
    """Returns the bytes of the record batch, or None if they are damaged."""
    body = source(frame.body_start, frame.end)
    return body if hashlib.sha256(body).digest() == frame.body_sha else None


def _header(head: bytes, segment: int, place: int) -> Frame | None:
    if len(head) < HEADER or hashlib.sha256(head[:-16]).digest()[:16] != head[-16:]:
        return None
    magic, rows, _, number, offset, index_bytes, body_bytes, index_sha, body_sha = _FIELDS.unpack(head[:-16])
    if magic != MAGIC or number != segment or offset != place:
        return None
    return Frame(place, rows, index_bytes, body_bytes, index_sha, body_sha)


def _next_header(rest: bytes, segment: int, place: int) -> int:
    """Returns where the next readable header stands, or the end of the file.

    Args:
        rest: The file from ``place`` on.
        segment: The segment's number.
        place: Where ``rest`` begins.
    """
    found = rest.find(MAGIC)
    while found >= 0:
        if _header(rest[found : found + HEADER], segment, place + found) is not None:
            return place + found
        found = rest.find(MAGIC, found + 1)
    return place + len(rest)


__all__ = [
    "HEADER",
    "MAGIC",
    "Digests",
    "Frame",
    "Scan",
    "Source",
    "encode_frame",
    "frame_of",
    "read_body",
    "read_index",
    "scan",
]
