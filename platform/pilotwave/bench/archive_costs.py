"""What an index of short codes costs: encoding, deleting, bytes, a million codes, and ten million.

One thread, CPU seconds. The million are varied copies of the pictures (moved, mirrored, brightened, with noise),
really encoded; ten million are random codes: a scan takes as long for these. May import numpy, pilotwave.archive
and the modules ``archive_*`` beside it.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotwave.archive import UsrLshIndex
from pilotwave.archive.usr_lsh.slots import Slots
from pilotwave.bench import archive_methods as methods
from pilotwave.bench.archive_data import K, Neighbours, import_faiss
from pilotwave.errors import MissingDependencyError

Figures = dict[str, Any]
Pixels = npt.NDArray[np.uint8]
Tell = Callable[[str], None]

MILLION = 1_000_000
BATCH = 1_000
_SIDE = 28
_NEAR = 200
"""Queries whose true neighbours among the million are worked out."""


def measure_encoding(public: Neighbours, everything: Neighbours, repeats: int, tell: Tell) -> Figures:
    """Microseconds a vector of ``add``, checks and the map from ids included, in batches and one at a time."""
    tell("encoding")
    figures: Figures = {}
    for data in (public, everything):
        for update in ("descent", "sign"):
            index = UsrLshIndex(data.vectors.shape[1], 512, data.public, update=update, threads=1)
            index.add(np.arange(BATCH), data.vectors[:BATCH])
            batches: list[float] = []
            alone: list[float] = []
            for repeat in range(repeats):
                index = index.empty_copy()
                rows = data.vectors[: 10 * BATCH]
                with _timed(batches, len(rows)):
                    for start in range(0, len(rows), BATCH):
                        index.add(np.arange(start, start + BATCH), rows[start : start + BATCH])
                with _timed(alone, 200):
                    for place in range(200):
                        index.add([MILLION + place], data.vectors[repeat + place][None])
            name = f"{data.name}-{update}"
            figures[name] = {"reduced": index.reduced, "batches": batches, "alone": alone}
    return figures


def measure_million(public: Neighbours, tell: Tell) -> Figures:
    """A million codes: building, searching, bytes, files, and deleting beside faiss and hnswlib."""
    tell("a million varied copies, encoded")
    copies = vary(public.vectors.astype(np.uint8), MILLION)
    index = UsrLshIndex(public.vectors.shape[1], 512, public.public, threads=1)
    figures: Figures = {"build": [], "delete": {}}
    with _timed(figures["build"], MILLION):
        for start in range(0, MILLION, 20_000):
            rows = copies[start : start + 20_000].astype(np.float32)
            index.add(np.arange(start, start + len(rows)), rows)
    figures["grown"] = index.nbytes / len(index)
    tell("searching a million")
    figures["search"] = _scans(index, public.queries)
    figures["recall"] = _recall_of_copies(index, copies, public.queries[-_NEAR:])
    tell("files of a million")
    figures["file"] = _files(index)
    tell("deleting from a million")
    figures["delete"]["usr-lsh"] = _delete_ours(index)
    figures["delete"]["faiss"] = _delete_faiss(index)
    figures["delete"]["hnswlib"] = _delete_hnswlib(public)
    return figures


def measure_ten_million(public: Neighbours, tell: Tell) -> Figures:
    """Ten million random codes: bytes of memory and seconds of a scan."""
    tell("ten million random codes")
    count, random = 10 * MILLION, np.random.default_rng(0)
    index = UsrLshIndex(public.vectors.shape[1], 512, public.public, threads=1)
    index.add(np.arange(BATCH), public.vectors[:BATCH])
    known = index._slots
    codes = random.integers(0, 2**64, (count, 8), dtype=np.uint64)
    picks = random.integers(0, BATCH, count)
    index._slots = Slots(np.arange(count), codes, known.factors[picks], known.norms[picks])
    removed: list[float] = []
    keys = random.permutation(count)[: 10 * BATCH]
    figures: Figures = {"memory": index.nbytes / count, "search": _scans(index, public.queries)}
    with _timed(removed, len(keys)):
        for start in range(0, len(keys), BATCH):
            index.remove(keys[start : start + BATCH])
    return {**figures, "delete": removed}


def vary(pictures: Pixels, count: int) -> Pixels:
    """Returns so many variants of pictures (n, 784): moved by up to 2 pixels, mirrored, brightened, with noise."""
    random = np.random.default_rng(0)
    found = np.empty((count, pictures.shape[1]), dtype=np.uint8)
    square = pictures.reshape(len(pictures), _SIDE, _SIDE)
    for start in range(0, count, len(pictures)):
        part = square[: count - start]
        if start:
            part = np.roll(part, random.integers(-2, 3, 2), axis=(1, 2))
            part = part[:, :, ::-1] if random.integers(2) else part
        gain = np.float32(random.uniform(0.7, 1.1)) if start else np.float32(1.0)
        for first in range(0, len(part), 5_000):
            rows = part[first : first + 5_000].reshape(-1, pictures.shape[1]) * gain
            rows = rows + random.normal(0.0, 6.0 if start else 0.0, rows.shape).astype(np.float32)
            found[start + first : start + first + len(rows)] = np.clip(np.rint(rows), 0, 255)
    return found


@contextmanager
def _timed(into: list[float], count: int) -> Iterator[None]:
    """Appends the CPU seconds of what is inside, a piece."""
    started = time.process_time()
    yield
    into.append((time.process_time() - started) / count)


def _scans(index: UsrLshIndex, queries: npt.NDArray[np.float32]) -> Figures:
    """CPU seconds a query, in a batch and alone."""
    batch: list[float] = []
    alone: list[float] = []
    index.search(queries[:1], K)
    with _timed(batch, 64):
        index.search(queries[:64], K)
    for row in range(10):
        with _timed(alone, 1):
            index.search(queries[row : row + 1], K)
    return {"batch": batch[0], "alone": statistics.median(alone)}


def _recall_of_copies(index: UsrLshIndex, copies: Pixels, queries: npt.NDArray[np.float32]) -> Figures:
    """Recall@10 among the million, by codes and after exact comparison of 100 and 1,000."""
    nearest = np.full((len(queries), 0), 0.0)
    for start in range(0, len(copies), 50_000):
        rows = copies[start : start + 50_000].astype(np.float32)
        squares = (rows * rows).sum(axis=1) - 2.0 * queries @ rows.T + (queries * queries).sum(axis=1)[:, None]
        nearest = np.sort(np.concatenate([nearest, np.partition(squares, K, axis=1)[:, :K]], axis=1), axis=1)[:, :K]
    within = np.sqrt(nearest[:, -1]) + 0.01
    figures = {}
    for rerank in (None, 100, 1_000):
        ids = index.search(queries, K, rerank=rerank, vectors=None if rerank is None else copies)[1]
        distances = np.linalg.norm(copies[ids].astype(np.float64) - queries[:, None], axis=2)
        figures[str(rerank or 0)] = float(np.mean(distances <= within[:, None]))
    return figures


def _files(index: UsrLshIndex) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.usr"
        started = time.perf_counter()
        index.save(path)
        saved = time.perf_counter()
        loaded = UsrLshIndex.load(path, threads=1)
        finished = time.perf_counter()
        same = loaded.digest() == index.digest()
        size = os.path.getsize(path)
        frame = size - 76 * len(index)
        return {
            "bytes": (size - frame) / len(index),
            "frame": frame,
            "memory": loaded.nbytes / len(loaded),
            "save": saved - started,
            "load": finished - saved,
            "digest": (time.perf_counter() - finished) / 2,
            "same": same,
        }


def _delete_ours(index: UsrLshIndex) -> Figures:
    keys = np.random.default_rng(1).permutation(len(index))[: 100 * BATCH]
    batches: list[float] = []
    alone: list[float] = []
    for start in range(0, len(keys) - BATCH, BATCH):
        with _timed(batches, BATCH):
            assert index.remove(keys[start : start + BATCH]) == []
    with _timed(alone, BATCH):
        for key in keys[-BATCH:]:
            index.remove([key])
    return {"batch": statistics.median(batches), "alone": alone[0]}


def _delete_faiss(index: UsrLshIndex) -> Figures:
    """``remove_ids`` of an IndexLSH of as many codes of the same size, one id a call, and a batch a call."""
    faiss = import_faiss()
    other = faiss.IndexLSH(index.dim, index.bits)
    codes = np.random.default_rng(0).integers(0, 256, (MILLION, index.bits // 8), dtype=np.uint8)
    other.add_sa_codes(codes)
    alone: list[float] = []
    batch: list[float] = []
    random = np.random.default_rng(1)
    for _ in range(20):
        with _timed(alone, 1):
            other.remove_ids(random.integers(0, other.ntotal, 1))
    for _ in range(5):
        with _timed(batch, BATCH):
            other.remove_ids(random.permutation(other.ntotal)[:BATCH])
    return {"batch": statistics.median(batch), "alone": statistics.median(alone)}


def _delete_hnswlib(public: Neighbours) -> Figures | None:
    """Marking in a graph of 20,000; and whether the vectors of what was marked are still in the saved file."""
    try:
        built = methods.hnswlib_index(
            Neighbours("part", public.vectors[:20_000], public.queries, public.radius, public.public)
        )
    except MissingDependencyError:
        return None
    index = built.index
    alone: list[float] = []
    with _timed(alone, BATCH):
        for key in range(BATCH):
            index.mark_deleted(key)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.bin"
        index.save_index(str(path))
        kept = public.vectors[0].tobytes() in path.read_bytes()
    return {"alone": alone[0], "vector_stays": kept}


__all__ = ["MILLION", "measure_encoding", "measure_million", "measure_ten_million", "vary"]
