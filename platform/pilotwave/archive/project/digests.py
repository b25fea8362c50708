"""Finding rows by short digests with sorted arrays: a million of them cost 12 MB and no dict.

A digest that is found is a candidate only; the caller compares what was digested. May import numpy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

_UNSORTED = 4096


def find_sorted(digests: Digests, rows: npt.NDArray[np.uint32], wanted: Digests) -> tuple[Rows, Rows]:
    """Finds digests in a sorted array.

    Args:
        digests: Sorted, shape (n,).
        rows: The row of each, shape (n,).
        wanted: What to look for, shape (m,).

    Returns:
        Positions in ``wanted`` and the rows found for them, both of shape (hits,).
    """
    first = np.searchsorted(digests, wanted, side="left")
    last = np.searchsorted(digests, wanted, side="right")
    hits = np.nonzero(last > first)[0]
    if not len(hits):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    counts = (last - first)[hits]
    places = np.repeat(first[hits], counts) + np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    return np.repeat(hits, counts), rows[places].astype(np.int64)


class DigestTable:
    """Digests of rows that keep coming: the many sorted, the last few in a dict."""

    def __init__(self) -> None:
        self._sorted: Digests = np.zeros(0, np.uint64)
        self._rows: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._late: list[Digests] = []
        self._recent: dict[int, list[int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, digests: Digests) -> None:
        """Adds the digests of the next rows."""
        self._late.append(digests.astype(np.uint64))
        late = self._count - len(self._sorted) + len(digests)
        if late > max(_UNSORTED, len(self._sorted) // 4):
            self._count += len(digests)
            self._merge()
            return
        for digest in digests.tolist():
            self._recent.setdefault(digest, []).append(self._count)
            self._count += 1

    def find(self, wanted: Digests) -> tuple[Rows, Rows]:
        """Returns positions in ``wanted`` and the rows found for them, as :func:`find_sorted` does."""
        positions, rows = find_sorted(self._sorted, self._rows, wanted)
        late = [
            (place, row) for place, digest in enumerate(wanted.tolist()) for row in self._recent.get(digest, ())
        ]
        if not late:
            return positions, rows
        more = np.array(late, np.int64)
        return np.concatenate([positions, more[:, 0]]), np.concatenate([rows, more[:, 1]])

    def in_row_order(self) -> Digests:
        """Returns the digest of every row, shape (n,)."""
        return np.concatenate([in_row_order(self._sorted, self._rows), *self._late])

    def _merge(self) -> None:
        everything = self.in_row_order()
        order = np.argsort(everything, kind="stable")
        self._sorted, self._rows = everything[order], order.astype(np.uint32)
        self._late, self._recent = [], {}


def in_row_order(digests: Digests, rows: npt.NDArray[np.uint32]) -> Digests:
    """Undoes the sorting of digests."""
    found = np.empty(len(digests), np.uint64)
    found[rows] = digests
    return found


__all__ = ["DigestTable", "Digests", "Rows", "find_sorted", "in_row_order"]
