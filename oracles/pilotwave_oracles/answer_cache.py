"""Answers that were paid for, kept on disk under what was asked, so that a killed process pays for none twice.

May import the standard library.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class AnswerCache:
    """A folder of small JSON files. Processes may share it.

    Args:
        folder: Or None: nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def find(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the answer to exactly this question, or None."""
        if self._folder is None:
            return None
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._path(question).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else None
        return None

    def keep(self, question: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Keeps an answer; a disk that refuses is no reason to lose it now."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            path = self._path(question)
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(dict(answer), file)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)

    def _path(self, question: Mapping[str, Any]) -> Path:
        assert self._folder is not None
        digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest}.json"


__all__ = ["AnswerCache"]
