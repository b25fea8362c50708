"""The index itself: what is put in, found, and taken out again.

May import numpy, errors and the modules beside it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pilotwave.archive.usr_lsh import reranking
from pilotwave.archive.usr_lsh.compiling import available_threads, ranges_of, side_by_side
from pilotwave.archive.usr_lsh.files import load_index, save_index
from pilotwave.archive.usr_lsh.frame import Frame, make_frame
from pilotwave.archive.usr_lsh.scanning import scan
from pilotwave.archive.usr_lsh.slots import Slots
from pilotwave.errors import InputError

Floats = npt.NDArray[np.float32]
Identifiers = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]

PADDING = -1
"""The id where fewer than k were found."""
_QUERIES_A_TASK = 16
_WORTH_THREADS = 1_000_000
_NO_ID = np.iinfo(np.int64).max


class UsrLshIndex:
    """Finds near vectors by short codes, and forgets at once and without trace.

    Everything is fixed at creation and nothing depends on the data: an index after insertions and deletions in any
    order and in any batches equals, bit for bit, one that never held what was deleted. All methods may be called
    from several threads; they take turns, and each uses several threads itself.

    Args:
        dim: Numbers in a vector.
        bits: Of a code; a power of two from 64 to 8192.
        anchor: A *public* sample of shape (m, dim) that may be kept for ever: its mean and its principal axes
            become part of the index. None: the origin and random axes.
        sweeps: Of coordinate descent over a code's bits, at most.
        update: ``"descent"``, or ``"sign"`` for the paper's update of all bits at once.
        seed: Of everything random.
        reduced: Dimensions that vectors are projected to; by default dim if that is at most bits / 2, otherwise
            bits / 2 without a sample and bits / 3 with one.
        scale: The unit in which lengths are stored in half precision: vectors up to 255 of it from the anchor fit,
            and below 0.01 of it precision is lost. By default the power of two nearest to sqrt(dim), or to the
            sample's root mean square distance from its mean.
        threads: By default as many as there are cores, or ``OMP_NUM_THREADS``; results never depend on it.

    Raises:
        InputError: An argument is out of range.
        MissingDependencyError: numba is not installed (at import).
    """

    def __init__(
        self,
        dim: int,
        bits: int = 512,
        anchor: npt.ArrayLike | None = None,
        sweeps: int = 4,
        update: str = "descent",
        seed: int = 0,
        *,
        reduced: int | None = None,
        scale: float | None = None,
        threads: int | None = None,
    ) -> None:
        self._threads = threads or available_threads()
        self._lock = threading.RLock()
        self._frame = make_frame(dim, bits, anchor, sweeps, update, seed, reduced, scale, self._threads)
        self._slots = Slots.empty(self._frame.words)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, threads: int | None = None) -> Self:
        """Reads what :meth:`save` wrote, checking every byte; the codes are then mapped into memory, not copied.

        Changes are made in memory: the file stays as it is until the next :meth:`save`.

        Raises:
            CheckpointError: There is no such file, or it is truncated, damaged (the message names the part), or of
                another kind or format.
            StorageError: It could not be read.
        """
        return cls._of(*load_index(Path(path)), threads)

    @classmethod
    def _of(cls, frame: Frame, slots: Slots, threads: int | None) -> Self:
        index = cls.__new__(cls)
        index._threads = threads or available_threads()
        index._lock = threading.RLock()
        index._frame, index._slots = frame, slots
        return index

    def empty_copy(self) -> Self:
        """Returns an empty index with the same frame: equal vectors get equal codes in both."""
        return self._of(self._frame, Slots.empty(self._frame.words), self._threads)

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._frame.dim

    @property
    def bits(self) -> int:
        """Of a code."""
        return self._frame.bits

    @property
    def reduced(self) -> int:
        """Dimensions that vectors are projected to."""
        return len(self._frame.rows)

    @property
    def scale(self) -> float:
        """The unit in which lengths are stored."""
        return self._frame.scale

    @property
    def nbytes(self) -> int:
        """Bytes of memory that codes, ids and the map from ids take, free room included; without the frame."""
        with self._lock:
            return self._slots.nbytes

    @property
    def ids(self) -> Identifiers:
        """All ids, rising; a copy."""
        with self._lock:
            return np.sort(self._slots.ids[: self._slots.count])

    def __len__(self) -> int:
        return self._slots.count

    def __contains__(self, one: object) -> bool:
        if not isinstance(one, int | np.integer) or not 0 <= int(one) < 2**63:
            return False
        with self._lock:
            return bool(self._slots.find(np.array([one], dtype=np.int64))[0] >= 0)

    def __repr__(self) -> str:
        return f"UsrLshIndex(dim={self.dim}, bits={self.bits}, reduced={self.reduced}; {len(self)} vectors)"

    def add(self, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Adds vectors: all, or none if anything is wrong with one of them.

        Args:
            ids: Whole numbers from 0, (n,), none of them here yet.
            vectors: Finite numbers, (n, dim); worked with in float32.

        Raises:
            InputError: Shapes differ from that, an id is there twice, or a vector is not finite or too far away.
        """
        keys, rows = _checked_ids(ids), self._checked("vectors", vectors)
        if len(keys) != len(rows):
            raise InputError(f"ids: expected one for each of {len(rows)} vectors, got {len(keys)}")
        if len(keys) and keys.min() < 0:
            raise InputError(f"ids: expected whole numbers from 0, got {keys.min()}")
        ordered = np.sort(keys)
        again = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(again):
            raise InputError(f"ids: {again[0]} is given twice")
        with self._lock:
            self._refuse_known(keys)
        codes = self._frame.encode(rows, self._threads)
        with self._lock:
            self._refuse_known(keys)
            self._slots.append(keys, *codes)

    def _refuse_known(self, keys: Identifiers) -> None:
        known = keys[self._slots.find(keys) >= 0]
        if len(known):
            raise InputError(f"ids: {known[0]} is in the index already; remove it first")

    def remove(self, ids: npt.ArrayLike) -> list[int]:
        """Removes vectors for good.

        Args:
            ids: (n,); one that is given twice counts once.

        Returns:
            Those that were not there, as they were given.
        """
        keys = _checked_ids(ids)
        with self._lock:
            missing = self._slots.remove(keys)
        if not missing.any():
            return []
        removed = set(keys[~missing].tolist())
        return [key for key in dict.fromkeys(keys[missing].tolist()) if key not in removed]

    def search(
        self,
        queries: npt.ArrayLike,
        k: int,
        rerank: int | None = None,
        vectors: Callable[[Identifiers], npt.ArrayLike] | npt.NDArray[Any] | None = None,
    ) -> tuple[Distances, Identifiers]:
        """Finds the nearest vectors.

        Args:
            queries: Finite numbers, (n, dim).
            k: How many for each.
            rerank: So many candidates, at least k, are compared exactly. None: distances are estimates from codes.
            vectors: The index does not hold the vectors, so reranking asks for them: a function from ids (m,) to
                vectors (m, dim), or an array (memory-mapped, say) whose row i is the vector of id i.

        Returns:
            Euclidean distances, in the vectors' own unit, and ids, both (n, k), the nearest first, equal ones by
            id. Where fewer than k were found the distance is infinite and the id -1. Without ``rerank`` distances
            are estimated (0 where the estimate of the square is negative), with it they are exact.

        Raises:
            InputError: A query, k, rerank or what ``vectors`` gave is not as described.
        """
        rows = self._checked("queries", queries)
        _check_count("k", k, 1)
        if rerank is None:
            return _padded(*self._nearest(rows, k), k)
        _check_count("rerank", rerank, k)
        if vectors is None:
            raise InputError("rerank: the index does not hold the vectors; give vectors, a function or an array")
        _, candidates = self._nearest(rows, rerank)
        return _padded(*reranking.rerank(rows, candidates, min(k, candidates.shape[1]), vectors), k)

    def _nearest(self, queries: Floats, k: int) -> tuple[Distances, Identifiers]:
        """The at most k nearest by their codes: (n, min(k, len)) each."""
        frame = self._frame
        planes, steps, norms = frame.prepare(queries, self._threads)
        if not (np.isfinite(steps).all() and np.isfinite(norms).all()):
            raise InputError("queries: expected numbers whose squares have a sum within float32")
        with self._lock:
            slots = self._slots
            k = min(k, slots.count)
            work = len(queries) * slots.count * frame.words // 8
            threads = self._threads if work > _WORTH_THREADS else 1
            groups = ranges_of(len(queries), _QUERIES_A_TASK)
            cuts = 1 if len(groups) >= threads else threads
            ranges = ranges_of(slots.count, max(1, -(-slots.count // cuts)))
            shape = (len(ranges), len(queries), k)
            scores, keys = np.full(shape, -np.inf, dtype=np.float32), np.full(shape, _NO_ID, dtype=np.int64)

            def search_range(part: int, group: tuple[int, int]) -> None:
                place = slice(*group)
                arrays = slots.codes, slots.factors, slots.norms, slots.ids
                found = scores[part, place], keys[part, place]
                scan(*arrays, *ranges[part], planes[place], steps[place], *found)

            if k:
                tasks = [(part, group) for group in groups for part in range(len(ranges))]
                side_by_side(search_range, tasks, threads)
        flat = np.moveaxis(scores, 0, 1).reshape(len(queries), len(ranges) * k)
        ids = np.moveaxis(keys, 0, 1).reshape(len(queries), len(ranges) * k)
        order = np.lexsort((ids, -flat), axis=-1)[:, :k]
        best = np.take_along_axis(flat, order, axis=-1).astype(np.float64)
        squares = frame.stretch * (norms[:, None] - frame.scale**2 * best)
        return np.sqrt(np.maximum(squares, 0.0)), np.take_along_axis(ids, order, axis=-1)

    def digest(self) -> str:
        """SHA-256, in hexadecimal digits, of the frame, ids, codes and their numbers in the order of ids."""
        with self._lock:
            return self._slots.digest(self._frame.digest)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index into one file; after a crash at any moment it is the old one or the new one.

        Raises:
            StorageError: It could not be written.
        """
        with self._lock:
            save_index(Path(path), self._frame, self._slots)

    def _checked(self, name: str, given: npt.ArrayLike) -> Floats:
        try:
            with np.errstate(over="ignore"):
                rows = np.ascontiguousarray(given, dtype=np.float32)
        except (TypeError, ValueError):
            raise InputError(f"{name}: expected numbers of shape (n, {self.dim})") from None
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError(f"{name}: expected shape (n, {self.dim}), got {np.shape(given)}")
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise InputError(f"{name}: expected finite float32 numbers, but row {np.argmin(finite)} has others")
        return rows


def _checked_ids(given: npt.ArrayLike) -> Identifiers:
    ids = np.asarray(given)
    if ids.size == 0 and ids.ndim <= 1:
        return np.zeros(0, dtype=np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise InputError(f"ids: expected whole numbers of shape (n,), got {ids.dtype} of shape {ids.shape}")
    if ids.dtype == np.uint64 and ids.max() > np.iinfo(np.int64).max:
        raise InputError(f"ids: expected whole numbers below 2^63, got {ids.max()}")
    return ids.astype(np.int64)


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}: expected a whole number from {least}, got {value!r}")


def _padded(distances: Distances, ids: Identifiers, k: int) -> tuple[Distances, Identifiers]:
    room = ((0, 0), (0, k - ids.shape[1]))
    return (
        np.pad(distances, room, constant_values=np.inf),
        np.pad(ids, room, constant_values=PADDING),
    )


__all__ = ["UsrLshIndex"]
