"""From a run's ledger to records of the project archive.

Answers and failures of queries that were asked become records; candidates that nobody was asked about do not.
May import :mod:`pilotwave.archive`, :mod:`pilotwave.config` and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave.archive.ledger import Event, EventKind, Ledger
from pilotwave.archive.project.record import AnswerRecord
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.config.components import OracleConfig
from pilotwave.config.loading import read_yaml
from pilotwave.errors import ConfigError, RunDirectoryError
from pilotwave.types import Evaluation

_CHUNK = 64
"""How many candidates are in memory at once: each carries its whole noise sequence."""


def records_of_run(run: RunDirectory, contributor: str, *, deterministic: bool = True) -> Iterator[AnswerRecord]:
    """Yields a record for every query of a run that ended, in the order in which they were settled.

    Args:
        run: Its directory; a campaign may be writing to it.
        contributor: Whose answers they are.
        deterministic: Stands in for what a run's start did not write down.

    Raises:
        RunDirectoryError: There is no run here, or its campaign file cannot be read.
        StorageError: The ledger cannot be read.
    """
    if not run.exists():
        raise RunDirectoryError(f"{run.path}: no run here; give the directory of a run, e.g. runs/demo")
    fields = _campaign_fields(run)
    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        run_id = run_id_of(ledger)
        facts: Mapping[str, Any] = {}
        waiting: list[tuple[float, Evaluation]] = []
        known: dict[str, Any] = {
            "campaign": str(fields.get("name", run.path.name)),
            "run_id": run_id,
            "contributor": contributor,
            "oracle_parameters": parameters_digest(fields.get("oracle") or {}),
        }
        for event in ledger.events():
            if event.kind is EventKind.STARTED:
                yield from _records(ledger, waiting, facts, known, deterministic)
                waiting, facts = [], event.record.get("facts", {})
            elif event.kind is EventKind.SETTLED:
                waiting.append((event.time, event.evaluation()))
                if len(waiting) >= _CHUNK:
                    yield from _records(ledger, waiting, facts, known, deterministic)
                    waiting = []
        yield from _records(ledger, waiting, facts, known, deterministic)


@dataclass(frozen=True)
class ArchiveSection:
    """What a run's campaign says of its project archive.

    Attributes:
        path: Its folder, or None if it has none.
        contributor: Whose answers the run's are.
    """

    path: Path | None = None
    contributor: str = ""


def archive_section(run: RunDirectory) -> ArchiveSection:
    """Returns the archive section of a run's campaign; empty if it has none.

    Raises:
        RunDirectoryError: The campaign file cannot be read.
    """
    section = _campaign_fields(run).get("archive")
    if not isinstance(section, Mapping):
        return ArchiveSection()
    path = section.get("path")
    return ArchiveSection((run.path / str(path)).resolve() if path else None, str(section.get("contributor", "")))


def run_id_of(ledger: Ledger) -> str:
    """Returns a name for the run that no other run has: the campaign's name and a digest of its first event.

    It stays the same when the directory is moved or copied.
    """
    return run_id_from(ledger.meta(), next(iter(ledger.events()), None))


def run_id_from(meta: Mapping[str, str], first: Event | None) -> str:
    """Returns the run's name from what its ledger belongs to and its first event; see :func:`run_id_of`."""
    began = [] if first is None else [repr(first.time), json.dumps(dict(first.record), sort_keys=True)]
    digest = hashlib.sha256(json.dumps([meta.get("campaign"), *began]).encode()).hexdigest()
    return f"{meta.get('name', 'run')}-{digest[:12]}"


def parameters_digest(oracle: Mapping[str, Any]) -> str:
    """Returns a digest of an oracle's section of a campaign, without how patiently it is asked.

    Args:
        oracle: The section as JSON-compatible fields, e.g. ``config.oracle.model_dump(mode="json")``.
    """
    policies = OracleConfig.model_fields.keys() - {"kind"}
    told = {name: value for name, value in oracle.items() if name not in policies}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _records(
    ledger: Ledger,
    waiting: list[tuple[float, Evaluation]],
    facts: Mapping[str, Any],
    known: Mapping[str, Any],
    deterministic: bool,
) -> Iterator[AnswerRecord]:
    found = {item.query_id: item for item in ledger.candidates([evaluation.query_id for _, evaluation in waiting])}
    for when, evaluation in waiting:
        candidate = found.get(evaluation.query_id)
        if candidate is None:
            continue
        yield AnswerRecord.of(
            candidate,
            evaluation,
            backbone=str(facts.get("backbone", "")),
            oracle=str(facts.get("oracle", "")),
            oracle_version=str(facts.get("oracle_version", "")),
            deterministic=bool(facts.get("deterministic", deterministic)),
            recorded=when,
            **known,
        )


def _campaign_fields(run: RunDirectory) -> dict[str, Any]:
    try:
        return dict(read_yaml(run.campaign_file)[0])
    except ConfigError as error:
        raise RunDirectoryError(f"{run.path} cannot be read: {error}") from error


__all__ = ["ArchiveSection", "archive_section", "parameters_digest", "records_of_run", "run_id_from", "run_id_of"]
