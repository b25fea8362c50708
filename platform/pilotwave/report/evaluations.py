"""Every candidate of a run as one row of a table: CSV for people, Parquet with typed columns for programs.

May import :mod:`pilotwave.report`; pyarrow (extra ``report``) inside the function that needs it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from pilotwave.errors import MissingDependencyError
from pilotwave.report.recorded_run import Judged
from pilotwave.samples import MoleculeSample

COLUMNS: dict[str, str] = {
    "query_id": "string",
    "batch": "int64",
    "status": "string",
    "value": "float64",
    "attempt": "int64",
    "cost": "float64",
    "fidelity": "string",
    "started": "timestamp",
    "finished": "timestamp",
    "worker": "string",
    "reused_from": "string",
    "label": "string",
    "strictly_valid": "bool",
    "repaired_hydrogens": "int64",
    "reason": "string",
    "seed": "int64",
}
"""The columns that every run has, with their types; a float64 column per property follows them. ``reason`` is
why there is no value (``"stage: message"``); times are UTC, in CSV as seconds since the epoch."""

Row = dict[str, Any]


def evaluation_rows(judged: Iterable[Judged]) -> list[Row]:
    """Returns a row per candidate; what is not known is None, properties are under ``"property.<name>"``."""
    return [_row(item) for item in judged]


def evaluations_csv(rows: Sequence[Row]) -> str:
    """Returns the rows as CSV with a header; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *_property_columns(rows)], lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def evaluations_parquet(rows: Sequence[Row]) -> bytes:
    """Returns the rows as a Parquet file.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependencyError(
            "the format parquet needs pyarrow, which is not installed; "
            "run: pip install 'pilotwave[report]', or use --format csv"
        ) from error
    types = {
        "string": arrow.string(),
        "int64": arrow.int64(),
        "float64": arrow.float64(),
        "bool": arrow.bool_(),
        "timestamp": arrow.timestamp("us", tz="UTC"),
    }
    columns = {**COLUMNS, **dict.fromkeys(_property_columns(rows), "float64")}
    arrays = []
    for name, kind in columns.items():
        cells = [row.get(name) for row in rows]
        if kind == "timestamp":
            cells = [None if cell is None else round(cell * 1e6) for cell in cells]
        arrays.append(arrow.array(cells, type=types[kind]))
    sink = io.BytesIO()
    parquet.write_table(arrow.table(arrays, names=list(columns)), sink)
    return sink.getvalue()


def _row(item: Judged) -> Row:
    evaluation = item.evaluation
    molecule = item.sample if isinstance(item.sample, MoleculeSample) else None
    row: Row = dict.fromkeys(COLUMNS)
    row |= {
        "query_id": item.query_id,
        "batch": item.proposal,
        "status": item.status,
        "label": None if item.sample is None else item.sample.label(),
        "strictly_valid": None if molecule is None else molecule.strictly_valid,
        "repaired_hydrogens": None if molecule is None else molecule.repaired_hydrogens,
        "reason": item.infeasible,
        "seed": item.seed,
    }
    if evaluation is not None:
        failure, timings = evaluation.failure, evaluation.timings
        row |= {
            "value": evaluation.value,
            "attempt": evaluation.attempt,
            "cost": evaluation.cost,
            "fidelity": evaluation.fidelity,
            "started": None if timings is None else timings.started,
            "finished": None if timings is None else timings.finished,
            "worker": evaluation.worker or None,
            "reused_from": evaluation.reused_from,
            "reason": item.infeasible if failure is None else f"{failure.stage}: {failure.message}",
        }
    return row | {f"property.{name}": value for name, value in item.properties.items()}


def _property_columns(rows: Sequence[Row]) -> list[str]:
    return sorted({name for row in rows for name in row if name not in COLUMNS})


__all__ = ["COLUMNS", "Row", "evaluation_rows", "evaluations_csv", "evaluations_parquet"]
