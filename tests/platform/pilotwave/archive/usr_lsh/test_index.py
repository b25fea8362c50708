"""What an index promises to those who use it: what is found, what is refused, and which distances come back."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pilotwave.archive import UsrLshIndex
from pilotwave.errors import InputError, MissingDependencyError

Draw = Callable[..., np.ndarray]


def exact(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = np.linalg.norm(queries[:, None].astype(np.float64) - vectors[None], axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)]))


@pytest.mark.parametrize("anchored", [True, False])
def test_near_vectors_are_found_and_more_bits_find_more(draw: Draw, anchored: bool) -> None:
    vectors, queries, public = draw(3000, 96), draw(60, 96, seed=1), draw(500, 96, seed=2)
    _, true = exact(queries, vectors, 10)
    found = {}
    for bits in (64, 256, 512):
        index = UsrLshIndex(96, bits, public if anchored else None, seed=3)
        index.add(np.arange(3000), vectors)
        found[bits] = recall(index.search(queries, 10)[1], true)
    assert found[64] < found[256] <= found[512] + 0.02
    assert found[512] > 0.6


def test_descent_finds_more_than_the_paper_s_update(draw: Draw) -> None:
    vectors, queries = draw(3000, 128), draw(100, 128, seed=1)
    _, true = exact(queries, vectors, 10)
    found = {}
    for update in ("descent", "sign"):
        index = UsrLshIndex(128, 128, draw(400, 128, seed=2), update=update)
        index.add(np.arange(3000), vectors)
        found[update] = recall(index.search(queries, 10)[1], true)
    assert found["descent"] > found["sign"]


@pytest.mark.parametrize("anchored", [True, False])
def test_estimated_distances_are_in_the_vectors_own_unit(draw: Draw, anchored: bool) -> None:
    vectors, queries = 40.0 * draw(500, 300), 40.0 * draw(50, 300, seed=1)
    index = UsrLshIndex(300, 256, 40.0 * draw(800, 300, seed=2) if anchored else None, scale=4096.0)
    index.add(np.arange(500), vectors)
    estimated, ids = index.search(queries, 500)
    true = np.linalg.norm(queries[:, None] - vectors[ids], axis=2)
    assert np.median(np.abs(estimated / true - 1.0)) < 0.1
    assert (np.diff(estimated, axis=1) >= 0.0).all()


@pytest.mark.parametrize("source", ["array", "function"])
def test_reranked_distances_are_exact(draw: Draw, source: str) -> None:
    vectors, queries = draw(400, 50), draw(30, 50, seed=1)
    index = UsrLshIndex(50, 64)
    index.add(np.arange(400), vectors)
    given: Any = vectors if source == "array" else lambda ids: vectors[ids].astype(np.float64)
    distances, ids = index.search(queries, 5, rerank=400, vectors=given)
    true_distances, true_ids = exact(queries, vectors, 5)
    np.testing.assert_array_equal(ids, true_ids)
    np.testing.assert_allclose(distances, true_distances, rtol=1e-9)
    plain = index.search(queries, 30)[1]
    some = index.search(queries, 5, rerank=30, vectors=given)[1]
    assert all(set(few) <= set(many) for few, many in zip(some, plain, strict=True))


def test_what_is_missing_is_padded(draw: Draw) -> None:
    vectors = draw(3, 8)
    index = UsrLshIndex(8, 64)
    for vectors_of in (None, vectors):
        rerank = None if vectors_of is None else 9
        distances, ids = index.search(vectors, 2, rerank, vectors_of)
        assert (ids == -1).all()
        assert np.isinf(distances).all()
    index.add([2, 0, 1], vectors[[2, 0, 1]])
    for rerank, source in ((None, None), (9, vectors)):
        distances, ids = index.search(vectors, 5, rerank, source)
        assert ids.shape == distances.shape == (3, 5)
        assert (ids[:, 0] == [0, 1, 2]).all()
        assert (ids[:, 3:] == -1).all()
        assert np.isinf(distances[:, 3:]).all()
        assert np.isfinite(distances[:, :3]).all()
    assert index.search(np.zeros((0, 8)), 4)[1].shape == (0, 4)


def test_membership_removal_and_what_was_missing(draw: Draw) -> None:
    vectors = draw(50, 8)
    index = UsrLshIndex(8, 64)
    index.add(np.arange(100, 150), vectors)
    assert len(index) == 50
    assert 100 in index
    assert np.int64(149) in index
    assert not any(one in index for one in (99, 150, -1, 2**70, "100", 100.0, None))
    assert index.remove([149, 7, 100, 149, -3, 7]) == [7, -3]
    assert index.remove([]) == []
    assert 100 not in index
    assert index.ids.tolist() == list(range(101, 149))
    assert index.search(vectors[:1], 48)[1].min() == 101
    index.add([100], vectors[:1])
    assert index.search(vectors[:1], 1)[1].tolist() == [[100]]


def test_equal_vectors_come_in_the_order_of_ids(draw: Draw) -> None:
    one = draw(1, 16)
    index = UsrLshIndex(16, 64)
    for key in (7, 3, 9, 1):
        index.add([key], one)
    assert index.search(one, 3)[1].tolist() == [[1, 3, 7]]
    assert index.search(one, 3, 4, lambda ids: np.repeat(one, len(ids), axis=0))[1].tolist() == [[1, 3, 7]]


def test_vectors_on_the_anchor_and_queries_on_it(draw: Draw) -> None:
    index = UsrLshIndex(16, 64)
    index.add([0, 1], np.stack([np.zeros(16), np.ones(16)]))
    distances, ids = index.search(np.zeros((1, 16)), 2)
    assert ids.tolist() == [[0, 1]]
    assert distances[0].tolist() == [0.0, 4.0]


def test_threads_and_slots_do_not_change_what_is_found(draw: Draw) -> None:
    vectors, queries = draw(60_000, 16), draw(3, 16, seed=1)
    one, many = UsrLshIndex(16, 512, threads=1), UsrLshIndex(16, 512, threads=5)
    one.add(np.arange(60_000), vectors)
    order = np.random.default_rng(0).permutation(60_000)
    many.add(order, vectors[order])
    for ours, theirs in zip(one.search(queries, 50), many.search(queries, 50), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert one.digest() == many.digest()


def test_several_threads_may_use_an_index(draw: Draw) -> None:
    vectors = draw(4000, 16)
    index = UsrLshIndex(16, 64, threads=2)
    index.add(np.arange(2000), vectors[:2000])
    failures: list[BaseException] = []

    def change(first: int) -> None:
        try:
            for start in range(first, first + 1000, 50):
                keys = np.arange(start, start + 50)
                index.add(keys, vectors[keys])
                found = index.search(vectors[:20], 3)[1]
                assert (found[:, 0] == np.arange(20)).all()
                assert index.remove(keys[::2]) == []
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=change, args=(first,)) for first in (2000, 3000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    fresh = index.empty_copy()
    fresh.add(index.ids, vectors[index.ids])
    assert len(fresh) == 3000
    assert fresh.digest() == index.digest()


GOOD = np.ones((2, 8), dtype=np.float32)
REFUSED: list[tuple[str, Callable[[UsrLshIndex], Any]]] = [
    ("ids: 4 is given twice", lambda index: index.add([4, 4], GOOD)),
    ("ids: 1 is in the index already", lambda index: index.add([2, 1], GOOD)),
    ("ids: expected one for each of 2 vectors, got 1", lambda index: index.add([4], GOOD)),
    ("ids: expected whole numbers from 0, got -1", lambda index: index.add([4, -1], GOOD)),
    ("ids: expected whole numbers of shape", lambda index: index.add([4.0, 5.0], GOOD)),
    ("ids: expected whole numbers of shape", lambda index: index.add(["a", "b"], GOOD)),
    ("ids: expected whole numbers of shape", lambda index: index.remove([[1]])),
    ("below 2\\^63", lambda index: index.add(np.array([4, 2**63], dtype=np.uint64), GOOD)),
    ("vectors: expected shape \\(n, 8\\), got \\(2, 7\\)", lambda index: index.add([4, 5], GOOD[:, :7])),
    ("vectors: expected shape \\(n, 8\\), got \\(8,\\)", lambda index: index.add([4], GOOD[0])),
    ("vectors: expected numbers", lambda index: index.add([4], [["x"] * 8])),
    ("but row 1 has others", lambda index: index.add([4, 5], GOOD * [[1.0], [np.nan]])),
    ("but row 0 has others", lambda index: index.add([4, 5], GOOD * [[np.inf], [1.0]])),
    ("but row 1 has others", lambda index: index.add([4, 5], GOOD * [[1.0], [1e300]])),
    ("row 1 lies .* away; give a larger scale", lambda index: index.add([4, 5], GOOD * [[1.0], [1e4]])),
    ("row 0 lies .* away; give a larger scale", lambda index: index.add([4, 5], GOOD * [[1e30], [1.0]])),
    ("queries: expected finite", lambda index: index.search(GOOD * np.nan, 1)),
    ("queries: expected shape", lambda index: index.search(GOOD[0], 1)),
    ("queries: expected numbers whose squares", lambda index: index.search(GOOD * 3e38, 1)),
    ("k: expected a whole number from 1, got 0", lambda index: index.search(GOOD, 0)),
    ("k: expected a whole number from 1, got 1.5", lambda index: index.search(GOOD, 1.5)),  # type: ignore[arg-type]
    ("rerank: expected a whole number from 3, got 2", lambda index: index.search(GOOD, 3, 2, GOOD)),
    ("rerank: the index does not hold the vectors", lambda index: index.search(GOOD, 1, 2)),
    ("vectors: expected a row for id 1, got 1 rows", lambda index: index.search(GOOD, 1, 2, GOOD[:1])),
    ("vectors: expected finite numbers of shape", lambda index: index.search(GOOD, 1, 2, lambda ids: GOOD[:1])),
]


@pytest.mark.parametrize(("message", "act"), REFUSED)
def test_bad_input_is_refused_and_nothing_changes(message: str, act: Callable[[UsrLshIndex], Any]) -> None:
    index = UsrLshIndex(8, 64)
    index.add([0, 1], GOOD)
    before = index.digest()
    with pytest.raises(InputError, match=message):
        act(index)
    assert index.digest() == before
    assert len(index) == 2


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("dim: expected a whole number from 1", {"dim": 0}),
        ("dim: expected a whole number from 1", {"dim": 8.0}),
        ("bits: expected a power of two from 64 to 8192, got 96", {"bits": 96}),
        ("bits: expected a whole number from 64", {"bits": 32}),
        ("update: expected one of descent, sign, got 'newton'", {"update": "newton"}),
        ("sweeps: expected", {"sweeps": -1}),
        ("seed: expected", {"seed": -1}),
        ("seed: expected", {"seed": True}),
        ("reduced: expected a whole number from 1 to 8", {"reduced": 9}),
        ("scale: expected a finite number above 0", {"scale": 0.0}),
        ("anchor: expected a public sample of shape \\(m, 8\\), got \\(8,\\)", {"anchor": np.ones(8)}),
        ("anchor: expected a public sample of shape \\(m, 8\\), got \\(0, 8\\)", {"anchor": np.ones((0, 8))}),
        ("anchor: expected finite numbers", {"anchor": np.full((3, 8), np.nan)}),
        ("anchor: expected numbers of shape", {"anchor": [["a"] * 8]}),
    ],
)
def test_bad_settings_are_refused(message: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=message):
        UsrLshIndex(**{"dim": 8, **arguments})


def test_the_archive_s_package_imports_without_numba_until_the_index_is_asked_for() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import pilotwave.archive, pilotwave.archive.ledger\n"
        "from pilotwave.errors import MissingDependencyError\n"
        "try:\n    from pilotwave.archive import UsrLshIndex\n"
        "except MissingDependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        done.stdout.strip()
        == "the index needs numba, which is not installed; run: pip install 'pilotwave[archive]'"
    )
    assert issubclass(MissingDependencyError, InputError)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import pilotwave.archive

    with pytest.raises(AttributeError, match="no attribute 'Index'"):
        _ = pilotwave.archive.Index
