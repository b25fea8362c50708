"""An index in one file: written whole or not at all, checked when read, then mapped into memory.

A header of 4,096 bytes, then seven arrays, each filled up with zeros to a multiple of 64 bytes::

    0   8 bytes    magic
    8   uint32     format
    12  uint32     length of the JSON text
    16  32 bytes   SHA-256 of the header with these 32 bytes zero
    48             JSON: the frame's settings, and of each array its shape, place and SHA-256; zeros to the end

Codes are written in the order of ids, so two indexes that hold the same have the same file. Every byte is under one
of the checksums. May import numpy, pilotwave.errors and the modules beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pilotwave.archive.usr_lsh.frame import Frame
from pilotwave.archive.usr_lsh.slots import Slots
from pilotwave.errors import CheckpointError, StorageError

FORMAT = 1
_MAGIC = b"PWUSRLSH"
_HEADER, _ALIGNMENT = 4096, 64
_START = struct.Struct("<8sII32s")
_TYPES = {
    "anchor": "<f4",
    "projection": "<f4",
    "rows": "<i4",
    "ids": "<i8",
    "codes": "<u8",
    "factors": "<u2",
    "norms": "<u2",
}
_FIXED = ("anchor", "projection", "rows")

Array = npt.NDArray[Any]


def save_index(path: Path, frame: Frame, slots: Slots) -> None:
    """Writes an index; after a crash at any moment the file is the old one or the new one.

    Raises:
        StorageError: It could not be written.
    """
    with _replacing(path) as file:
        file.write(bytes(_HEADER))
        sections: dict[str, dict[str, Any]] = {}
        for name in _FIXED:
            array = getattr(frame, name)
            pieces = iter([array.astype(_TYPES[name], copy=False).tobytes()])
            sections[name] = {"shape": list(array.shape), **_write(file, pieces)}
        shapes = {"codes": [slots.count, frame.words]}
        for name, pieces in slots.in_order():
            sections[name] = {"shape": shapes.get(name, [slots.count]), **_write(file, pieces)}
        text = json.dumps({"settings": frame.settings, "arrays": sections}, sort_keys=True).encode()
        file.seek(0)
        file.write(_header(text))


def load_index(path: Path) -> tuple[Frame, Slots]:
    """Reads an index, checking every byte; codes stay in the file and are mapped, copied where they change.

    Raises:
        CheckpointError: There is no such file, or it is truncated, damaged (the message names the part), or of
            another kind or format.
        StorageError: It could not be read.
    """
    try:
        with path.open("rb") as file:
            description = _checked_header(path, file.read(_HEADER))
        mapped = np.asarray(np.memmap(path, dtype=np.uint8, mode="c"))
    except FileNotFoundError:
        raise CheckpointError(f"expected an index at {path}, but there is no such file") from None
    except OSError as error:
        raise StorageError(f"could not read the index {path}: {error.strerror or error}") from error
    try:
        arrays = _checked_arrays(path, mapped, description["arrays"])
        fixed: dict[str, Any] = {name: arrays.pop(name) for name in _FIXED}
        frame = Frame(**description["settings"], **fixed)
        slots = Slots(**arrays)
        _check_shapes(frame, slots)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"its header describes no index ({error})") from error
    return frame, slots


def _header(text: bytes) -> bytes:
    def block(digest: bytes) -> bytes:
        return (_START.pack(_MAGIC, FORMAT, len(text), digest) + text).ljust(_HEADER, b"\0")

    if _START.size + len(text) > _HEADER:
        raise StorageError(f"an index's header of {len(text)} bytes does not fit into {_HEADER}")
    return block(hashlib.sha256(block(bytes(32))).digest())


def _checked_header(path: Path, block: bytes) -> dict[str, Any]:
    if not block.startswith(_MAGIC) and len(block) >= len(_MAGIC):
        raise _damaged(path, "it does not begin like one: another kind of file, or its first bytes are damaged")
    if len(block) < _HEADER:
        raise _damaged(path, f"it is truncated: expected {_HEADER} bytes of header, got {len(block)}")
    _, version, length, digest = _START.unpack_from(block)
    zeroed = block[: _START.size - 32] + bytes(32) + block[_START.size :]
    if hashlib.sha256(zeroed).digest() != digest:
        raise _damaged(path, "its header is damaged (the checksum differs)")
    if version != FORMAT:
        raise CheckpointError(f"{path}: expected an index of format {FORMAT}, got {version}; use a newer pilotwave")
    try:
        description: dict[str, Any] = json.loads(block[_START.size : _START.size + length])
    except ValueError as error:
        raise _damaged(path, "its header is not JSON") from error
    return description


def _checked_arrays(path: Path, mapped: Array, sections: dict[str, dict[str, Any]]) -> dict[str, Array]:
    expected = _HEADER + sum(section["bytes"] for section in sections.values())
    if len(mapped) != expected:
        raise _damaged(path, f"it is truncated or too long: expected {expected} bytes, got {len(mapped)}")
    arrays = {}
    for name, kind in _TYPES.items():
        section = sections[name]
        place = mapped[section["start"] : section["start"] + section["bytes"]]
        if hashlib.sha256(place.data).hexdigest() != section["sha256"]:
            raise _damaged(path, f"its {name} are damaged (the checksum differs)")
        shape = tuple(section["shape"])
        dtype = np.dtype(kind)
        numbers = place[: dtype.itemsize * int(np.prod(shape, dtype=np.int64))].view(dtype).reshape(shape)
        arrays[name] = numbers.astype(dtype.newbyteorder("="), copy=False)
    return arrays


def _check_shapes(frame: Frame, slots: Slots) -> None:
    reduced = len(frame.rows)
    shapes = (frame.anchor.shape, frame.projection.shape, frame.rows.shape)
    if shapes != ((frame.dim,), (frame.dim, reduced), (reduced,)):
        raise ValueError("the frame's shapes do not fit")
    if slots.codes.shape != (slots.count, frame.words):
        raise ValueError("the codes' shape does not fit")
    if slots.count and (slots.ids[0] < 0 or not (slots.ids[1:] > slots.ids[:-1]).all()):
        raise ValueError("the ids do not rise")


def _write(file: BinaryIO, pieces: Iterator[bytes]) -> dict[str, Any]:
    """Writes an array, filled up with zeros, and returns where it lies and its checksum."""
    start, length, found = file.tell(), 0, hashlib.sha256()
    for piece in pieces:
        file.write(piece)
        found.update(piece)
        length += len(piece)
    rest = bytes(-length % _ALIGNMENT)
    file.write(rest)
    found.update(rest)
    return {"start": start, "bytes": length + len(rest), "sha256": found.hexdigest()}


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file under another name that takes this one's place, on the disk, if all goes well."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"could not write {path}: {error.strerror or error}; free space or choose another place"
        ) from error


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"expected an index at {path}, but {what}; restore the file or build the index anew")


__all__ = ["FORMAT", "load_index", "save_index"]
