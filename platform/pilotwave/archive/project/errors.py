"""What can go wrong with a project archive, in the error family. May import :mod:`pilotwave.errors`."""

from __future__ import annotations

from pathlib import Path

from pilotwave.errors import InputError, StorageError


class ArchiveError(InputError):
    """An archive is missing, of another format, in use, or was asked for something it cannot do."""


class DamagedArchiveError(StorageError):
    """Bytes of an archive are not those that were written; the message names the file and the place.

    Args:
        message: One line.
        path: The file.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


__all__ = ["ArchiveError", "DamagedArchiveError"]
