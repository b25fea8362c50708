"""Which records of a run a request to forget is about, and which go with them.

A request names query ids, a contributor, or a condition on columns. With them go answers that were taken from them
instead of asking again, and candidates that were turned down because they are the same sample: both would tell what
was forgotten. May import :mod:`pilotwave.archive` and :mod:`pilotwave.report`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.project import run_id_of
from pilotwave.config.loading import read_yaml
from pilotwave.errors import ConfigError, InputError
from pilotwave.report.recorded_run import Judged, RecordedRun
from pilotwave.types import Evaluation

COLUMNS: dict[str, str] = {
    "query_id": "TEXT",
    "proposal": "INTEGER",
    "seed": "INTEGER",
    "identity": "TEXT",
    "label": "TEXT",
    "media": "TEXT",
    "status": "TEXT",
    "value": "REAL",
    "cost": "REAL",
    "attempt": "INTEGER",
    "fidelity": "TEXT",
    "worker": "TEXT",
    "reused_from": "TEXT",
    "failure_stage": "TEXT",
    "failure_message": "TEXT",
    "infeasible": "TEXT",
    "started": "TEXT",
    "finished": "TEXT",
}
"""What a condition may name; then ``"property.<name>"``. Times are text such as ``2026-03-01 12:00:00``, UTC."""

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}


@dataclass(frozen=True)
class ForgetRequest:
    """What shall be forgotten; exactly one of the four.

    Attributes:
        queries: By query id; in a project archive by record id.
        contributor: By who gave the answers: a worker's name, or the contributor of the whole campaign.
        where: By a condition in SQL on :data:`COLUMNS`, e.g. ``"worker = 'alice' AND value > 3"``; in a project
            archive on its own columns.
        campaign: By the name of a campaign or its run id; in a project archive only.
        corrective: Whether the queries were found to be wrong, for the receipt.
    """

    queries: tuple[str, ...] = ()
    contributor: str | None = None
    where: str | None = None
    campaign: str | None = None
    corrective: bool = False

    def __post_init__(self) -> None:
        given = [bool(self.queries), *(item is not None for item in (self.contributor, self.where, self.campaign))]
        if sum(given) != 1:
            raise InputError(
                "expected exactly one of --query, --contributor, --where and --campaign; say what to forget"
            )

    @property
    def kind(self) -> str:
        """One word for the receipt, without content."""
        if self.queries:
            return "corrective" if self.corrective else "query"
        if self.campaign is not None:
            return "campaign"
        return "contributor" if self.contributor is not None else "where"


@dataclass(frozen=True)
class Selection:
    """What goes.

    Attributes:
        ids: All query ids that go, in the order they were made.
        named: How many of them the request is about.
        reused: How many answers were taken from those.
        repeats: How many are candidates that were never asked about and are the same samples.
        paid: How many of all were paid for; they stay spent.
    """

    ids: tuple[str, ...]
    named: int
    reused: int
    repeats: int
    paid: int


def select(run: RecordedRun, request: ForgetRequest, contributed: Collection[str] = ()) -> Selection:
    """Finds what goes from a run.

    Args:
        run: The run.
        request: What shall be forgotten.
        contributed: Query ids that a project archive holds under the contributor's name.

    Raises:
        InputError: An id is unknown, the condition is none, or nothing matches.
        StorageError: The ledger cannot be read.
    """
    if request.campaign is not None:
        raise InputError(
            "--campaign is for a project archive (--archive PATH); a run directory can be deleted whole"
        )
    with Ledger.open(run.directory.ledger_file, read_only=True) as ledger:
        candidates, run_id = ledger.identities(), run_id_of(ledger)
    everything = [query_id for query_id, _, _ in candidates]
    if request.queries:
        named = _known(run, everything, request.queries)
    elif request.contributor is not None:
        named = _by_contributor(run, everything, request.contributor, contributed)
    else:
        assert request.where is not None  # one of the three is given
        named = _by_condition(run, everything, request.where)
    reused = _taken_from(run, named, run_id)
    repeats = _same_samples(candidates, named | reused)
    gone = named | reused | repeats
    return Selection(
        ids=tuple(query_id for query_id in everything if query_id in gone),
        named=len(named),
        reused=len(reused),
        repeats=len(repeats),
        paid=sum(query_id in run.state.reserved for query_id in gone),
    )


def _known(run: RecordedRun, everything: Sequence[str], wanted: Sequence[str]) -> set[str]:
    """The ids themselves; a record of a project archive stands for the answers that were taken from it."""
    taken: dict[str, set[str]] = {}
    for query_id, evaluation in _evaluations(run):
        for source in (evaluation.reused_from or "").split():
            taken.setdefault(source, set()).add(query_id)
    unknown = sorted(set(wanted) - set(everything) - set(taken))
    if unknown:
        example = f"; ids look like {everything[0]}" if everything else ""
        raise InputError(f"{run.directory.path}: expected known query ids, got {', '.join(unknown[:5])}{example}")
    own = set(wanted) & set(everything)
    return own.union(*(taken.get(name, set()) for name in set(wanted) - own))


def _by_contributor(
    run: RecordedRun, everything: Sequence[str], name: str, contributed: Collection[str]
) -> set[str]:
    if _campaign_contributor(run) == name:
        if everything:
            return set(everything)
        raise InputError(f"{run.directory.path}: expected records of contributor {name!r}, found none yet")
    found, workers = set(contributed), set()
    with Ledger.open(run.directory.ledger_file, read_only=True) as ledger:
        for event in ledger.events():
            if event.kind in (EventKind.ATTEMPTED, EventKind.SETTLED, EventKind.REMEMBERED):
                evaluation = event.evaluation()
                workers.add(evaluation.worker)
                if evaluation.worker == name:
                    found.add(evaluation.query_id)
    if not found:
        known = ", ".join(sorted(workers - {""})[:5]) or "nobody"
        raise InputError(
            f"{run.directory.path}: expected records of {name!r}, found none; answers came from {known}"
        )
    return found & set(everything)


def _campaign_contributor(run: RecordedRun) -> str | None:
    try:
        section = read_yaml(run.directory.campaign_file)[0].get("archive")
    except ConfigError as error:
        raise InputError(f"{run.directory.path}: {error}") from error
    return section.get("contributor") if isinstance(section, Mapping) else None


def _by_condition(run: RecordedRun, everything: Sequence[str], where: str) -> set[str]:
    ended = dict(_evaluations(run))
    rows = [_row(item, ended.get(item.query_id)) for item in run.judged(everything)]
    extra = sorted({name for row in rows for name in row if name not in COLUMNS})
    columns = {**COLUMNS, **dict.fromkeys(extra, "REAL")}
    quoted = ", ".join('"{}" {}'.format(name.replace('"', '""'), kind) for name, kind in columns.items())
    with closing(sqlite3.connect(":memory:")) as table:
        table.execute(f"CREATE TABLE records ({quoted})")
        places = ", ".join("?" * len(columns))
        table.executemany(
            f"INSERT INTO records VALUES ({places})", [[row.get(name) for name in columns] for row in rows]
        )
        table.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
        try:
            found = {str(row[0]) for row in table.execute(f"SELECT query_id FROM records WHERE ({where}\n)")}
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise InputError(
                f"--where: expected a condition in SQL on {', '.join(columns)}, got {where!r} ({error}); "
                "for example: worker = 'alice' AND value > 3"
            ) from error
    found &= set(everything)
    if not found:
        raise InputError(f"{run.directory.path}: no record matches {where!r}; nothing was forgotten")
    return found


def _evaluations(run: RecordedRun) -> Iterator[tuple[str, Evaluation]]:
    """How each query ended, and the answers that a warm start took over from earlier campaigns."""
    yield from run.state.settled.items()
    yield from run.state.remembered.items()


def _row(item: Judged, evaluation: Evaluation | None) -> dict[str, Any]:
    sample = item.sample
    row: dict[str, Any] = {
        "query_id": item.query_id,
        "proposal": item.proposal,
        "seed": item.seed,
        "status": item.status if evaluation is None else evaluation.status.value,
        "infeasible": item.infeasible,
    }
    if sample is not None:
        row |= {"identity": sample.identity(), "label": sample.label(), "media": sample.media}
    if evaluation is not None:
        failure, timings = evaluation.failure, evaluation.timings
        row |= {name: getattr(evaluation, name) for name in ("value", "cost", "attempt", "fidelity", "worker")}
        row["reused_from"] = evaluation.reused_from
        if failure is not None:
            row |= {"failure_stage": failure.stage, "failure_message": failure.message}
        if timings is not None:
            row |= {"started": _text(timings.started), "finished": _text(timings.finished)}
    said = {} if evaluation is None else evaluation.properties
    return row | {f"property.{name}": value for name, value in {**item.constraints, **said}.items()}


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _taken_from(run: RecordedRun, named: set[str], run_id: str) -> set[str]:
    """The answers taken from these, directly or by way of a project archive, and those taken from them in turn."""
    gone, own = set(named), f"{run_id}/"
    taken = {
        name: {source.removeprefix(own) for source in (item.reused_from or "").split()}
        for name, item in _evaluations(run)
    }
    while more := {name for name, sources in taken.items() if sources & gone and name not in gone}:
        gone |= more
    return gone - named


def _same_samples(candidates: Iterable[tuple[str, str | None, str | None]], gone: set[str]) -> set[str]:
    """Candidates never asked about whose sample is one that goes and that no other answer keeps."""
    rows = list(candidates)
    leaving = {identity for query_id, identity, _ in rows if query_id in gone and identity is not None}
    staying = {identity for query_id, identity, reason in rows if query_id not in gone and reason is None}
    return {
        query_id
        for query_id, identity, reason in rows
        if query_id not in gone and reason is not None and identity in leaving - staying
    }


__all__ = ["COLUMNS", "ForgetRequest", "Selection", "select"]
