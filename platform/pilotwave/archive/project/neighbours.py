"""Nearest neighbours among the latents of one backbone: USR-LSH finds candidates, exact distances order them.

There is one index a backbone. It is derived from the records: brought up to date when it is used, saved so that
the next process need not encode everything again, and built anew when it is missing or damaged. May import numpy,
pyarrow, :mod:`pilotwave.archive.usr_lsh` and the archive's own modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pilotwave.archive.project.contents import Contents
from pilotwave.archive.project.digests import Digests, Rows
from pilotwave.archive.project.errors import ArchiveError
from pilotwave.archive.project.files import (
    delete,
    storage_errors,
    sync_folder,
    sync_tree,
    tree_digest,
)
from pilotwave.archive.project.manifest import IndexEntry, Manifest
from pilotwave.errors import PilotwaveError

if TYPE_CHECKING:
    from pilotwave.archive.usr_lsh import UsrLshIndex

BITS = 512
CANDIDATES = 128
"""How many neighbours the index proposes at least; exact distances choose among them."""
_BATCH = 4096
_LONGEST = 250.0
"""Latents longer than so many times the index's unit of length do not fit its half precision."""


@dataclass
class _Indexed:
    """An index and what is in it.

    Attributes:
        index: Under the digests of the record ids.
        unfit: Digests of records whose latent cannot be indexed: not finite, or longer than any other.
        saved: Whether the saved state is this one.
    """

    index: UsrLshIndex
    unfit: Digests
    saved: bool = False

    def ids(self) -> Digests:
        """Returns the digests in the index, rising."""
        return self.index.ids.view(np.uint64)


class NeighbourIndexes:
    """The indexes of an open archive.

    Args:
        archive: Its folder.
    """

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._open: dict[str, _Indexed] = {}
        self._rows: dict[str, tuple[int, int, Rows, Rows]] = {}
        self._current: dict[str, tuple[int, int]] = {}

    def search(
        self, contents: Contents, backbone: str, queries: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.float64], Rows]:
        """Returns the nearest records of a backbone.

        Args:
            contents: Of the archive.
            backbone: A fingerprint.
            queries: Shape (n, width).
            k: How many.

        Returns:
            Euclidean distances and rows, both of shape (n, min(k, records of the backbone)), nearest first.
        """
        width = queries.shape[1]
        rows, widths = self._rows_of(contents, backbone)
        if len(rows) and not (widths == width).any():
            found = ", ".join(map(str, np.unique(widths).tolist()))
            raise ArchiveError(f"expected latents of {found} numbers for backbone {backbone}, got {width}")
        rows = rows[widths == width]
        if not len(rows) or not len(queries):
            return np.zeros((len(queries), 0)), np.zeros((len(queries), 0), np.int64)
        index = self._up_to_date(contents, backbone, rows, width).index
        count = min(k, len(index))
        if not count:
            return np.zeros((len(queries), 0)), np.zeros((len(queries), 0), np.int64)
        _, ids = index.search(queries, min(len(index), max(CANDIDATES, 10 * k)))
        return _ranked(contents, queries, np.asarray(ids).view(np.uint64), count)

    def forget(self, contents: Contents, gone: Digests, manifest: Manifest) -> Manifest:
        """Takes records out of every index, saved ones included.

        Args:
            contents: Of the archive before.
            gone: Digests of the record ids.
            manifest: The one that will commit the removal.

        Returns:
            That manifest with the new state of the indexes; one that cannot be changed is left out, and will
            be built anew when it is needed.
        """
        indexes = dict(manifest.indexes)
        for backbone in {*indexes, *self._open}:
            indexed = self._opened(contents, backbone)
            if indexed is None:
                indexes.pop(backbone, None)
                continue
            inside = np.intersect1d(indexed.ids(), gone)
            indexed.unfit = np.setdiff1d(indexed.unfit, gone)
            if not len(inside):
                continue
            indexed.index.remove(inside.view(np.int64))
            indexed.saved = False
            if not len(indexed.index):
                del self._open[backbone]
            indexes.pop(backbone, None)
        self._current.clear()
        return self.save(manifest.changed(indexes=indexes))

    def save(self, manifest: Manifest) -> Manifest:
        """Saves what has changed under new names; returns the manifest that commits it, or the same one."""
        indexes, number = dict(manifest.indexes), manifest.next_number
        for backbone, indexed in self._open.items():
            if indexed.saved or not len(indexed.index):
                continue
            folder = self._archive / "index" / f"{number:08d}"
            with storage_errors(folder):
                delete(folder)
                folder.mkdir(parents=True)
                indexed.index.save(folder / "codes")
                sync_tree(folder)
                sync_folder(folder.parent)
            indexes[backbone] = IndexEntry(number, tree_digest(folder))
            indexed.saved = True
            number += 1
        if number == manifest.next_number:
            return manifest
        return manifest.changed(indexes=indexes, next_number=number)

    def _up_to_date(self, contents: Contents, backbone: str, rows: Rows, width: int) -> _Indexed:
        from pilotwave.archive.usr_lsh import UsrLshIndex

        indexed = self._opened(contents, backbone)
        if indexed is None or indexed.index.dim != width:
            indexed = _Indexed(UsrLshIndex(width, bits=BITS), np.zeros(0, np.uint64))
            self._open[backbone] = indexed
            self._current.pop(backbone, None)
        now = (contents.manifest.generation, contents.rows)
        if self._current.get(backbone) == now:
            return indexed
        digests, first = np.unique(contents.id_digests()[rows], return_index=True)
        rows, inside = rows[first], indexed.ids()
        gone = np.setdiff1d(inside, digests)
        new = np.nonzero(~np.isin(digests, np.concatenate([inside, indexed.unfit])))[0]
        if len(gone):
            indexed.index.remove(gone.view(np.int64))
        for start in range(0, len(new), _BATCH):
            chosen = new[start : start + _BATCH]
            _add(indexed, digests[chosen], contents.latents(rows[chosen], width).astype(np.float32))
        if len(gone) or len(new):
            indexed.saved = False
        self._current[backbone] = now
        return indexed

    def _opened(self, contents: Contents, backbone: str) -> _Indexed | None:
        """Returns the index in memory, or the saved one if it is whole, or None."""
        if backbone in self._open:
            return self._open[backbone]
        entry = contents.manifest.indexes.get(backbone)
        if entry is None:
            return None
        folder = self._archive / entry.names()[0]
        try:
            from pilotwave.archive.usr_lsh import UsrLshIndex

            if tree_digest(folder) != entry.digest:
                return None
            index = UsrLshIndex.load(folder / "codes")
        except (OSError, ValueError, PilotwaveError):
            return None
        self._open[backbone] = _Indexed(index, np.zeros(0, np.uint64), saved=True)
        return self._open[backbone]

    def _rows_of(self, contents: Contents, backbone: str) -> tuple[Rows, Rows]:
        """Returns the rows of a backbone that have a latent, and how many numbers each latent has."""
        generation, seen, rows, widths = self._rows.get(backbone, (-1, 0, *_NONE))
        if generation != contents.manifest.generation or seen > contents.rows:
            seen, (rows, widths) = 0, _NONE
        if seen < contents.rows:
            fresh = None if seen == 0 else np.arange(seen, contents.rows)
            table = contents.read(["backbone", "latent_shape"], fresh)
            chosen = pc.and_(pc.equal(table.column(0), backbone), pc.is_valid(table.column(1)))
            inside = np.nonzero(chosen.fill_null(False).to_numpy(zero_copy_only=False))[0]
            rows = np.concatenate([rows, inside + seen])
            widths = np.concatenate([widths, _widths(table.column(1).take(inside))])
            self._rows[backbone] = (contents.manifest.generation, contents.rows, rows, widths)
        return rows, widths


def _add(indexed: _Indexed, digests: Digests, latents: npt.NDArray[np.float32]) -> None:
    lengths = np.sqrt((latents.astype(np.float64) ** 2).sum(1))
    fit = np.isfinite(lengths) & (lengths < _LONGEST * indexed.index.scale)
    indexed.index.add(digests[fit].view(np.int64), latents[fit])
    indexed.unfit = np.concatenate([indexed.unfit, digests[~fit]])


_NONE = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def _widths(shapes: pc.ChunkedArray) -> Rows:
    """Returns the product of each list of numbers."""
    lengths = pc.list_value_length(shapes).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = pc.list_flatten(shapes).to_numpy(zero_copy_only=False).astype(np.int64)
    products = np.ones(len(lengths), np.int64)
    ends = lengths.cumsum()
    for place in range(int(lengths.max(initial=0))):
        there = lengths > place
        products[there] *= flat[(ends - lengths)[there] + place]
    return products


def _ranked(
    contents: Contents, queries: npt.NDArray[np.float32], ids: npt.NDArray[np.uint64], count: int
) -> tuple[npt.NDArray[np.float64], Rows]:
    distances, rows = np.full((len(queries), count), np.inf), np.full((len(queries), count), -1, np.int64)
    for place, (query, proposed) in enumerate(zip(queries, ids, strict=True)):
        found = contents.rows_of_digests(proposed)
        found = found[found >= 0]
        latents = contents.latents(found, queries.shape[1]).astype(np.float64)
        exact = np.sqrt(((latents - query.astype(np.float64)) ** 2).sum(1))
        order = np.lexsort((found, exact))[:count]
        distances[place, : len(order)], rows[place, : len(order)] = exact[order], found[order]
    return distances, rows


def index_damage(archive: Path, indexes: Mapping[str, IndexEntry]) -> list[tuple[str, str]]:
    """Returns the folders of saved indexes that are damaged, and how."""
    found = []
    for entry in indexes.values():
        folder = archive / entry.names()[0]
        if not folder.is_dir():
            found.append((entry.names()[0], "it is missing"))
        elif tree_digest(folder) != entry.digest:
            found.append((entry.names()[0], "its checksum does not hold; it is built anew when it is used"))
    return found


__all__ = ["BITS", "CANDIDATES", "NeighbourIndexes", "index_damage"]
