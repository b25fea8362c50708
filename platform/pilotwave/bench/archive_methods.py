"""What is compared on the archive's protocol: our index, faiss and hnswlib, each behind the same few words.

Everything runs in one thread. May import numpy and pilotwave.archive; faiss and hnswlib (extra ``bench``) inside
the functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotwave.archive import UsrLshIndex
from pilotwave.bench.archive_data import K, Neighbours, import_faiss
from pilotwave.errors import MissingDependencyError

Floats = npt.NDArray[np.float32]
Identifiers = npt.NDArray[np.int64]
SWEPT = (0, 10, 20, 50, 100, 200)
"""Candidates that are compared exactly; none with 0."""
ITERATIONS = 50
"""Of ITQ."""
NODES, CONSTRUCTION = 16, 100
"""Of HNSW: links of a node, and candidates while it is built."""


@dataclass(frozen=True, eq=False)
class Built:
    """An index with everything in it.

    Attributes:
        label: For tables.
        bytes_each: Of a vector, as it is stored; what is needed to search, without the original vectors unless the
            index searches in them.
        seconds: CPU seconds of training and adding.
        settings: Of searching, from fast to thorough; one if there is nothing to choose.
        search: From queries and a setting to ids, (n, K).
        forgets: What deleting one vector means.
        index: The library's own object, if somebody needs it.
    """

    label: str
    bytes_each: float
    seconds: float
    settings: Sequence[int]
    search: Callable[[Floats, int], Identifiers]
    forgets: str
    index: Any = None


def usr_lsh(
    data: Neighbours, bits: int = 512, seed: int = 0, reduced: int | None = None, update: str = "descent"
) -> tuple[UsrLshIndex, float]:
    """Builds our index of all vectors; returns it and the CPU seconds of adding them."""
    index = UsrLshIndex(
        data.vectors.shape[1], bits, data.public, update=update, seed=seed, reduced=reduced, threads=1
    )
    started = time.process_time()
    index.add(np.arange(len(data.vectors)), data.vectors)
    return index, time.process_time() - started


def ours(data: Neighbours, reduced: int | None) -> Built:
    """Our index with exact comparison of 0 to 200 candidates."""
    index, seconds = usr_lsh(data, reduced=reduced)

    def search(queries: Floats, setting: int) -> Identifiers:
        if setting == 0:
            return index.search(queries, K)[1]
        return index.search(queries, K, rerank=setting, vectors=data.vectors)[1]

    bytes_each = bytes_stored(index)
    return Built(f"USR-LSH {index.bits}", bytes_each, seconds, SWEPT, search, "one slot, no trace")


def bytes_stored(index: UsrLshIndex) -> float:
    """Bytes of a code, its two numbers and its id."""
    return index.bits / 8 + 2 + 2 + 8


def faiss_index(
    label: str, data: Neighbours, factory: str, train: Floats | None, forgets: str, centre: Floats | None = None
) -> Built:
    """An index of faiss by its factory string, trained on ``train`` (or not), everything moved by ``-centre``."""
    faiss = import_faiss()
    moved = np.float32(0.0) if centre is None else centre
    started = time.process_time()
    index = faiss.index_factory(data.vectors.shape[1], factory)
    index.train((data.vectors[:1] if train is None else train) - moved)
    index.add(data.vectors - moved)
    seconds = time.process_time() - started
    inner = faiss.try_extract_index_ivf(index) if "IVF" in factory else None
    settings: Sequence[int] = (0,)
    if inner is not None:
        settings = (1, 2, 4, 8, 16, 32)
    elif "HNSW" in factory:
        settings = (10, 20, 40, 80, 160)

    def search(queries: Floats, setting: int) -> Identifiers:
        if inner is not None:
            inner.nprobe = setting
        elif "HNSW" in factory:
            index.hnsw.efSearch = setting
        found: Identifiers = index.search(queries - moved, K)[1]
        return found

    size = len(faiss.serialize_index(index)) / len(data.vectors)
    return Built(label, size, seconds, settings, search, forgets)


def hnswlib_index(data: Neighbours) -> Built:
    """The graph of hnswlib.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import hnswlib
    except ImportError as error:
        raise MissingDependencyError(
            "this comparison needs hnswlib, which is not installed; run: pip install 'pilotwave[bench]'"
        ) from error
    started = time.process_time()
    index = hnswlib.Index(space="l2", dim=data.vectors.shape[1])
    index.init_index(len(data.vectors), ef_construction=CONSTRUCTION, M=NODES, random_seed=0)
    index.set_num_threads(1)
    index.add_items(data.vectors, np.arange(len(data.vectors)))
    seconds = time.process_time() - started

    def search(queries: Floats, setting: int) -> Identifiers:
        index.set_ef(max(setting, K))
        return np.asarray(index.knn_query(queries, k=K)[0], dtype=np.int64)

    size = index.index_file_size() / len(data.vectors)
    return Built(
        "HNSW (hnswlib)", size, seconds, (10, 20, 40, 80, 160), search, "marks it; the vector stays", index
    )


SHIFTS = "moves all that follow"
TRAINED = "moves all that follow; what was trained on it stays"


def lsh(data: Neighbours, bits: int, centre: Floats | None = None) -> Built:
    """Signs of random directions; compared by Hamming distance."""
    label = f"IndexLSH {bits}" + ("" if centre is None else ", centred")
    return faiss_index(label, data, f"LSH{bits}r", None, SHIFTS, centre)


def itq(data: Neighbours, bits: int, train: Floats, where: str) -> Built:
    """Iterative quantisation (Gong and Lazebnik, 2011): principal axes, rotated to lie near corners of the cube.

    The same iterations as faiss has, by numpy and on at most 20 vectors a bit: faiss takes minutes for them at 512
    bits (at 64 and 128 its recall is a hundredth lower). Codes are compared by faiss.
    """
    faiss = import_faiss()
    started = time.process_time()
    centre = train.mean(axis=0)
    moved = (train - centre).astype(np.float64)
    axes = np.linalg.eigh(moved.T @ moved)[1][:, ::-1][:, :bits]
    scores = moved[:: -(-len(moved) // (20 * bits))] @ axes
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((bits, bits)))[0]
    for _ in range(ITERATIONS):
        left, _, right = np.linalg.svd(np.where(scores @ rotation >= 0.0, 1.0, -1.0).T @ scores)
        rotation = (left @ right).T
    turned = (axes @ rotation).astype(np.float32)
    index = faiss.IndexLSH(bits, bits, False, False)
    index.add((data.vectors - centre) @ turned)
    seconds = time.process_time() - started

    def search(queries: Floats, setting: int) -> Identifiers:
        found: Identifiers = index.search((queries - centre) @ turned, K)[1]
        return found

    size = (len(faiss.serialize_index(index)) + turned.nbytes) / len(data.vectors)
    return Built(f"ITQ {bits}, trained on {where}", size, seconds, (0,), search, TRAINED)


def by_codes(data: Neighbours) -> list[Callable[[], Built]]:
    """Other short codes."""
    found = [lambda m=m: faiss_index(f"PQ {m} x 8", data, f"PQ{m}np", data.vectors, TRAINED) for m in (56, 98)]
    return [*found, lambda: faiss_index("RaBitQ, rotated", data, "RR784,RaBitQ", data.vectors, TRAINED)]


def by_search(data: Neighbours) -> list[Callable[[], Built]]:
    """Indexes that look at a part of the vectors only, and at all of them."""
    nodes = f"HNSW{NODES},Flat"
    return [
        lambda: faiss_index("exact (IndexFlat)", data, "Flat", None, SHIFTS),
        lambda: faiss_index("IVF 256, Flat", data, "IVF256,Flat", data.vectors, "one list; what was trained stays"),
        lambda: faiss_index("HNSW (faiss)", data, nodes, None, "refused"),
        lambda: hnswlib_index(data),
    ]


__all__ = [
    "NODES",
    "Built",
    "by_codes",
    "by_search",
    "bytes_stored",
    "hnswlib_index",
    "itq",
    "lsh",
    "ours",
    "usr_lsh",
]
