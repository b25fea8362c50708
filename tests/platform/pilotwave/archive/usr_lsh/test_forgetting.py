"""An index that forgot equals, bit for bit, one that never knew."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.archive import UsrLshIndex
from pilotwave.archive.usr_lsh import slots as slots_module

Draw = Callable[..., np.ndarray]
COUNT = 40


@pytest.fixture(scope="module")
def frames(draw: Draw) -> list[UsrLshIndex]:
    return [UsrLshIndex(6, 64, threads=1), UsrLshIndex(70, 64, draw(90, 70, seed=5), update="sign", threads=1)]


@pytest.fixture(scope="module")
def small_arrays() -> Iterator[None]:
    """Arrays so small that a history of a few vectors grows and shrinks them; no waiting for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots_module, "LEAST_CAPACITY", 4)
        patch.setattr(os, "fsync", lambda handle: None)
        yield


class History:
    """A random history of insertions and deletions, and what should be left of it."""

    def __init__(self, index: UsrLshIndex, vectors: np.ndarray) -> None:
        self.index, self.vectors = index, vectors
        self.version: dict[int, int] = {}

    def add(self, keys: list[int], shift: int) -> None:
        keys = [key for key in dict.fromkeys(keys) if key not in self.version]
        rows = [(key + shift) % COUNT for key in keys]
        self.index.add(np.array(keys, dtype=np.int64), self.vectors[np.array(rows, dtype=np.int64)])
        self.version |= dict(zip(keys, rows, strict=True))

    def remove(self, keys: list[int]) -> None:
        missing = [key for key in dict.fromkeys(keys) if key not in self.version]
        assert self.index.remove(np.array(keys, dtype=np.int64)) == missing
        for key in keys:
            self.version.pop(key, None)

    def fresh(self, order: np.random.Generator) -> UsrLshIndex:
        """What never held anything else, built in another order and in other batches."""
        index = self.index.empty_copy()
        keys = order.permutation(np.array(list(self.version), dtype=np.int64))
        for part in np.array_split(keys, order.integers(1, 4)):
            rows = np.array([self.version[int(key)] for key in part], dtype=np.int64)
            index.add(part, self.vectors[rows])
        return index


keys = st.lists(st.integers(0, COUNT - 1), max_size=12)
steps = st.lists(
    st.one_of(st.tuples(st.just("add"), keys, st.integers(0, 3)), st.tuples(st.just("remove"), keys, st.just(0))),
    max_size=8,
)


@pytest.mark.usefixtures("small_arrays")
@given(history=steps, frame=st.integers(0, 1), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=1000, deadline=None)
def test_what_was_deleted_leaves_no_trace(
    frames: list[UsrLshIndex],
    draw: Draw,
    tmp_path_factory: pytest.TempPathFactory,
    history: list[tuple[str, list[int], int]],
    frame: int,
    seed: int,
) -> None:
    kept = History(frames[frame].empty_copy(), draw(COUNT, frames[frame].dim))
    for step, some, shift in history:
        if step == "add":
            kept.add(some, shift)
        else:
            kept.remove(some)
    random = np.random.default_rng(seed)
    fresh = kept.fresh(random)
    assert kept.index.digest() == fresh.digest()
    assert kept.index.ids.tolist() == sorted(kept.version)
    assert all(key in kept.index for key in kept.version)
    slots = kept.index._slots
    for array in (slots.ids, slots.codes, slots.factors, slots.norms):
        assert not array[slots.count :].any()
    path = tmp_path_factory.getbasetemp() / "history.usr"
    kept.index.save(path)
    written = path.read_bytes()
    loaded = UsrLshIndex.load(path, threads=1)
    assert loaded.digest() == fresh.digest()
    fresh.save(path)
    assert path.read_bytes() == written
    gone = random.integers(0, COUNT, 10).tolist()
    again = History(loaded, kept.vectors)
    again.version = dict(kept.version)
    again.remove(gone)
    again.add(gone, 1)
    assert loaded.digest() == again.fresh(random).digest()


def test_deleting_in_pieces_from_many_leaves_no_trace(draw: Draw) -> None:
    vectors = draw(20_000, 6)
    index = UsrLshIndex(6, 64)
    random = np.random.default_rng(0)
    order = random.permutation(20_000)
    for part in np.array_split(order, 7):
        index.add(part, vectors[part])
    gone = random.permutation(20_000)[:19_000]
    before = index.nbytes
    for part in np.array_split(gone, 13):
        assert index.remove(part) == []
    assert index.nbytes < before / 4
    kept = np.setdiff1d(np.arange(20_000), gone)
    assert index.ids.tolist() == kept.tolist()
    fresh = index.empty_copy()
    fresh.add(kept, vectors[kept])
    assert fresh.digest() == index.digest()


def test_a_digest_changes_with_anything(draw: Draw) -> None:
    vectors, public = draw(4, 70), draw(30, 70, seed=1)
    digests = set()
    variants: list[dict[str, object]] = [
        {},
        {"anchor": public},
        {"anchor": public[:-1]},
        {"seed": 1},
        {"bits": 128},
        {"sweeps": 3},
        {"update": "sign"},
        {"reduced": 20},
        {"scale": 3.0},
    ]
    for variant in variants:
        for count in (0, 3, 4):
            index = UsrLshIndex(70, **{"bits": 64, **variant})  # type: ignore[arg-type]
            index.add(np.arange(count), vectors[:count])
            digests.add(index.digest())
    moved = UsrLshIndex(70, 64)
    moved.add([0, 1, 2, 4], vectors)
    digests.add(moved.digest())
    assert len(digests) == 3 * len(variants) + 1
