"""Reads every byte of an archive and names what is not as it was written. May import the archive's own modules."""

from __future__ import annotations

from collections.abc import Iterator

from pilotwave.archive.project import schema
from pilotwave.archive.project.blocks import BLOCK
from pilotwave.archive.project.contents import Container, Contents
from pilotwave.archive.project.damage import Damage
from pilotwave.archive.project.errors import DamagedArchiveError
from pilotwave.archive.project.files import read_document
from pilotwave.archive.project.manifest import NAME
from pilotwave.archive.project.neighbours import index_damage
from pilotwave.archive.project.parts import Part
from pilotwave.archive.project.promises import JOURNAL, RECEIPTS


def damage_of(contents: Contents) -> list[Damage]:
    """Returns all damage: of the manifest, of every frame, block, index and receipt, and of every record."""
    found = [*_documents(contents), *contents.damage()]
    for item in contents.containers:
        here = list(_container(item))
        found += here or list(_records(item))
    for file, problem in index_damage(contents.archive, contents.manifest.indexes):
        found.append(Damage(file, "the whole folder", problem))
    return list(dict.fromkeys(found))


def _documents(contents: Contents) -> Iterator[Damage]:
    archive = contents.archive
    paths = [archive / NAME, *(archive / RECEIPTS).glob("*.json"), *(archive / JOURNAL).glob("*.json")]
    for path in sorted(paths):
        try:
            read_document(path)
        except DamagedArchiveError:
            name = path.relative_to(archive).as_posix()
            yield Damage(name, "the whole file", "its checksum does not hold")
        except FileNotFoundError:
            continue  # a promise that was kept in this moment


def _container(item: Container) -> Iterator[Damage]:
    if isinstance(item, Part):
        for name, start in item.damaged_blocks():
            yield Damage(name, f"bytes {start} to {start + BLOCK}", "their checksum does not hold")
    else:
        for start, problem in item.damaged_frames():
            yield Damage(item.entry.names()[0], f"byte {start}", problem)


def _records(item: Container) -> Iterator[Damage]:
    """Compares each record with the digest it was given when it was added."""
    for table in item.batches():
        for row in schema.rows_of(table):
            if schema.row_digest(row) != row["digest"]:
                yield Damage(item.entry.names()[0], f"record {row['record_id']}", "it is not what was added")


__all__ = ["damage_of"]
