"""The project archive's part of a forgetting: which of its records go, and taking them out.

May import :mod:`pilotwave.archive` and :mod:`pilotwave.forgetting`; the project archive itself (extra ``archive``)
inside functions.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pilotwave.archive.ledger import Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.config.loading import read_yaml
from pilotwave.errors import ConfigError, InputError
from pilotwave.forgetting.selection import ForgetRequest

_OWNER_SECONDS = 15.0
"""A campaign owns its archive while it adds a batch, no longer."""


@dataclass(frozen=True)
class ArchiveSelection:
    """What goes from a project archive.

    Attributes:
        path: Its folder.
        ids: All record ids that go.
        named: How many of them the request is about; the others are answers taken from those.
        runs: How many records go, by run id.
    """

    path: Path
    ids: tuple[str, ...]
    named: int
    runs: Mapping[str, int]


def archive_of(run: RunDirectory, given: Path | None = None) -> Path | None:
    """Returns the project archive that holds a run's answers, or None if there is none.

    Args:
        run: Its directory.
        given: By the user; else that of its campaign is taken, or ``archive`` beside the run, to which
            ``pilotwave archive add`` writes.

    Raises:
        InputError: The given one is none, or the campaign cannot be read.
    """
    if given is not None:
        if not (given / "manifest.json").exists():
            raise InputError(f"--archive: expected a project archive, there is none at {given}")
        return given.resolve()
    try:
        section = read_yaml(run.campaign_file)[0].get("archive")
    except ConfigError as error:
        raise InputError(f"{run.path}: {error}") from error
    named = section.get("path") if isinstance(section, Mapping) else None
    path = run.path.parent / "archive" if named is None else (run.path / str(named)).resolve()
    return path if (path / "manifest.json").exists() else None


def contributed(path: Path, run: RunDirectory, contributor: str | None) -> set[str]:
    """Returns a run's query ids that a project archive holds under a contributor's name; none without a name."""
    if contributor is None:
        return set()
    from pilotwave.archive.project import ProjectArchive, run_id_of

    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        run_id = run_id_of(ledger)
    where = f"run_id = {_quoted(run_id)} AND contributor = {_quoted(contributor)}"
    with ProjectArchive.open(path, read_only=True) as archive:
        return set(archive.table(where, ["query_id"]).column("query_id").to_pylist())


def archived_ids(path: Path, run: RunDirectory, ids: Collection[str]) -> ArchiveSelection:
    """Finds the records of a run's queries in a project archive, and the answers that were taken from them."""
    from pilotwave.archive.project import run_id_of

    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        run_id = run_id_of(ledger)
    names = [f"{run_id}/{query_id}" for query_id in ids]
    return _with_taken(path, names, missing_is_wrong=False)


def select_from_archive(path: Path, request: ForgetRequest) -> ArchiveSelection:
    """Finds what a request is about in a project archive, and the answers that were taken from it.

    Raises:
        InputError: A record id is unknown, the condition is none, or nothing matches.
    """
    if request.queries:
        return _with_taken(path, request.queries, missing_is_wrong=True)
    if request.contributor is not None:
        where, what = f"contributor = {_quoted(request.contributor)}", f"contributor {request.contributor!r}"
        where += f" OR worker = {_quoted(request.contributor)}"
    elif request.campaign is not None:
        name = _quoted(request.campaign)
        where, what = f"campaign = {name} OR run_id = {name}", f"campaign {request.campaign!r}"
    else:
        where, what = str(request.where), repr(request.where)
    from pilotwave.archive.project import ProjectArchive

    with ProjectArchive.open(path, read_only=True) as archive:
        found = archive.table(where, ["record_id"]).column("record_id").to_pylist()
    if not found:
        raise InputError(f"{path}: expected records of {what}, found none; nothing was forgotten")
    return _with_taken(path, found, missing_is_wrong=False)


def remove_from_archive(path: Path, ids: Sequence[str], kind: str) -> dict[str, Any]:
    """Takes records out of every file of a project archive, as its owner; waits for another owner a while.

    Returns:
        The archive's receipt.

    Raises:
        ArchiveError: It is gone, or another process kept owning it.
        StorageError: It cannot be written.
    """
    from pilotwave.archive.project import ArchiveError, ProjectArchive

    deadline = time.monotonic() + _OWNER_SECONDS
    while True:
        try:
            with ProjectArchive.open(path) as archive:
                return asdict(archive.remove(list(ids), reason=f"forget by {kind}"))
        except ArchiveError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _with_taken(path: Path, wanted: Sequence[str], *, missing_is_wrong: bool) -> ArchiveSelection:
    from pilotwave.archive.project import ProjectArchive

    with ProjectArchive.open(path, read_only=True) as archive:
        columns = archive.table(columns=["record_id", "run_id", "reused_from"]).to_pydict()
    run_of = dict(zip(columns["record_id"], columns["run_id"], strict=True))
    unknown = [name for name in wanted if name not in run_of]
    if unknown and missing_is_wrong:
        example = f"; ids look like {next(iter(run_of))}" if run_of else ""
        raise InputError(f"{path}: expected known record ids, got {', '.join(unknown[:5])}{example}")
    taken: dict[str, list[str]] = {}
    for name, source in zip(columns["record_id"], columns["reused_from"], strict=True):
        for word in (source or "").split():  # several where answers were averaged
            taken.setdefault(word, []).append(name)
    gone: dict[str, None] = {}
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in gone:
            gone[name] = None
            waiting += taken.get(name, [])
    ids = tuple(sorted(name for name in gone if name in run_of))
    runs = Counter(run_of[name] for name in ids)
    return ArchiveSelection(path, ids, len(set(wanted) & set(ids)), dict(sorted(runs.items())))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


__all__ = ["ArchiveSelection", "archive_of", "archived_ids", "remove_from_archive", "select_from_archive"]
