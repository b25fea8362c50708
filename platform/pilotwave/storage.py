"""Checkpoints of a training run: written atomically, read without trusting them.

A checkpoint is a nested dict of tensors and plain values, stored by ``torch.save`` and read with
``weights_only=True``, so that opening a file from an unknown place runs no code. May import torch and
:mod:`pilotwave.errors`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pilotwave.errors import CheckpointError, StorageError


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
        _sync_folder(path.parent)
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


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable: the name is in the folder, so the folder has to reach the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["load_checkpoint", "save_checkpoint", "write_atomically"]
