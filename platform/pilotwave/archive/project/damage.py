"""What is wrong with an archive, by file and place. May import the standard library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """Bytes that are not those that were written.

    Attributes:
        file: Relative to the archive.
        place: Where in it, e.g. ``"byte 4096"``.
        problem: What is wrong, one line.
    """

    file: str
    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: {self.problem}"


__all__ = ["Damage"]
