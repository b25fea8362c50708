"""Folders in which programs run: taken away afterwards, kept for a look at failures, swept up after kills.

May import the standard library and pilotwave.protocols.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pilotwave.protocols import QueryContext

Keep = Literal["never", "failures", "always"]

_LOCK = ".lock"


class WorkFolders:
    """Makes a folder for each question.

    Args:
        keep: Which of them stay. Those that stay lie in ``kept`` under the query's id and attempt, from the
            beginning, so that a killed program leaves its folder too.
        kept: Where they stay.

    Attributes:
        home: A folder for as long as this process lives; also where those lie that do not stay.
    """

    def __init__(self, keep: Keep, kept: Path) -> None:
        self._keep = keep
        self._kept = kept
        shared = Path(tempfile.gettempdir()) / f"pilotwave-command-{os.getuid()}"
        shared.mkdir(mode=0o700, exist_ok=True)
        _sweep(shared)
        self.home, self._lock = _held_folder(shared)

    @contextlib.contextmanager
    def opened(self, context: QueryContext) -> Iterator[Path]:
        """Makes the folder of one attempt and takes it away at the end, unless it is to be kept."""
        place = self._kept if self._keep != "never" else self.home
        folder = place / f"{quote(context.query_id, safe='')}.{context.attempt}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        failed = True
        try:
            yield folder
            failed = False
        finally:
            if not self.keeps(failed):
                shutil.rmtree(folder, ignore_errors=True)

    def keeps(self, failed: bool) -> bool:
        """Says whether the folder of a failure, or of an answer, stays."""
        return self._keep == "always" or (self._keep == "failures" and failed)

    def close(self) -> None:
        """Takes the home folder away."""
        shutil.rmtree(self.home, ignore_errors=True)
        os.close(self._lock)


def _held_folder(shared: Path) -> tuple[Path, int]:
    """Makes a folder that is locked by this process before others see it under a name that they sweep."""
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=shared))
    handle = os.open(new / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    home = new.with_name(new.name.removeprefix(".new-"))
    new.rename(home)
    return home, handle


def _sweep(shared: Path) -> None:
    """Takes away folders whose process is gone."""
    for folder in shared.iterdir():
        if folder.name.startswith(".new-"):
            continue
        with contextlib.suppress(OSError):
            handle = os.open(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


__all__ = ["Keep", "WorkFolders"]
