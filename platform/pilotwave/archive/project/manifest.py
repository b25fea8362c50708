"""The manifest: which files an archive consists of. Replacing it is what commits a compaction or a removal.

May import the archive's own modules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pilotwave.archive.project import schema
from pilotwave.archive.project.errors import ArchiveError, DamagedArchiveError
from pilotwave.archive.project.files import read_document, replace_durably, storage_errors, to_document
from pilotwave.errors import StorageError

NAME = "manifest.json"
MANIFEST_FORMAT = 1
"""How this file itself is laid out; what the records look like is said with every part and segment."""

PART_FILES = ("parquet", "latents", "noise", "keys")
"""The files of a part, beside the one with their checksums."""


@dataclass(frozen=True)
class PartEntry:
    """A compacted part.

    Attributes:
        number: Names its files, ``parts/NNNNNNNN.*``.
        format: Of its records.
        rows: How many.
        sizes: Bytes of each of :data:`PART_FILES`.
        sums: SHA-256 of the file with the checksums, hex.
    """

    number: int
    format: int
    rows: int
    sizes: Mapping[str, int]
    sums: str

    def names(self) -> list[str]:
        """Returns its files, relative to the archive."""
        return [f"parts/{self.number:08d}.{kind}" for kind in (*PART_FILES, "sums")]


@dataclass(frozen=True)
class SegmentEntry:
    """A segment.

    Attributes:
        number: Names its file, ``segments/NNNNNNNN.seg``.
        format: Of its records.
        sealed: How many bytes it has for good, or None while it is appended to.
    """

    number: int
    format: int
    sealed: int | None = None

    def names(self) -> list[str]:
        """Returns its file, relative to the archive."""
        return [f"segments/{self.number:08d}.seg"]


@dataclass(frozen=True)
class IndexEntry:
    """A saved index of one backbone's latents.

    Attributes:
        number: Names its folder, ``index/NNNNNNNN``.
        digest: SHA-256 over its files, hex.
    """

    number: int
    digest: str

    def names(self) -> list[str]:
        """Returns its folder, relative to the archive."""
        return [f"index/{self.number:08d}"]


Entry = PartEntry | SegmentEntry


@dataclass(frozen=True)
class Manifest:
    """What an archive consists of, at one moment.

    Attributes:
        latents: How latents and noise are kept: ``"float16"`` or ``"float32"``.
        generation: Counts the changes.
        next_number: The next free number of a file; none is used twice.
        contents: Parts and segments in the order in which their records were added.
        indexes: By backbone.
    """

    latents: str
    generation: int = 0
    next_number: int = 1
    contents: tuple[Entry, ...] = ()
    indexes: Mapping[str, IndexEntry] = field(default_factory=dict)

    @classmethod
    def load(cls, archive: Path) -> Self:
        """Reads the manifest of an archive.

        Raises:
            ArchiveError: There is none, or it is of a newer version.
            DamagedArchiveError: It is damaged.
            StorageError: It cannot be read.
        """
        path = archive / NAME
        try:
            fields = read_document(path)
        except (FileNotFoundError, NotADirectoryError):
            raise ArchiveError(
                f"{archive}: no archive here; give an archive's folder, or make one with: pilotwave archive add"
            ) from None
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
        except DamagedArchiveError:
            _check_manifest_format(archive, _said_format(path))  # a later version may have another checksum
            raise
        _check_manifest_format(archive, fields.get("format"))
        try:
            return cls(
                latents=fields["latents"],
                generation=fields["generation"],
                next_number=fields["next_number"],
                contents=tuple(_entry(item, archive) for item in fields["contents"]),
                indexes={name: IndexEntry(**item) for name, item in fields["indexes"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedArchiveError(f"{path} is no manifest of format {MANIFEST_FORMAT}: {error!r}") from error

    def store(self, archive: Path) -> None:
        """Puts this manifest in the place of the last one; this is the moment at which a change happens.

        Raises:
            StorageError: It could not be written; then nothing has changed.
        """
        fields = {
            "format": MANIFEST_FORMAT,
            "latents": self.latents,
            "generation": self.generation,
            "next_number": self.next_number,
            "contents": [_fields(entry) for entry in self.contents],
            "indexes": {name: vars(entry) for name, entry in self.indexes.items()},
        }
        with storage_errors(archive / NAME):
            replace_durably(archive / NAME, to_document(fields))

    def changed(self, **fields: Any) -> Manifest:
        """Returns the next generation with these attributes changed."""
        return replace(self, generation=self.generation + 1, **fields)

    def names(self) -> set[str]:
        """Returns every file and index folder that belongs to the archive, relative to it."""
        entries = [*self.contents, *self.indexes.values()]
        return {name for entry in entries for name in entry.names()}


def _said_format(path: Path) -> object:
    try:
        fields = json.loads(path.read_bytes())
    except ValueError:
        return MANIFEST_FORMAT
    return fields.get("format", MANIFEST_FORMAT) if isinstance(fields, dict) else MANIFEST_FORMAT


def _check_manifest_format(archive: Path, found: object) -> None:
    if found != MANIFEST_FORMAT:
        raise ArchiveError(
            f"{archive}: expected a manifest of format {MANIFEST_FORMAT}, got {found!r}; use a newer pilotwave, or "
            "restore the manifest if it is damaged"
        )


def _fields(entry: Entry) -> dict[str, Any]:
    kind = "part" if isinstance(entry, PartEntry) else "segment"
    fields = {**vars(entry), "kind": kind}
    if isinstance(entry, PartEntry):
        fields["sizes"] = dict(entry.sizes)
    return fields


def _entry(fields: Mapping[str, Any], archive: Path) -> Entry:
    given = dict(fields)
    kind = given.pop("kind")
    schema.check_format(given["format"], str(archive))
    if kind == "part":
        return PartEntry(**given)
    if kind == "segment":
        return SegmentEntry(**given)
    raise TypeError(f"a part or a segment was expected, got {kind!r}")


__all__ = ["MANIFEST_FORMAT", "NAME", "PART_FILES", "Entry", "IndexEntry", "Manifest", "PartEntry", "SegmentEntry"]
