"""The public protocol: Fashion-MNIST as ann-benchmarks uses it, true neighbours, and recall as it counts it.

60,000 training pictures as vectors of 784 grey values in their order; the 10,000 test pictures are the queries.
Whatever is chosen is chosen on the first 5,000 queries and reported on the last 5,000. Recall@k counts what lies no
farther than the k-th true neighbour (plus 0.001), divided by k.

May import numpy, and faiss (extra ``bench``) inside the function.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotwave.backbones.image.dataset import load
from pilotwave.errors import InputError, MissingDependencyError

Floats = npt.NDArray[np.float32]
Identifiers = npt.NDArray[np.int64]

K = 10
PUBLIC = 5_000
_SLACK = 1e-3
_PUBLIC_SEED = 20_240
_CANDIDATES = 50


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Vectors to be indexed, and queries with the distance of their k-th true neighbour among them.

    Attributes:
        name: Short, for tables.
        vectors: (n, dim).
        queries: (m, dim).
        radius: Euclidean, (m,).
        public: A sample that is not among the vectors, (p, dim), or None.
    """

    name: str
    vectors: Floats
    queries: Floats
    radius: npt.NDArray[np.float64]
    public: Floats | None

    @property
    def chosen_on(self) -> slice:
        """The queries that parameters are chosen on."""
        return slice(0, len(self.queries) // 2)

    @property
    def reported_on(self) -> slice:
        """The queries that figures are of."""
        return slice(len(self.queries) // 2, len(self.queries))

    def recall(self, found: Identifiers, part: slice) -> float:
        """Returns the mean recall of rows of ids, (queries of the part, at least K); -1 is nothing found."""
        queries, radius = self.queries[part], self.radius[part]
        counted = 0
        for query, within, ids in zip(queries, radius, found[:, :K], strict=True):
            unique = np.unique(ids[ids >= 0])
            distances = np.linalg.norm(self.vectors[unique].astype(np.float64) - query, axis=1)
            counted += int(np.count_nonzero(distances <= within + _SLACK))
        return counted / (K * len(queries))


def read_protocol(folder: Path | None = None) -> tuple[Neighbours, Neighbours]:
    """Reads the pictures and works out true neighbours: once with a public sample set aside, once with all.

    Args:
        folder: Of the data; Debian's dataset-fashion-mnist if None.

    Returns:
        55,000 vectors with a public sample of the other 5,000 (drawn at random, once for all), and all 60,000.

    Raises:
        InputError: The data are not there.
    """
    base = _flat(load("train", folder).images)
    queries = _flat(load("held-out", folder).images)
    nearest = _nearest(base, queries, _CANDIDATES)
    public = np.sort(np.random.default_rng(_PUBLIC_SEED).permutation(len(base))[: min(PUBLIC, len(base) // 2)])
    inside = np.ones(len(base), dtype=np.bool_)
    inside[public] = False
    with_sample = Neighbours("public", base[inside], queries, _radius(base, queries, nearest, inside), base[public])
    everything = np.ones(len(base), dtype=np.bool_)
    return with_sample, Neighbours("all", base, queries, _radius(base, queries, nearest, everything), None)


def smaller(data: Neighbours, count: int, queries: int) -> Neighbours:
    """Returns the same problem with the first vectors only, and so many queries."""
    vectors = data.vectors[:count]
    chosen = np.linspace(0, len(data.queries) - 1, queries).astype(np.int64)
    nearest = _nearest(vectors, data.queries[chosen], min(_CANDIDATES, count))
    radius = _radius(vectors, data.queries[chosen], nearest, np.ones(count, dtype=np.bool_))
    return Neighbours(data.name, vectors, data.queries[chosen], radius, data.public)


def _flat(images: npt.NDArray[np.uint8]) -> Floats:
    return images.reshape(len(images), -1).astype(np.float32)


def _nearest(vectors: Floats, queries: Floats, count: int) -> Identifiers:
    """Candidates for the true neighbours; float32 products err by a few units in squares of millions."""
    faiss = import_faiss()
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    found: Identifiers = index.search(queries, count)[1]
    return found


def _radius(
    vectors: Floats, queries: Floats, nearest: Identifiers, allowed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """The exact distance of the K-th nearest allowed vector, (queries,)."""
    radius = np.empty(len(queries), dtype=np.float64)
    for row, (query, ids) in enumerate(zip(queries, nearest, strict=True)):
        kept = ids[(ids >= 0) & allowed[ids]]
        if len(kept) < K:
            raise InputError(
                f"query {row}: expected {K} true neighbours among the {len(ids)} nearest; set less aside"
            )
        distances = np.linalg.norm(vectors[kept].astype(np.float64) - query, axis=1)
        radius[row] = np.sort(distances)[K - 1]
    return radius


def import_faiss() -> Any:
    """Returns the module, set to one thread.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError(
            "this comparison needs faiss, which is not installed; run: pip install 'pilotwave[bench]'"
        ) from error
    faiss.omp_set_num_threads(1)
    return faiss


__all__ = ["PUBLIC", "K", "Neighbours", "import_faiss", "read_protocol", "smaller"]
