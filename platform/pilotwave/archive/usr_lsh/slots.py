"""Where codes lie: arrays of slots without gaps, and the map from ids to slots.

An id's slot is found by open addressing with linear probing: a table of slot numbers, 4 bytes each, whose keys are
the ids in the slots themselves. Taking an entry out shifts back what follows it, so a table never fills with
gravestones; taking a code out moves the last slot into its place and zeroes the vacated one. Slots beyond the last
are always zero.

May import numpy, pilotwave.errors and the module ``compiling``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotwave.archive.usr_lsh.compiling import compiled
from pilotwave.errors import InputError

Halves = npt.NDArray[np.uint16]
Identifiers = npt.NDArray[np.int64]
Table = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]

LEAST_CAPACITY = 1024
MOST_SLOTS = 2**30
_EMPTY = -1
_ROWS_AT_A_TIME = 65_536


@compiled
def _home(key: int, mask: int) -> Any:
    """Where an id would lie in an empty table (the finaliser of splitmix64)."""
    mixed = np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((mixed ^ (mixed >> np.uint64(31))) & np.uint64(mask))


@compiled
def _place(table: Table, ids: Identifiers, key: int) -> Any:
    """The place in the table that names this id's slot, or the empty place where it would be named."""
    mask = table.shape[0] - 1
    place = _home(key, mask)
    while table[place] != _EMPTY and ids[table[place]] != key:
        place = (place + 1) & mask
    return place


@compiled
def _enter(table: Table, ids: Identifiers, start: int, stop: int) -> None:
    """Enters the ids of some slots."""
    for slot in range(start, stop):
        table[_place(table, ids, ids[slot])] = slot


@compiled
def _find(table: Table, ids: Identifiers, keys: Identifiers, slots: Table) -> None:
    """Fills in each key's slot, or -1."""
    for i in range(keys.shape[0]):
        slots[i] = table[_place(table, ids, keys[i])]


@compiled
def _take_out(
    table: Table,
    ids: Identifiers,
    codes: Words,
    factors: Halves,
    norms: Halves,
    count: int,
    keys: Identifiers,
    missing: npt.NDArray[np.bool_],
) -> int:
    """Takes keys out, one after the other, and says which were not there; returns how many slots remain."""
    mask = table.shape[0] - 1
    for i in range(keys.shape[0]):
        hole = _place(table, ids, keys[i])
        slot = table[hole]
        missing[i] = slot == _EMPTY
        if missing[i]:
            continue
        place = (hole + 1) & mask
        while table[place] != _EMPTY:
            home = _home(ids[table[place]], mask)
            if ((place - home) & mask) >= ((place - hole) & mask):
                table[hole] = table[place]
                hole = place
            place = (place + 1) & mask
        table[hole] = _EMPTY
        count -= 1
        if slot != count:
            table[_place(table, ids, ids[count])] = slot
            ids[slot], factors[slot], norms[slot] = ids[count], factors[count], norms[count]
            for w in range(codes.shape[1]):
                codes[slot, w] = codes[count, w]
        ids[count], factors[count], norms[count] = 0, 0, 0
        for w in range(codes.shape[1]):
            codes[count, w] = 0
    return count


class Slots:
    """Ids, codes and their two numbers.

    Attributes:
        count: Slots in use, the first ones.
        ids: (capacity,).
        codes: (capacity, words).
        factors: Half-precision bits, (capacity,).
        norms: Half-precision bits, (capacity,).
    """

    def __init__(self, ids: Identifiers, codes: Words, factors: Halves, norms: Halves) -> None:
        """Takes over full arrays; ids must be at least 0 and differ."""
        self.count = len(ids)
        self.ids, self.codes, self.factors, self.norms = ids, codes, factors, norms
        self._table = self._fresh_table()

    @classmethod
    def empty(cls, words: int) -> Slots:
        """Returns slots without codes of so many words."""
        numbers = np.zeros(0, dtype=np.uint16)
        return cls(np.zeros(0, dtype=np.int64), np.zeros((0, words), dtype=np.uint64), numbers, numbers.copy())

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, free slots and the map included."""
        arrays = (self.ids, self.codes, self.factors, self.norms, self._table)
        return sum(array.nbytes for array in arrays)

    def find(self, keys: Identifiers) -> Table:
        """Returns each id's slot, or -1, (n,)."""
        slots = np.empty(len(keys), dtype=np.int32)
        _find(self._table, self.ids, keys, slots)
        return slots

    def append(self, ids: Identifiers, codes: Words, factors: Halves, norms: Halves) -> None:
        """Adds codes under ids that differ and are not here yet."""
        stop = self.count + len(ids)
        if stop > MOST_SLOTS:
            raise InputError(f"ids: an index holds at most {MOST_SLOTS} codes, but {stop} would be in it")
        if stop > len(self.ids):
            self._resize(max(LEAST_CAPACITY, 2 * len(self.ids), stop))
        place = slice(self.count, stop)
        self.ids[place], self.codes[place], self.factors[place], self.norms[place] = ids, codes, factors, norms
        _enter(self._table, self.ids, self.count, stop)
        self.count = stop

    def remove(self, keys: Identifiers) -> npt.NDArray[np.bool_]:
        """Takes codes out and returns which ids were not there, (n,)."""
        missing = np.empty(len(keys), dtype=np.bool_)
        arrays = self.ids, self.codes, self.factors, self.norms
        self.count = _take_out(self._table, *arrays, self.count, keys, missing)
        if len(self.ids) > LEAST_CAPACITY and 4 * self.count < len(self.ids):
            self._resize(max(LEAST_CAPACITY, 2 * self.count))
        return missing

    def in_order(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yields each array's name and its little-endian bytes in pieces, in the order of ids."""
        order = np.argsort(self.ids[: self.count])
        arrays: dict[str, npt.NDArray[Any]] = {
            "ids": self.ids,
            "codes": self.codes,
            "factors": self.factors,
            "norms": self.norms,
        }
        for name, array in arrays.items():
            yield name, _pieces(array, order)

    def digest(self, beginning: str) -> str:
        """SHA-256 of a text, the ids, the codes and their numbers, in the order of ids."""
        found = hashlib.sha256(f"{beginning} {self.count}".encode())
        for _, pieces in self.in_order():
            for piece in pieces:
                found.update(piece)
        return found.hexdigest()

    def _resize(self, capacity: int) -> None:
        """Moves everything into arrays with zeroed tails, and zeroes the old ones: they held codes."""
        for name in ("ids", "codes", "factors", "norms"):
            old = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]), dtype=old.dtype)
            new[: self.count] = old[: self.count]
            setattr(self, name, new)
            old[: self.count] = 0
        self._table = self._fresh_table()

    def _fresh_table(self) -> Table:
        """A table for all slots there are, at most two thirds full, with those in use entered."""
        size = 1 << (3 * max(len(self.ids), 1) // 2).bit_length()
        table = np.full(size, _EMPTY, dtype=np.int32)
        _enter(table, self.ids, 0, self.count)
        return table


def _pieces(array: npt.NDArray[Any], order: npt.NDArray[np.intp]) -> Iterator[bytes]:
    stored = array.dtype.newbyteorder("<")
    for start in range(0, len(order), _ROWS_AT_A_TIME):
        yield array[order[start : start + _ROWS_AT_A_TIME]].astype(stored, copy=False).tobytes()


__all__ = ["Slots"]
