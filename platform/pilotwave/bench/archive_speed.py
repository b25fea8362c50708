"""Queries a second against recall, and where a graph overtakes a linear scan; one thread, CPU seconds.

May import numpy and the modules ``archive_*`` beside it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pilotwave.bench import archive_methods as methods
from pilotwave.bench.archive_data import Neighbours, smaller
from pilotwave.bench.archive_methods import Built
from pilotwave.errors import MissingDependencyError

Figures = dict[str, Any]
Tell = Callable[[str], None]

TARGETS = (0.90, 0.95, 0.99)
CROSSING = (1_000, 3_000, 10_000, 30_000)
CROSSING_QUERIES = 2_000
ALONE = 200
"""Queries asked one at a time."""


def measure_speed(data: Neighbours, reduced: int, tell: Tell) -> Figures:
    """Recall and time of every method and setting; settings for a recall are chosen on the first half."""
    builders: list[Callable[[], Built]] = [
        lambda: methods.ours(data, reduced),
        lambda: methods.lsh(data, 512),
        lambda: methods.itq(data, 512, data.vectors, "what it holds"),
        *methods.by_codes(data),
        *methods.by_search(data),
    ]
    figures: Figures = {}
    for build in builders:
        try:
            built = build()
        except MissingDependencyError as error:
            tell(f"left out: {error}")
            continue
        tell(built.label)
        figures[built.label] = _measured(built, data)
    return figures


def _measured(built: Built, data: Neighbours) -> Figures:
    rows = {}
    for setting in built.settings:
        row: Figures = {}
        if len(built.settings) > 1:
            found = built.search(data.queries[data.chosen_on], setting)
            row["chosen_on"] = data.recall(found, data.chosen_on)
        queries = data.queries[data.reported_on]
        started = time.process_time()
        found = built.search(queries, setting)
        row["seconds"] = (time.process_time() - started) / len(queries)
        row["recall"] = data.recall(found, data.reported_on)
        started = time.process_time()
        for query in queries[:ALONE]:
            built.search(query[None], setting)
        row["alone"] = (time.process_time() - started) / ALONE
        rows[str(setting)] = row
    chosen = {str(target): choose(rows, target) for target in TARGETS}
    return {
        "bytes": built.bytes_each,
        "build": built.seconds,
        "forgets": built.forgets,
        "settings": rows,
        "chosen": chosen,
    }


def choose(rows: Figures, target: float) -> str | None:
    """The first setting, from fast to thorough, with the recall on the queries that choices are made on."""
    for setting, row in rows.items():
        if row.get("chosen_on", row["recall"]) >= target:
            return setting
    return None


def measure_crossing(data: Neighbours, reduced: int, tell: Tell) -> Figures:
    """Time of a query at a recall of 0.99 for growing sizes: a scan with exact comparison, and hnswlib's graph."""
    figures: Figures = {}
    for count in (*CROSSING, len(data.vectors)):
        part = smaller(data, count, CROSSING_QUERIES)
        row: Figures = {}
        for name, build in (("usr", lambda p=part: methods.ours(p, reduced)), ("hnsw", _graph_of(part))):
            tell(f"{count} vectors, {name}")
            try:
                found = _measured(build(), part)
            except MissingDependencyError as error:
                tell(f"left out: {error}")
                continue
            setting = found["chosen"]["0.99"]
            row[name] = None if setting is None else {"setting": setting, **found["settings"][setting]}
        figures[str(count)] = row
    return figures


def _graph_of(part: Neighbours) -> Callable[[], Built]:
    return lambda: methods.hnswlib_index(part)


def crossing_size(figures: Mapping[str, Any], field: str = "seconds") -> float | None:
    """The number of vectors from which the graph is faster, between two measured sizes; None if never seen."""
    points = []
    for count, row in figures.items():
        if row.get("usr") and row.get("hnsw"):
            points.append((np.log(int(count)), np.log(row["usr"][field] / row["hnsw"][field])))
    for (a, before), (b, after) in itertools.pairwise(points):
        if before <= 0.0 < after:
            return float(np.exp(a + (b - a) * -before / (after - before)))
    return None


__all__ = ["TARGETS", "choose", "crossing_size", "measure_crossing", "measure_speed"]
