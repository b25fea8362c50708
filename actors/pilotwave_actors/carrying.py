"""A run directory on its way between machines that share no disk: packed into bytes, unpacked whole or not at all.

What travels is the campaign, the ledger, the checkpoints and the results; locks and receipts stay, since they mean
something only where the campaign runs. May import the core and the standard library.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from pilotwave.archive.ledger import Ledger
from pilotwave.archive.origin import FILE
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.errors import InfrastructureError, RunDirectoryError, StorageError

_STAYS = {".lock", ".writer", "receipts", ".tune", FILE}


def pack_run(path: Path) -> bytes:
    """Packs a run directory.

    Raises:
        RunDirectoryError: There is no run here.
    """
    if not RunDirectory(path).exists():
        raise RunDirectoryError(f"{path}: no run here")
    return pack_folder(path)


def pack_folder(path: Path) -> bytes:
    """Packs a folder, a study with its runs, without what means something only where they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=3) as archive:
        for item in sorted(path.iterdir()):
            if item.name not in _STAYS:
                archive.add(item, arcname=item.name, filter=_without_locks)
    return buffer.getvalue()


def unpack_run(data: bytes, path: Path) -> None:
    """Unpacks into a folder; files of the same names are replaced, the ledger last.

    Raises:
        InfrastructureError: The bytes are no packed run.
        StorageError: The folder cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".arriving-", dir=path) as arriving:
            try:
                with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
                    archive.extractall(arriving, filter="data")
            except (tarfile.TarError, EOFError, OSError) as error:
                raise InfrastructureError(f"what came for {path} is no run directory: {error}") from error
            _move_in(Path(arriving), path)
        (path / "receipts").mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}; free space or choose another folder") from error


def deliver_run(data: bytes, path: Path) -> bool:
    """Unpacks a run where none is yet; one that is there knows more and is left alone.

    Returns:
        Whether it was unpacked.
    """
    if RunDirectory(path).exists():
        return False
    unpack_run(data, path)
    return True


def discard_unused_run(path: Path) -> bool:
    """Takes a run away again in which nothing was ever asked; says whether it did."""
    with Ledger.open(RunDirectory(path).ledger_file, read_only=True) as ledger:
        if next(iter(ledger.events()), None) is not None:
            return False
    shutil.rmtree(path, ignore_errors=True)
    return True


def _without_locks(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(entry.name).name in _STAYS else entry


def _move_in(arriving: Path, path: Path) -> None:
    # A ledger without the checkpoints it speaks of can be read; checkpoints of a later ledger could not.
    for item in sorted(arriving.iterdir(), key=lambda item: item.name.startswith("ledger")):
        target = path / item.name
        if item.is_dir() and target.is_dir():
            shutil.rmtree(target)
        os.replace(item, target)


__all__ = ["deliver_run", "discard_unused_run", "pack_folder", "pack_run", "unpack_run"]
