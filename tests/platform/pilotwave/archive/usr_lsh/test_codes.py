"""Codes and scores: independent of batches, true to the definition, and compared with it in plain numpy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.archive.usr_lsh import compiling
from pilotwave.archive.usr_lsh.encoding import PLANES
from pilotwave.archive.usr_lsh.frame import Frame, make_frame
from pilotwave.archive.usr_lsh.index import UsrLshIndex
from pilotwave.archive.usr_lsh.orthonormal import principal_axes, random_columns

Draw = Callable[..., np.ndarray]


def frame_of(dim: int, bits: int, anchor: np.ndarray | None = None, update: str = "descent") -> Frame:
    return make_frame(dim, bits, anchor, 4, update, 7, None, None, 1)


def tight_frame(frame: Frame) -> np.ndarray:
    """R, (reduced, bits), from the definition of the Hadamard matrix."""
    signs = np.array([[(int(row) & i).bit_count() % 2 for i in range(frame.bits)] for row in frame.rows])
    return (1.0 - 2.0 * signs) / np.sqrt(frame.bits)


def signs_of(codes: np.ndarray) -> np.ndarray:
    return np.unpackbits(codes.view(np.uint8), axis=1, bitorder="little") * 2.0 - 1.0


def reference_code(z: np.ndarray, R: np.ndarray, sweeps: int, update: str) -> np.ndarray:
    """Section 5 of the definition, word for word, in float64."""
    G = R.T @ R
    v = R.T @ z
    b = np.where(v >= 0, 1.0, -1.0)
    w = G @ b
    for _ in range(sweeps):
        s = (v @ b) / (w @ b)
        before = b.copy()
        if update == "sign":
            b = np.where(v / s + b - w >= 0, 1.0, -1.0)
            w = G @ b
        else:
            for i in range(len(b)):
                if s * G[i, i] < -b[i] * (v[i] - s * w[i]):
                    b[i] = -b[i]
                    w = w + 2.0 * b[i] * G[:, i]
        if (b == before).all():
            break
    return b


@pytest.mark.parametrize("update", ["descent", "sign"])
@pytest.mark.parametrize(("dim", "bits", "anchored"), [(20, 64, False), (100, 128, False), (100, 128, True)])
def test_codes_are_those_of_the_definition(draw: Draw, dim: int, bits: int, anchored: bool, update: str) -> None:
    frame = frame_of(dim, bits, draw(300, dim, seed=3) if anchored else None, update)
    vectors = draw(40, dim)
    codes, factors, norms = frame.encode(vectors, 1)
    R = tight_frame(frame)
    np.testing.assert_allclose(R @ R.T, np.eye(len(frame.rows)), atol=1e-12)
    signs, projection = signs_of(codes), frame.projection.astype(np.float64)
    same = 0
    for row, x in enumerate(vectors.astype(np.float64)):
        p = (x - frame.anchor) @ projection
        length = np.linalg.norm(p)
        expected = reference_code(p / length, R, 4, update)
        same += (signs[row] == expected).all()
        inner = (R.T @ p / length) @ signs[row]
        factor = factors[row].view(np.float16) * frame.scale
        assert factor == pytest.approx(2.0 * length / inner, rel=1e-3)
        whole = np.sum((x - frame.anchor) ** 2) if anchored else length**2
        assert norms[row].view(np.float16) * frame.scale**2 == pytest.approx(whole, rel=1e-3)
    # float32 may decide a near tie the other way, and the bits after it then differ too.
    assert same >= 38


def test_descent_reconstructs_better_than_signs_alone(draw: Draw) -> None:
    vectors = draw(50, 100)

    def error(update: str, sweeps: int) -> float:
        frame = make_frame(100, 128, None, sweeps, update, 0, None, None, 1)
        R, signs = tight_frame(frame), signs_of(frame.encode(vectors, 1)[0])
        p = vectors @ frame.projection
        z = p / np.linalg.norm(p, axis=1, keepdims=True)
        rebuilt = signs @ R.T
        cosine = (z * rebuilt).sum(axis=1) / np.linalg.norm(rebuilt, axis=1)
        return float(np.mean(1.0 - cosine**2))

    assert error("descent", 4) < 0.75 * error("descent", 0)
    assert error("descent", 4) <= error("descent", 1)


@pytest.mark.parametrize(("dim", "anchored"), [(6, False), (67, True), (300, False)])
@given(cuts=st.lists(st.integers(0, 60), max_size=6), threads=st.integers(1, 3), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_code_does_not_depend_on_its_batch(
    draw: Draw, dim: int, anchored: bool, cuts: list[int], threads: int, data: st.DataObject
) -> None:
    frame = frame_of(dim, 64, draw(80, dim, seed=1) if anchored else None)
    vectors = draw(60, dim, seed=2)
    whole = frame.encode(vectors, 1)
    places = sorted({0, 60, *cuts})
    parts = [frame.encode(vectors[a:b], threads) for a, b in itertools.pairwise(places)]
    for array, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(array, np.concatenate(pieces))
    order = np.array(data.draw(st.permutations(range(60))))
    for array, shuffled in zip(whole, frame.encode(np.asfortranarray(vectors)[order].copy(), 1), strict=True):
        np.testing.assert_array_equal(array[order], shuffled)
    planes, steps, norms = frame.prepare(vectors, 1)
    for row in (0, 17, 59):
        alone = frame.prepare(vectors[row : row + 1], 1)
        assert (alone[0][0] == planes[row]).all()
        assert (alone[1][0], alone[2][0]) == (steps[row], norms[row])


def test_a_frame_does_not_depend_on_threads(draw: Draw) -> None:
    digests = {make_frame(40, 64, draw(99, 40), 4, "descent", 0, 20, None, n).digest for n in (1, 2, 5)}
    assert len(digests) == 1


@pytest.mark.parametrize("bits", [64, 128, 512, 1024])
@pytest.mark.parametrize("anchored", [True, False])
def test_search_is_brute_force_on_the_asymmetric_score(draw: Draw, bits: int, anchored: bool) -> None:
    dim, count = 40, 700
    vectors, queries = draw(count, dim), draw(37, dim, seed=4)
    index = UsrLshIndex(dim, bits, draw(200, dim, seed=5) if anchored else None)
    ids = np.random.default_rng(0).permutation(10_000)[:count]
    index.add(ids, vectors)
    frame = index._frame
    codes, factors, norms = frame.encode(vectors, 1)
    planes, steps, query_norms = frame.prepare(queries, 1)
    weights = 2.0 ** np.arange(PLANES)
    quantised = np.stack([weights @ signs_of(one) for one in planes]) * steps[:, None] / 2.0
    R = tight_frame(frame)
    y = (queries - frame.anchor) @ frame.projection @ R / frame.scale
    assert (np.abs(quantised - y) <= 0.51 * steps[:, None]).all()
    scores = factors.view(np.float16) * (quantised @ signs_of(codes).T) - norms.view(np.float16).astype(float)
    distances, found = index.search(queries, 30)
    squares = frame.stretch * (query_norms[:, None] - frame.scale**2 * scores)
    place = {int(key): row for row, key in enumerate(ids)}
    for row in range(len(queries)):
        best = np.sort(scores[row])[::-1][:30]
        got = np.array([scores[row, place[int(key)]] for key in found[row]])
        np.testing.assert_allclose(got, best, rtol=1e-5, atol=1e-5)
        expected = np.sqrt(np.maximum(np.sort(squares[row])[:30], 0.0))
        np.testing.assert_allclose(distances[row], expected, rtol=1e-3, atol=1e-2 * frame.scale)


def test_kernels_compile_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numba.njit

    def without_cache(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(compiling.numba, "njit", without_cache)
    double: Any = compiling.compiled(lambda number: 2 * number)
    assert double(21) == 42
    assert len(double.signatures) == 1


@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.data())
@settings(max_examples=40, deadline=None)
def test_columns_are_orthonormal(dim: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, dim))
    columns = random_columns(dim, count, np.random.default_rng(seed))
    np.testing.assert_allclose(columns.T @ columns, np.eye(count), atol=1e-12)


@pytest.mark.parametrize("rows", [1, 5, 400])
def test_axes_hold_the_variance_that_principal_axes_hold(draw: Draw, rows: int) -> None:
    sample = draw(rows, 60).astype(np.float64)
    sample -= sample.mean(axis=0)
    axes = principal_axes(sample, 16, np.random.default_rng(0), 1)
    np.testing.assert_allclose(axes.T @ axes, np.eye(16), atol=1e-10)
    best = np.sort(np.linalg.eigvalsh(sample.T @ sample))[::-1][:16].sum()
    assert np.sum((sample @ axes) ** 2) >= 0.995 * best
