"""Searches files for bytes that must not be there any more. May import the standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_CHUNK = 1 << 22
_IDS_AT_ONCE = 500


def files_under(folder: Path) -> Iterator[Path]:
    """Yields every plain file under a folder, hidden ones too, in order of their names."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def files_with_ids(files: Iterable[Path], ids: Sequence[str]) -> list[Path]:
    """Returns the files in which one of the ids occurs, and not as the beginning of a longer one.

    ``p0003-07`` does not occur in ``p0003-07.1`` (another draw of the same slot) or ``p0003-071``.
    """
    patterns = [
        re.compile(b"(?:" + b"|".join(map(_quoted, part)) + rb")(?![0-9]|\.[0-9])")
        for part in (ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE))
    ]
    longest = max((len(name.encode()) for name in ids), default=0) + 3
    return [path for path in files if any(_occurs(path, pattern, longest) for pattern in patterns)]


def files_with_bytes(files: Iterable[Path], needles: Sequence[bytes]) -> list[Path]:
    """Returns the files in which one of the byte strings occurs."""
    pattern = re.compile(b"|".join(map(re.escape, needles)))
    longest = max(map(len, needles), default=0)
    return [path for path in files if needles and _occurs(path, pattern, longest)]


def _quoted(name: str) -> bytes:
    return re.escape(name.encode())


def _occurs(path: Path, pattern: re.Pattern[bytes], longest: int) -> bool:
    """Reads in pieces that overlap, so that nothing hides between two of them."""
    try:
        with path.open("rb") as file:
            rest = b""
            while piece := file.read(_CHUNK):
                if pattern.search(rest + piece):
                    return True
                rest = (rest + piece)[-longest:]
    except FileNotFoundError:
        pass
    return False


__all__ = ["files_under", "files_with_bytes", "files_with_ids"]
