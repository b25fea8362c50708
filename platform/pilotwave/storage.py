"""Files that outlive a crash: written atomically, read without trusting them, in folders that one process holds.

A checkpoint is a nested dict of tensors and plain values, stored by ``torch.save`` and read with
``weights_only=True``, so that opening a file from an unknown place runs no code. May import torch and
:mod:`pilotwave.errors`.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pilotwave.errors import CheckpointError, PilotwaveError, StorageError

_GLANCE_SECONDS = 0.5


@contextmanager
def held_folder(folder: Path, in_use: type[PilotwaveError]) -> Iterator[None]:
    """Holds a folder for one process; the hold goes with the process, also after ``kill -9``.

    The folder is made if need be, and taken away again if nothing was written into it.

    Args:
        folder: A file ``.lock`` in it is the lock.
        in_use: What is raised if another process holds it.

    Raises:
        StorageError: The folder cannot be made or locked.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}; choose another folder") from error
    try:
        _lock_soon(handle)
    except OSError as error:
        os.close(handle)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            message = f"{folder} is in use by another pilotwave process; wait for it or stop it first"
            raise in_use(message) from None
        raise StorageError(f"{folder} cannot be locked: {error.strerror}") from error
    try:
        yield
    finally:
        if made and folder.is_dir() and [item.name for item in folder.iterdir()] == [".lock"]:
            (folder / ".lock").unlink()
            for place in made:
                place.rmdir()
        os.close(handle)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that after a crash at any moment it holds either the old bytes or the new ones.

    Args:
        path: Its folder is made if need be.
        data: What the file shall hold.

    Raises:
        StorageError: The disk is full, read-only, or gone.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"could not write {path}: {error.strerror or error}; free space or choose another place"
        ) from error


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Stores a nested dict of tensors and plain values (numbers, strings, lists, None), atomically.

    Raises:
        StorageError: The file could not be written.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what :func:`save_checkpoint` stored; tensors are on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, or holds something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"expected a checkpoint at {path}, but there is no such file") from None
    except Exception as error:  # torch raises anything from KeyError to UnpicklingError on foreign bytes
        raise CheckpointError(
            f"expected a checkpoint at {path}, but it is truncated or of another kind "
            f"({type(error).__name__}); delete it to start the training anew"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"expected a checkpoint at {path}, but it holds a {type(state).__name__}")
    return state


def _lock_soon(handle: int) -> None:
    """Locks a file for this process; whoever only looks at who holds it does so for a moment, and is waited for."""
    deadline = time.monotonic() + _GLANCE_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def sync_folder(folder: Path) -> None:
    """Makes a rename durable: the name is in the folder, so the folder has to reach the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["held_folder", "load_checkpoint", "save_checkpoint", "sync_folder", "write_atomically"]
