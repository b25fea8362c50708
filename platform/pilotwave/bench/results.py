"""The files that a comparison ends with: tables, figures and curves, beside its runs.

May import the modules beside it, :mod:`pilotwave.report` and :mod:`pilotwave.storage`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pilotwave.bench.comparison import Comparison
from pilotwave.bench.loop import Record
from pilotwave.bench.statistics import Floats
from pilotwave.bench.summary import Cell, Summary, summarise
from pilotwave.bench.tables import to_json, to_markdown, to_parquet
from pilotwave.errors import MissingDependencyError
from pilotwave.report.comparison_plots import Line, Panel, draw_comparison
from pilotwave.storage import write_atomically

LEVEL = "level of the batch mean"


@dataclass(frozen=True)
class Results:
    """What was written.

    Attributes:
        summary: The figures.
        files: By what they are.
        missing: Lines on what could not be written for want of a package.
    """

    summary: Summary
    files: dict[str, Path]
    missing: tuple[str, ...]


def write_results(comparison: Comparison, records: Sequence[Record]) -> Results:
    """Writes everything into the comparison's folder; the first method is the reference.

    Raises:
        StorageError: A file could not be written.
        ValueError: There are no records.
    """
    if not records:
        raise ValueError("expected one finished run at least")
    summary = summarise(records, comparison.methods[0].name)
    contents: dict[str, tuple[str, Callable[[], bytes]]] = {
        "table": ("results.md", lambda: to_markdown(summary, comparison.tasks).encode()),
        "figures": ("results.json", lambda: json.dumps(to_json(summary), indent=1).encode()),
        "batches": ("batches.parquet", lambda: to_parquet(records)),
        "curves": ("curves.png", lambda: _draw(summary, comparison, "queries", by_queries)),
        "by passes": ("curves_by_passes.png", lambda: _draw(summary, comparison, "passes", by_passes)),
    }
    files, missing = {}, []
    for what, (name, make) in contents.items():
        try:
            content = make()
        except MissingDependencyError as error:
            missing.append(str(error))
            continue
        files[what] = comparison.output / name
        write_atomically(files[what], content)
    return Results(summary, files, tuple(missing))


def by_queries(cell: Cell) -> Floats:
    """Returns the places of a cell's curve: queries."""
    return cell.curves.queries


def by_passes(cell: Cell) -> Floats:
    """Returns the places of a cell's curve: sampler runs for one sample, the mean over seeds."""
    rows = []
    for record in cell.records:
        batches = record["batches"]
        spent, passes = ([batch[key] for batch in batches] for key in ("queries", "passes"))
        rows.append(np.interp(cell.curves.queries, spent, passes))
    return np.asarray(np.mean(rows, axis=0))


def _draw(summary: Summary, comparison: Comparison, across: str, places: Callable[[Cell], Floats]) -> bytes:
    titles = {task.name: task.title for task in comparison.tasks}
    panels = [
        Panel(
            titles.get(task, task),
            tuple(Line(name, places(cell), cell.curves.levels) for name, cell in row.items()),
        )
        for task, row in summary.cells.items()
    ]
    passes = across == "passes"
    words = "runs of the sampler for one sample" if passes else across
    return draw_comparison(panels, words, LEVEL, logarithmic=passes)


__all__ = ["Results", "by_passes", "by_queries", "write_results"]
