"""From the records of a comparison to its figures: per task and method, and over tasks.

Quality and diversity are those of the last quarter of a run's batches, beside what the model has unguided. May
import numpy and the modules beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pilotwave.bench.loop import Record
from pilotwave.bench.statistics import (
    Curves,
    Estimate,
    Floats,
    mean_at,
    mean_estimate,
    median_over,
    paper_ratio,
    ratio_at,
    ratio_to_best,
)

MARKS = (96, 192, 512)
"""Numbers of queries at which levels are stated, besides the last."""
RATIO_MARKS = (192, 512)
LATE = 0.25
"""The share of batches at the end that quality and diversity are taken from."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A method on a task.

    Attributes:
        task: Its name.
        method: Its label.
        records: Of its seeds.
        curves: Of its seeds.
        levels: By number of queries.
        best: The best true loss of a run in units of the task, at the end.
        passes: Sampler runs a query.
        seconds: On the clock a query: asking, generating and telling, without the judge.
        cpu_seconds: Likewise, of the process.
        quality: Late in the runs, by name; with the unguided model's.
        diversity: Likewise.
        unseen: Level on unseen conditions without queries, if the task has any.
        stalled: Seeds that ended early since hardly anything was left to ask about.
        ratios: Against the reference method, see :mod:`pilotwave.bench.statistics`: ``"paper"``, numbers of
            queries, and ``"best"`` with such a number; ``"lead"``, the paper's ratio of the reference method over
            this one. Empty for the reference itself.
    """

    task: str
    method: str
    records: tuple[Record, ...]
    curves: Curves
    levels: Mapping[int, Estimate]
    best: Estimate
    passes: float
    seconds: float
    cpu_seconds: float
    quality: Mapping[str, tuple[float, float]]
    diversity: Mapping[str, tuple[float, float]]
    unseen: Estimate | None
    stalled: int
    ratios: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Summary:
    """All figures of a comparison.

    Attributes:
        reference: The label of the method that ratios are against.
        cells: By task, then by method, in the order of the records.
        medians: By method, then by the names of its ratios: the median over tasks.
    """

    reference: str
    cells: Mapping[str, Mapping[str, Cell]]
    medians: Mapping[str, Mapping[str, Estimate]]

    def of_method(self, method: str) -> list[Cell]:
        """Returns a method's cells, task by task."""
        return [row[method] for row in self.cells.values() if method in row]

    @property
    def methods(self) -> list[str]:
        """The labels, in the order of their first record."""
        return list(dict.fromkeys(name for row in self.cells.values() for name in row))


def summarise(records: Sequence[Record], reference: str) -> Summary:
    """Computes all figures.

    Args:
        records: Of finished runs, see :func:`pilotwave.bench.run.execute`.
        reference: The label of a method; ratios are left out where it has no run.
    """
    groups: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        groups.setdefault(record["task"], {}).setdefault(record["method"], []).append(record)
    cells: dict[str, dict[str, Cell]] = {}
    for task, methods in groups.items():
        theirs = curves_of(methods[reference]) if reference in methods else None
        cells[task] = {name: _cell(task, name, found, theirs, name != reference) for name, found in methods.items()}
    names = dict.fromkeys(name for row in cells.values() for name in row)
    medians = {name: _medians([row[name] for row in cells.values() if name in row]) for name in names}
    return Summary(reference, cells, {name: found for name, found in medians.items() if found})


def curves_of(records: Sequence[Record]) -> Curves:
    """Returns the levels of some seeds on common numbers of queries, those of the run with the most batches.

    Between the batches of a run its curve is straight; a run that ended early keeps its last level to the end.
    """
    lines = [_line(record) for record in records]
    queries = max((line[0] for line in lines), key=lambda line: (line[-1], len(line)))
    wanted = float(max(record["queries"] for record in records))
    if queries[-1] < wanted:
        queries = np.append(queries, wanted)
    levels = np.stack([np.interp(queries, *line) for line in lines])
    return Curves(tuple(record["seed"] for record in records), queries, levels)


def level(record: Record, loss: float) -> float:
    """Returns a loss in the units of a record's task."""
    reference = record["reference"]
    return float((loss - reference["mean"]) / reference["spread"])


def _line(record: Record) -> tuple[Floats, Floats]:
    known = [batch for batch in record["batches"] if batch["mean"] is not None]
    if not known:  # nothing was ever judged: as good as unguided
        return np.array([float(record["queries"])]), np.zeros(1)
    queries = np.array([batch["queries"] for batch in known], dtype=np.float64)
    return queries, np.array([level(record, batch["mean"]) for batch in known])


def _cell(task: str, method: str, records: list[Record], theirs: Curves | None, other: bool) -> Cell:
    curves = curves_of(records)
    spent = curves.queries[-1]
    marks = sorted({int(spent), *(mark for mark in MARKS if mark <= spent)})
    late = [_late(record) for record in records]
    unguided = records[0]["reference"]
    bests = [batch["best"] for record in records for batch in record["batches"][-1:]]
    unseen = [record["unseen"]["level"] for record in records if record["unseen"]]
    ratios: dict[str, Estimate] = {}
    if theirs is not None and other:
        last = min(theirs.queries[-1], spent)
        marks_reached = [mark for mark in RATIO_MARKS if mark <= last]
        ratios = {str(mark): ratio_at(theirs, curves, mark) for mark in marks_reached}
        ratios |= {f"best {mark}": ratio_to_best(theirs, curves, mark) for mark in marks_reached}
        ratios |= {"paper": paper_ratio(theirs, curves), "lead": paper_ratio(curves, theirs)}
    return Cell(
        task,
        method,
        tuple(records),
        curves,
        {mark: mean_at(curves, mark) for mark in marks},
        mean_estimate(np.array([0.0 if loss is None else level(records[0], loss) for loss in bests])),
        _per_query(records, lambda batch: batch["drawn_passes"]),
        _per_query(records, lambda batch: _own(batch["seconds"])),
        _per_query(records, lambda batch: _own(batch["cpu_seconds"])),
        _beside(late, "quality", unguided["quality"]),
        _beside(late, "diversity", unguided["diversity"]),
        mean_estimate(np.array(unseen)) if unseen else None,
        sum(bool(record["stalled"]) for record in records),
        ratios,
    )


def _medians(cells: Iterable[Cell]) -> dict[str, Estimate]:
    groups: dict[str, list[Estimate]] = {}
    for cell in cells:
        for name, estimate in cell.ratios.items():
            groups.setdefault(name, []).append(estimate)
    return {name: median_over(group) for name, group in groups.items()}


def _late(record: Record) -> list[Record]:
    batches = record["batches"]
    return batches[-max(1, round(LATE * len(batches))) :] if batches else []


def _beside(
    late: Iterable[list[Record]], what: str, unguided: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    measures = [batch[what] for batches in late for batch in batches]
    values: dict[str, list[float]] = {}
    for measure in sorted(measures, key=len, reverse=True):  # a poor batch lacks some; the order is a full one's
        for name, value in measure.items():
            values.setdefault(name, []).append(value)
    return {name: (float(np.mean(found)), unguided.get(name, float("nan"))) for name, found in values.items()}


def _own(seconds: Mapping[str, float]) -> float:
    return sum(value for part, value in seconds.items() if part != "judge")


def _per_query(records: Sequence[Record], of: Any) -> float:
    asked = sum(batch["asked"] for record in records for batch in record["batches"])
    return float(sum(of(batch) for record in records for batch in record["batches"]) / max(asked, 1))


__all__ = ["LATE", "MARKS", "RATIO_MARKS", "Cell", "Summary", "curves_of", "level", "summarise"]
