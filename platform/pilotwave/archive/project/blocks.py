"""Large files with a checksum for every 64 KiB, verified when a block is first read.

The checksums of all files of a part lie together in one file, whose own checksum is in the manifest. May import
numpy and the archive's files and errors.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotwave.archive.project.errors import DamagedArchiveError
from pilotwave.archive.project.files import write_all

BLOCK = 1 << 16
"""Bytes that share a checksum."""
_GATHER = 1 << 20

Sums = npt.NDArray[np.uint8]
"""SHA-256 of every block, shape (blocks, 32)."""


def block_count(size: int) -> int:
    """Returns how many blocks a file of so many bytes has."""
    return -(-size // BLOCK)


class BlockWriter:
    """Writes a new file and keeps the checksums of its blocks; has the methods that Arrow writes through."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._pending = bytearray()
        self._sums: list[bytes] = []
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Takes bytes; they are on the disk after :meth:`finish`."""
        view = memoryview(data).cast("B")
        self._pending += view
        self.size += len(view)
        if len(self._pending) >= _GATHER:
            self._write_out(len(self._pending) // BLOCK * BLOCK)
        return len(view)

    def tell(self) -> int:
        """Returns how many bytes were taken."""
        return self.size

    def flush(self) -> None:
        """Does nothing: only :meth:`finish` promises anything."""

    def close(self) -> None:
        """Lets go of the file; without :meth:`finish` nothing is promised about it."""
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)

    def finish(self) -> bytes:
        """Waits until everything is on the disk; returns the checksums of all blocks, one after the other."""
        self._write_out(len(self._pending))
        os.fsync(self._descriptor)
        self.close()
        return b"".join(self._sums)

    def _write_out(self, size: int) -> None:
        ready = bytes(self._pending[:size])
        self._sums += [hashlib.sha256(ready[start : start + BLOCK]).digest() for start in range(0, size, BLOCK)]
        write_all(self._descriptor, ready)
        del self._pending[:size]


class CheckedFile:
    """A memory-mapped file; no byte of it is handed out before its block was verified.

    Args:
        path: Of the file.
        size: What it must measure.
        sums: The checksums of its blocks.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedArchiveError: Its size is wrong.
    """

    def __init__(self, path: Path, size: int, sums: Sums) -> None:
        self.path = path
        self.size = size
        self._sums = sums
        self._verified = np.zeros(block_count(size), dtype=bool)
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise DamagedArchiveError(f"{path} is damaged: expected {size} bytes, got {found}", path)
            self._map: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        self._view = memoryview(self._map)

    def read(self, start: int, stop: int) -> memoryview:
        """Returns bytes without copying them.

        Raises:
            DamagedArchiveError: A block of them is not what was written, or they lie outside the file.
        """
        if not 0 <= start <= stop <= self.size:
            raise DamagedArchiveError(f"{self.path} has {self.size} bytes, and {start} to {stop} are referred to")
        if stop > start:
            self.check_blocks(np.arange(start // BLOCK, (stop - 1) // BLOCK + 1))
        return self._view[start:stop]

    def gather(self, offsets: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.uint8]:
        """Returns pieces of equal width, shape (n, width).

        Raises:
            DamagedArchiveError: As for :meth:`read`.
        """
        if width == 0 or not len(offsets):
            return np.zeros((len(offsets), width), np.uint8)
        if offsets.min() < 0 or offsets.max() + width > self.size:
            raise DamagedArchiveError(f"{self.path} has {self.size} bytes, and others are referred to")
        first, last = offsets // BLOCK, (offsets + width - 1) // BLOCK
        spans = [first + step for step in range(int((last - first).max()) + 1)]
        self.check_blocks(np.unique(np.minimum(np.concatenate(spans), np.tile(last, len(spans)))))
        data = np.frombuffer(self._view, np.uint8)
        return np.asarray(data[offsets[:, None] + np.arange(width)])

    def check_blocks(self, blocks: npt.NDArray[np.int64]) -> None:
        """Verifies blocks that were not yet.

        Raises:
            DamagedArchiveError: One is not what was written.
        """
        for block in blocks[~self._verified[blocks]].tolist():
            if not self._is_whole(block):
                raise DamagedArchiveError(
                    f"{self.path} is damaged in the {BLOCK} bytes from {block * BLOCK}; `pilotwave archive verify` "
                    "lists all damage, `pilotwave archive compact --drop-damaged` goes on without it",
                    self.path,
                )
            self._verified[block] = True

    def damaged_blocks(self) -> list[int]:
        """Reads everything again; returns where the damaged blocks begin."""
        return [block * BLOCK for block in range(len(self._verified)) if not self._is_whole(block)]

    def reader(self) -> CheckedReader:
        """Returns the file as an object that Arrow reads from."""
        return CheckedReader(self)

    def _is_whole(self, block: int) -> bool:
        data = self._view[block * BLOCK : (block + 1) * BLOCK]
        return hashlib.sha256(data).digest() == bytes(self._sums[block])


class CheckedReader(io.RawIOBase):
    """Reads a :class:`CheckedFile` from a position that moves."""

    def __init__(self, file: CheckedFile) -> None:
        super().__init__()
        self._file = file
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._file.size}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def size(self) -> int:
        """Returns the file's size; Arrow asks for it."""
        return self._file.size

    def read(self, size: int = -1) -> bytes:
        stop = self._file.size if size is None or size < 0 else min(self._place + size, self._file.size)
        data = bytes(self._file.read(self._place, max(stop, self._place)))
        self._place += len(data)
        return data


__all__ = ["BLOCK", "BlockWriter", "CheckedFile", "CheckedReader", "Sums", "block_count"]
