"""A comparison's figures as Markdown, JSON and parquet.

May import the modules beside it; pyarrow (extra ``bench``) inside the function that needs it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pilotwave.bench.loop import Record
from pilotwave.bench.statistics import CONFIDENCE, Estimate
from pilotwave.bench.summary import Cell, Summary, level
from pilotwave.bench.task import Task
from pilotwave.errors import MissingDependencyError

KINDS = {
    "192": "ratio 192",
    "best 192": "to best 192",
    "512": "ratio 512",
    "best 512": "to best 512",
    "paper": "paper",
}
"""Ratios in tables: how the figures name them, and the heads of their columns."""


def to_markdown(summary: Summary, tasks: Sequence[Task]) -> str:
    """Returns a table over all tasks and one for each task."""
    titles = {task.name: task.title for task in tasks}
    parts = [_legend(summary), f"### Over {len(summary.cells)} tasks\n\n{_table(*over_tasks(summary))}"]
    for name, row in summary.cells.items():
        seeds = max(len(cell.records) for cell in row.values())
        parts.append(f"### {titles.get(name, name)} (`{name}`), {seeds} seeds\n\n{_table(*_of_task(row))}")
    return "\n\n".join(parts) + "\n"


def to_json(summary: Summary) -> dict[str, Any]:
    """Returns all figures as JSON-compatible values."""
    return {
        "reference": summary.reference,
        "tasks": {
            task: {name: _cell_json(cell) for name, cell in row.items()} for task, row in summary.cells.items()
        },
        "medians": {
            method: {name: _estimate_json(estimate) for name, estimate in found.items()}
            for method, found in summary.medians.items()
        },
    }


def to_parquet(records: Iterable[Record]) -> bytes:
    """Returns a row per batch of every run as a parquet file.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            "parquet needs pyarrow, which is not installed; run: pip install 'pilotwave[bench]'"
        ) from error
    rows = [_batch_row(record, batch) for record in records for batch in record["batches"]]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def _batch_row(record: Record, batch: Record) -> dict[str, Any]:
    row = {key: record[key] for key in ("suite", "task", "method", "kind", "seed")}
    row |= {key: batch[key] for key in ("batch", "queries", "passes", "asked", "drawn", "mean", "best")}
    row["level"] = None if batch["mean"] is None else level(record, batch["mean"])
    row["best_level"] = None if batch["best"] is None else level(record, batch["best"])
    row |= {f"quality_{name}": value for name, value in batch["quality"].items()}
    row |= {f"diversity_{name}": value for name, value in batch["diversity"].items()}
    row |= {f"seconds_{name}": value for name, value in batch["seconds"].items()}
    row |= {f"cpu_seconds_{name}": value for name, value in batch["cpu_seconds"].items()}
    return row


def _legend(summary: Summary) -> str:
    return (
        "Levels are batch means in standard deviations of unguided losses, lower is better, with "
        f"{CONFIDENCE:.0%} bootstrap intervals over seeds. Ratios say how many times fewer queries a method needs "
        f"than `{summary.reference}`: for its level at so many queries (*ratio*), for the best level that it had "
        "in so many, counted from when it first had it (*to best*), and as the paper counts; < where the level was "
        f"never reached. *Lead* is the other way round: the ratio, as the paper counts, of `{summary.reference}` "
        "over the method. Quality and diversity are of the last quarter of the batches, in brackets the unguided "
        "model's; passes (runs of the sampler) and CPU seconds are those of a query."
    )


def over_tasks(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Returns the heads and rows of the table over all tasks: medians, and beside each ratio the worst task's."""
    methods = summary.methods
    marks = sorted({mark for method in methods for cell in summary.of_method(method) for mark in cell.levels})
    kinds = [name for name in KINDS if any(name in found for found in summary.medians.values())]
    leads = any("lead" in found for found in summary.medians.values())
    heads = ["method", *(f"level {mark}" for mark in marks)]
    heads += [head for kind in kinds for head in (KINDS[kind], "worst")]
    heads += ["lead"] * leads + ["passes", "quality", "diversity", "CPU s"]
    everything = [cell for task in summary.cells.values() for cell in task.values()]
    qualities = _names([cell.quality for cell in everything])
    diversities = _names([cell.diversity for cell in everything])
    rows = []
    for method in methods:
        cells = summary.of_method(method)
        row = [f"`{method}`"]
        for mark in marks:
            values = [cell.levels[mark].value for cell in cells if mark in cell.levels]
            row.append(f"{np.median(values):+.2f}" if values else "")
        for kind in kinds:
            found = summary.medians.get(method, {}).get(kind)
            ratios = [cell.ratios[kind] for cell in cells if kind in cell.ratios]
            worst = min(ratios, key=lambda estimate: estimate.value, default=None)
            row += ["" if found is None else _ratio(found), "" if worst is None else _bound(worst)]
        lead = summary.medians.get(method, {}).get("lead")
        row += ["" if lead is None else _ratio(lead)] * leads
        row.append(f"{np.median([cell.passes for cell in cells]):.1f}")
        row.append(_pair(_median_pair([cell.quality for cell in cells], qualities)))
        row.append(_pair(_median_pair([cell.diversity for cell in cells], diversities)))
        row.append(f"{np.median([cell.cpu_seconds for cell in cells]):.3f}")
        rows.append(row)
    return heads, rows


def _of_task(row: Mapping[str, Cell]) -> tuple[list[str], list[list[str]]]:
    cells = list(row.values())
    marks = sorted({mark for cell in cells for mark in cell.levels})
    kinds = [name for name in KINDS if any(name in cell.ratios for cell in cells)]
    qualities = _names([cell.quality for cell in cells])
    diversities = _names([cell.diversity for cell in cells])
    unseen = any(cell.unseen is not None for cell in cells)
    heads = ["method", *(f"level {mark}" for mark in marks), "best"]
    leads = any("lead" in cell.ratios for cell in cells)
    heads += [KINDS[kind] for kind in kinds] + ["lead"] * leads + ["passes"]
    heads += [name.replace("_", " ") for name in (*qualities, *diversities)]
    heads += ["unseen conditions"] * unseen + ["s", "CPU s"]
    rows = []
    for cell in cells:
        line = [f"`{cell.method}`" + (f" ({cell.stalled} ended early)" if cell.stalled else "")]
        line += [_level(cell.levels[mark]) if mark in cell.levels else "" for mark in marks]
        line += [f"{cell.best.value:+.2f}"]
        line += [_ratio(cell.ratios[kind]) if kind in cell.ratios else "" for kind in kinds]
        line += [_ratio(cell.ratios["lead"]) if "lead" in cell.ratios else ""] * leads
        line += [f"{cell.passes:.1f}"]
        line += [_pair(cell.quality.get(name)) for name in qualities]
        line += [_pair(cell.diversity.get(name)) for name in diversities]
        line += [_level(cell.unseen) if cell.unseen else ""] * unseen
        rows.append([*line, f"{cell.seconds:.3f}", f"{cell.cpu_seconds:.3f}"])
    return heads, rows


def _names(measures: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of measures, in the order of the fullest: a batch may lack some of them."""
    fullest_first = sorted(measures, key=len, reverse=True)
    return list(dict.fromkeys(name for measure in fullest_first for name in measure))


def _median_pair(
    measures: Sequence[Mapping[str, tuple[float, float]]], names: Sequence[str]
) -> tuple[float, float] | None:
    """The medians over tasks of the first of the named measures, and of its unguided values."""
    pairs = [measure[name] for name in names[:1] for measure in measures if name in measure]
    return (
        (float(np.median([one for one, _ in pairs])), float(np.median([two for _, two in pairs])))
        if pairs
        else None
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _level(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{estimate.value:+.2f} ({low:+.2f} to {high:+.2f})"


def _bound(estimate: Estimate) -> str:
    return f"{'<' if estimate.censored else ''}{estimate.value:.2f}"


def _ratio(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{_bound(estimate)} ({low:.2f}-{high:.2f})"


def _pair(pair: tuple[float, float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.3g} ({pair[1]:.3g})"


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "interval": list(estimate.interval), "censored": estimate.censored}


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "kind": cell.records[0]["kind"],
        "settings": cell.records[0]["settings"],
        "seeds": list(cell.curves.seeds),
        "queries": cell.curves.queries.tolist(),
        "curve": cell.curves.levels.mean(axis=0).tolist(),
        "levels": {str(mark): _estimate_json(estimate) for mark, estimate in cell.levels.items()},
        "best": _estimate_json(cell.best),
        "ratios": {name: _estimate_json(estimate) for name, estimate in cell.ratios.items()},
        "passes_per_query": cell.passes,
        "seconds_per_query": cell.seconds,
        "cpu_seconds_per_query": cell.cpu_seconds,
        "quality": _pairs_json(cell.quality),
        "diversity": _pairs_json(cell.diversity),
        "unseen": None if cell.unseen is None else _estimate_json(cell.unseen),
        "ended_early": cell.stalled,
    }


def _pairs_json(pairs: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float | None]]:
    return {
        name: {"value": value, "unguided": None if math.isnan(unguided) else unguided}
        for name, (value, unguided) in pairs.items()
    }


__all__ = ["over_tasks", "to_json", "to_markdown", "to_parquet"]
