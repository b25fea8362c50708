"""Recall of short codes: over sizes, over seeds, with and without a public sample, and what descent is worth.

May import numpy and the modules ``archive_*`` beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pilotwave.bench import archive_methods as methods
from pilotwave.bench.archive_data import K, Neighbours

Figures = dict[str, Any]
Tell = Callable[[str], None]

SIZES = (64, 128, 256, 512, 1024, 2048)
SHARES = {"public": (1 / 4, 1 / 3, 1 / 2), "all": (1 / 3, 1 / 2)}
"""Projected dimensions tried, in shares of the bits."""
RERANKED = 100


def measure_sizes(public: Neighbours, everything: Neighbours, seeds: int, tell: Tell) -> Figures:
    """Recall@10 by bits: ours with and without a public sample, IndexLSH raw and centred, ITQ.

    Dimensions are chosen by seed 0 on the first half of the queries; figures are of the last half.
    """
    sample = public.public
    assert sample is not None
    centre, figures = sample.mean(axis=0), {}
    for bits in SIZES:
        row: Figures = {}
        for data in (public, everything):
            of_seeds = range(seeds) if data is public or bits == 512 else range(1)
            tell(f"USR-LSH, {bits} bits, {'with' if data is public else 'without'} a public sample")
            row[f"usr-{data.name}"] = _ours(data, bits, of_seeds)
        tell(f"IndexLSH and ITQ, {bits} bits")
        row["lsh-raw"] = _recall(methods.lsh(public, bits), public)
        row["lsh-centred"] = _recall(methods.lsh(public, bits, centre), public)
        row["lsh-raw-all"] = _recall(methods.lsh(everything, bits), everything)
        if bits <= sample.shape[1]:
            row["itq-public"] = _recall(methods.itq(public, bits, sample, "the public sample"), public)
            row["itq-own"] = _recall(methods.itq(public, bits, public.vectors, "what it holds"), public)
        figures[str(bits)] = row
    return figures


def _recall(built: methods.Built, data: Neighbours) -> float:
    return data.recall(built.search(data.queries[data.reported_on], 0), data.reported_on)


def _ours(data: Neighbours, bits: int, seeds: Sequence[int]) -> Figures:
    """Our recall for each seed, the dimensions chosen on the first half of the queries."""
    tried = {}
    dim = data.vectors.shape[1]
    for reduced in sorted({min(dim, round(share * bits)) for share in SHARES[data.name]}):
        index, _ = methods.usr_lsh(data, bits, seeds[0], reduced)
        found = index.search(data.queries[data.chosen_on], K)[1]
        tried[reduced] = data.recall(found, data.chosen_on)
    reduced = max(tried, key=lambda each: tried[each])
    recalls, exact = [], []
    for seed in seeds:
        index, _ = methods.usr_lsh(data, bits, seed, reduced)
        queries = data.queries[data.reported_on]
        recalls.append(data.recall(index.search(queries, K)[1], data.reported_on))
        if bits == 512:
            found = index.search(queries, K, rerank=RERANKED, vectors=data.vectors)[1]
            exact.append(data.recall(found, data.reported_on))
    return {"reduced": reduced, "tried": tried, "recall": recalls, "reranked": exact}


def measure_updates(public: Neighbours, reduced: int, seeds: int, tell: Tell) -> Figures:
    """Recall@10 at 512 bits with either update, and without any."""
    figures: Figures = {}
    for name, update in (("descent", "descent"), ("sign", "sign")):
        tell(f"USR-LSH, update {name}")
        recalls = []
        for seed in range(seeds):
            index, _ = methods.usr_lsh(public, 512, seed, reduced, update)
            found = index.search(public.queries[public.reported_on], K)[1]
            recalls.append(public.recall(found, public.reported_on))
        figures[name] = recalls
    return figures


__all__ = ["RERANKED", "SIZES", "measure_sizes", "measure_updates"]
