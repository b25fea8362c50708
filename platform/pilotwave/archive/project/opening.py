"""Opens an archive to read while its owner may change it, and tidies up for an owner.

May import the archive's own modules.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from pilotwave.archive.project.contents import Contents
from pilotwave.archive.project.errors import ArchiveError
from pilotwave.archive.project.files import TEMPORARY, delete, storage_errors, sync_folder
from pilotwave.archive.project.manifest import NAME, Manifest

Seen = bytes
"""The manifest as it was read: by its bytes a reader notices that another was put in its place."""

_FOLDERS = ("segments", "parts", "index", "journal", "receipts")
_OURS = re.compile(r"\d{8}(\.(seg|parquet|latents|noise|keys|sums))?")
_ATTEMPTS = 50


def opened(archive: Path, earlier: Contents | None = None, seen: Seen | None = None) -> tuple[Contents, Seen]:
    """Opens, or brings up to date, what a reader sees; an owner may replace files at any moment.

    Args:
        archive: Its folder.
        earlier: What was seen last.
        seen: Which manifest that was.

    Returns:
        The contents of one moment, and which manifest they are of.
    """
    for _ in range(_ATTEMPTS):
        now = _signature(archive)
        if earlier is not None and now == seen:
            earlier.refresh()
            return earlier, now
        contents = Contents(archive, Manifest.load(archive), earlier)
        if _signature(archive) == now:
            return contents, now
        # The owner has put another manifest in place while files were opened: some may have been gone.
        earlier = contents
    raise ArchiveError(f"{archive}: its owner changes it faster than it can be opened; try again later")


def sweep(archive: Path, manifest: Manifest) -> None:
    """Deletes files that no manifest names and those that a crash left half written."""
    named = manifest.names()
    for folder in _FOLDERS:
        place, gone = archive / folder, False
        if not place.is_dir():
            continue
        for path in list(place.iterdir()):
            ours = _OURS.fullmatch(path.name) and f"{folder}/{path.name}" not in named
            if ours or path.name.endswith(TEMPORARY):
                delete(path)
                gone = True
        if gone:
            sync_folder(place)
    delete(archive / f".{NAME}{TEMPORARY}")


def hold(archive: Path) -> int:
    """Makes this process the owner of an archive; the hold goes with the process, also after ``kill -9``.

    Like :func:`pilotwave.storage.held_folder`, without torch, which would be most of the time that opening takes.

    Returns:
        The descriptor of the lock; closing it lets the next owner in.

    Raises:
        ArchiveError: Another process owns it.
        StorageError: The folder cannot be made or locked.
    """
    with storage_errors(archive):
        archive.mkdir(parents=True, exist_ok=True)
        handle = os.open(archive / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            line = f"{archive} is in use by another pilotwave process; wait for it, or only read it"
            raise ArchiveError(line) from None
        except OSError:
            os.close(handle)
            raise
    return handle


def foreign_files(folder: Path) -> list[str]:
    """Returns what lies in a folder that no archive would have left there."""
    if not folder.is_dir():
        return []
    return sorted(
        item.name
        for item in folder.iterdir()
        if item.name not in (".lock", *_FOLDERS) and not item.name.endswith(TEMPORARY)
    )


def _signature(archive: Path) -> Seen:
    try:
        return (archive / NAME).read_bytes()
    except OSError:
        return b""  # loading it says what is wrong


__all__ = ["Seen", "foreign_files", "hold", "opened", "sweep"]
