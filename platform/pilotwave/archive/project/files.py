"""Files that say themselves whether they are whole: durable writing, and small JSON documents with a checksum.

Kept apart from :mod:`pilotwave.storage`, which needs torch: who only reads an archive starts without it. May
import :mod:`pilotwave.errors` and :mod:`pilotwave.archive.project.errors`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pilotwave.archive.project.errors import DamagedArchiveError
from pilotwave.errors import StorageError

TEMPORARY = ".tmp"
"""The ending of a file that a crash may leave behind; the next owner deletes it."""


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns what the operating system says while an archive is written into one line.

    Raises:
        StorageError: The disk is full, read-only, or gone.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"could not write {path}: {reason}; free space or mend the disk, then try again"
        ) from error


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Writes all bytes; a single call of the system may write fewer."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_durably(path: Path, data: bytes) -> None:
    """Writes a new file and waits until its bytes are on the disk; its name is not yet, see :func:`sync_folder`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_durably(path: Path, data: bytes) -> None:
    """Gives a file new contents; after a crash at any moment it holds either the old or the new ones."""
    fresh = path.with_name(f".{path.name}{TEMPORARY}")
    write_durably(fresh, data)
    os.replace(fresh, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Waits until every file below a folder, and every name, is on the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            sync_folder(Path(place) / name)  # fsync through a descriptor for reading works for files as well
        sync_folder(Path(place))
    sync_folder(folder.parent)


def delete(path: Path) -> None:
    """Deletes a file or a folder with all that is in it; nothing happens if it is gone."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=False)
    else:
        path.unlink(missing_ok=True)


def tree_digest(folder: Path) -> str:
    """Returns the SHA-256 over the names and contents of all files below a folder, hex."""
    state = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        name, data = path.relative_to(folder).as_posix().encode(), path.read_bytes()
        state.update(len(name).to_bytes(8, "little") + name + len(data).to_bytes(8, "little") + data)
    return state.hexdigest()


def tree_bytes(path: Path) -> int:
    """Returns the size of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())


def to_document(fields: Mapping[str, Any]) -> bytes:
    """Returns JSON with a checksum of itself."""
    plain = json.dumps(dict(fields), sort_keys=True).encode()
    sealed = {**fields, "checksum": hashlib.sha256(plain).hexdigest()}
    return json.dumps(sealed, sort_keys=True, indent=1).encode() + b"\n"


def read_document(path: Path) -> dict[str, Any]:
    """Reads what :func:`to_document` made.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedArchiveError: Not one bit of it may differ.
    """
    data = path.read_bytes()
    try:
        fields = json.loads(data)
        fields.pop("checksum")
        whole = to_document(fields) == data
    except (ValueError, KeyError, AttributeError, TypeError):
        whole = False
    if not whole:
        raise DamagedArchiveError(f"{path} is damaged: its checksum does not hold; restore it from a copy")
    return dict(fields)


__all__ = [
    "TEMPORARY",
    "delete",
    "read_document",
    "replace_durably",
    "storage_errors",
    "sync_folder",
    "sync_tree",
    "to_document",
    "tree_bytes",
    "tree_digest",
    "write_all",
    "write_durably",
]
