"""What a study leaves for people: a table in three formats, a picture, and the best campaign, ready to run.

May import :mod:`pilotwave.report`, PyYAML and the modules beside it; pyarrow (extra ``report``) inside a function.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pilotwave.errors import MissingDependencyError
from pilotwave.report.study_plots import Line, TriedField, draw_study
from pilotwave.storage import write_atomically
from pilotwave.tuning.checks import in_words, value_in_words
from pilotwave.tuning.config import StudyConfig
from pilotwave.tuning.ledger import StudyDirectory, TrialRecord
from pilotwave.tuning.plans import campaign_fields, objective_of, plan_trial, seeds_of, tasks_of

FILES = {
    "table": "results.csv",
    "parquet": "results.parquet",
    "json": "results.json",
    "picture": "study.png",
    "campaign": "best.yaml",
}
"""From what a file is to its name in the study's directory."""
WORDS = {
    "queries_to_target": "questions to the target",
    "level": "mean level (unguided standard deviations)",
    "best": "level of the best (unguided standard deviations)",
}
Row = dict[str, Any]


def best_of(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """Returns the finished trial with the lowest loss; one that was stopped only where none has finished."""
    ended = [record for record in trials if record.ended is not None and record.ended.campaigns]
    for status in ("finished", "stopped"):
        found = [record for record in ended if record.status == status]
        if found:
            return min(found, key=lambda record: (record.ended.loss, record.number) if record.ended else (0.0, 0))
    return None


def ranked(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Returns trials, the best first: finished ones, stopped ones, then the others."""
    order = {"finished": 0, "stopped": 1, "open": 2}

    def key(record: TrialRecord) -> tuple[int, float, int]:
        last = record.last
        return order.get(record.status, 3), 0.0 if last is None else last.loss, record.number

    return sorted(trials, key=key)


def rows_of(study: StudyConfig, trials: Mapping[int, TrialRecord]) -> list[Row]:
    """Returns a row per trial, in the order in which they were begun."""
    rows = []
    for record in trials.values():
        last = record.last
        row: Row = {"trial": record.number, "status": record.status}
        row |= {name: _plain(record.point.get(name)) for name in study.search}
        row |= {
            "loss": None if last is None or not last.campaigns else last.loss,
            "queries": 0 if last is None else last.queries,
            "spent": 0 if last is None else last.spent,
            "reached": 0 if last is None else last.reached,
            "failure": "" if last is None else last.failure,
        }
        for each in () if last is None else last.campaigns:
            row[f"queries_to_target {each.task} {each.seed}"] = each.reached
            row[f"best {each.task} {each.seed}"] = each.best
        rows.append(row)
    return rows


def write_results(
    directory: StudyDirectory, study: StudyConfig, trials: Mapping[int, TrialRecord]
) -> dict[str, Path]:
    """Writes all files; what a package is missing for is left out.

    Raises:
        StorageError: They cannot be written.
    """
    rows = rows_of(study, trials)
    if not rows:
        return {}
    columns = list(dict.fromkeys(name for row in rows for name in row))
    best = best_of(trials.values())
    figures = {
        "study": study.name,
        "objective": objective_of(study),
        "best": None if best is None else best.number,
        "point": None if best is None else best.point,
        "trials": rows,
    }
    written = {
        "table": _csv(rows, columns).encode(),
        "json": (json.dumps(figures, indent=1, default=str) + "\n").encode(),
        "parquet": _parquet(rows, columns),
        "picture": _picture(study, trials, best),
        "campaign": None if best is None else best_campaign(study, best).encode(),
    }
    files = {}
    for what, data in written.items():
        if data is not None:
            files[what] = directory.path / FILES[what]
            write_atomically(files[what], data)
    return files


def best_campaign(study: StudyConfig, best: TrialRecord) -> str:
    """Returns the campaign file of the best point, on the first task and seed."""
    name, task = next(iter(tasks_of(study).items()))
    seed = seeds_of(study)[0]
    config = plan_trial(study, best.number, best.point).campaigns[0].config
    fields = config.model_dump(mode="json", exclude_none=True)
    fields["tracking"] = campaign_fields(study, task, seed, best.point).get("tracking", {"kind": "none"})
    assert best.ended is not None
    head = [
        f"# The best of the {study.name} study: trial {best.number}, {in_words(best.point)}.",
        f"# {WORDS[objective_of(study)]}: {best.ended.loss:.4g}. Task {name}, seed {seed}.",
        "#     pilotwave run best.yaml",
    ]
    return "\n".join(head) + "\n" + yaml.safe_dump(fields, sort_keys=False)


def _plain(value: Any) -> Any:
    return value_in_words(value) if isinstance(value, Mapping | list | tuple) else value


def _csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _parquet(rows: Sequence[Row], columns: Sequence[str]) -> bytes | None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    table = {}
    for column in columns:
        values = [row.get(column) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        mixed = len(kinds - {int, float}) > 0 and len(kinds) > 1  # a field with numbers and words
        table[column] = pa.array([None if value is None else str(value) for value in values] if mixed else values)
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer)
    return buffer.getvalue()


def _picture(study: StudyConfig, trials: Mapping[int, TrialRecord], best: TrialRecord | None) -> bytes | None:
    lines = []
    for record in trials.values():
        # The last point of a finished trial is its whole budget; a stopped one ends where it was stopped.
        places = [(each.queries, each.loss) for each in record.standings]
        if record.ended is not None and record.status == "finished":
            places = [place for place in places if place[0] < record.ended.queries]
            places.append((record.ended.queries, record.ended.loss))
        if places:
            chosen = best is not None and record.number == best.number
            lines.append(Line(record.number, record.status, tuple(places), chosen))
    ended = [record for record in trials.values() if record.ended is not None and record.ended.campaigns]
    fields = []
    for name, dimension in study.search.items():
        points = [
            (record.point[name], record.ended.loss, record.status == "finished")
            for record in ended
            if name in record.point and record.ended is not None
        ]
        numeric = dimension.way != "choice" or all(_is_number(value) for value in dimension.values)
        told = tuple((value if numeric else value_in_words(value), loss, whole) for value, loss, whole in points)
        named = () if numeric else tuple(value_in_words(value) for value in dimension.values)
        fields.append(TriedField(name, told, named, logarithmic=dimension.way == "log_uniform"))
    try:
        return draw_study(study.name, lines, fields, WORDS[objective_of(study)])
    except MissingDependencyError:
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


__all__ = ["FILES", "WORDS", "best_campaign", "best_of", "ranked", "rows_of", "write_results"]
