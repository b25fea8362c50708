"""Forgetting in a run directory: promise, take out everywhere, sign; finished by whoever comes next after a kill.

The order: the promise is on the disk; the ledger is replaced by one without the records; receipts, checkpoints and
result files go, and the latter are made anew; MLflow; the project archive; the receipt; the promise goes. Each step
can be done again without harm. The algorithm learns again from the reduced ledger when the campaign is resumed, so
it stands where one stands that never saw the records. May import everything below the command line.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pilotwave.archive.ledger import Ledger
from pilotwave.archive.project import run_id_of
from pilotwave.archive.reduced_ledger import is_reduced, ledger_digest, reduce_ledger, settle_into_one_file
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.errors import InfrastructureError, PilotwaveError, RunDirectoryError
from pilotwave.execution.learned_model import MODEL_FOLDER
from pilotwave.execution.receipts import wait_until_quiet
from pilotwave.forgetting.archive_records import archive_of, archived_ids, contributed, remove_from_archive
from pilotwave.forgetting.byte_search import files_under, files_with_ids
from pilotwave.forgetting.metrics import changes_without
from pilotwave.forgetting.outbox import pending_rows, rewrite_pending
from pilotwave.forgetting.places import Place, counted, places_in_run, receipts_of
from pilotwave.forgetting.promise import FOLDER, Promise, delete_promise, promised_file, read_promise, write_promise
from pilotwave.forgetting.receipt import ForgettingReceipt, file_digest, signer, write_receipt
from pilotwave.forgetting.selection import ForgetRequest, Selection, select
from pilotwave.forgetting.takers import Taker, runs_beside, takers_of
from pilotwave.report.recorded_run import RecordedRun
from pilotwave.report.results import NAMES, write_results
from pilotwave.tracking.mlflow_forgetting import TrackedRun, tracked_run

_WRITER_SECONDS = 5.0
_QUIET_SECONDS = 15.0


@dataclass(frozen=True)
class Plan:
    """What a forgetting would do.

    Attributes:
        selection: Which records.
        promise: All that is needed to do it.
        places: Where they are held.
        takers: Runs beside this one, or beside the archive, that took answers from these; they forget them as well.
        other_runs: How many such answers the archive knows of runs that were not found, by run id.
    """

    selection: Selection
    promise: Promise
    places: tuple[Place, ...]
    takers: tuple[Taker, ...]
    other_runs: dict[str, int]


@dataclass(frozen=True)
class Forgotten:
    """What a forgetting did.

    Attributes:
        receipt: What remains of it.
        path: Of the receipt.
        left: Files of others in the run directory that still name a record; ours never do.
        notes: Lines that the user should see.
        salt: Of the hashes in the receipt; with it one can show later that an id is among them.
    """

    receipt: ForgettingReceipt
    path: Path
    left: tuple[Path, ...]
    notes: tuple[str, ...]
    salt: str


def plan_forgetting(run_dir: Path, request: ForgetRequest, archive: Path | None = None) -> Plan:
    """Finds what would go, and every place that holds it; nothing is changed.

    Args:
        run_dir: Of the run.
        request: What shall be forgotten.
        archive: The project archive that holds its answers; by default the campaign's, or the one beside the run.

    Raises:
        InputError: There is no run, or nothing matches.
        InfrastructureError: The ledger or the tracking server cannot be read.
    """
    run = RunDirectory(run_dir)
    recorded = RecordedRun.read(run.path)
    found = archive_of(run, archive)
    by_name = set() if found is None else contributed(found, run, request.contributor)
    selection = select(recorded, request, by_name)
    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        events, run_id = list(ledger.events()), run_id_of(ledger)
    tracked = tracked_run(run.path)
    rows = pending_rows(run.path) + ([] if tracked is None else tracked.rows())
    changes = changes_without(rows, events, set(selection.ids), recorded.objective.loss)
    artifacts = [] if tracked is None else [name for name in tracked.artifacts() if name in NAMES.values()]
    archived = None if found is None else archived_ids(found, run, selection.ids)
    beside = runs_beside({run.path.parent} | (set() if found is None else {found.parent}))
    takers = takers_of(run_id, selection.ids, [path for path in beside if path != run.path])
    known = {run_id, *(taker.run_id for taker in takers)}
    runs = {} if archived is None else archived.runs
    places = places_in_run(run, selection.ids)
    if tracked is not None:
        places.append(Place("metrics", tracked.where, f"{counted(len(changes), 'value')} to change"))
        places += [Place("artifact", f"{tracked.where}: {name}", "made anew from the ledger") for name in artifacts]
        what = "what was learned; deleted, resuming logs it anew"
        places += [Place("model", f"{tracked.where}: {name}", what) for name in tracked.models()]
    if archived is not None and archived.ids:
        places.append(Place("archive", str(archived.path), f"{counted(len(archived.ids), 'record')} to go"))
    places += [
        Place("run", str(item.path), f"{counted(item.answers, 'answer')} taken from these, to go first")
        for item in takers
    ]
    others = {name: count for name, count in runs.items() if name not in known}
    now = datetime.now(UTC)
    promise = Promise(
        receipt=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        when=now.isoformat(timespec="seconds"),
        kind=request.kind,
        named=selection.named,
        ids=selection.ids,
        queries=selection.paid,
        salt=secrets.token_hex(16),
        had_results=bool(artifacts) or next(files_under(run.results), None) is not None,
        changes=tuple(changes),
        artifacts=tuple(artifacts),
        archive=None if found is None else str(found),
        archived=() if archived is None else archived.ids,
    )
    return Plan(selection, promise, tuple(places), tuple(takers), others)


def forget(run_dir: Path, request: ForgetRequest, archive: Path | None = None) -> Forgotten:
    """Forgets, durably; see the module, and :func:`plan_forgetting` for the arguments.

    Raises:
        RunDirectoryError: A driver is at work.
        InputError: There is no run, or nothing matches.
        InfrastructureError: Something could not be read or written; once promised, it is finished next time.
    """
    run = RunDirectory(run_dir)
    if not run.exists():
        raise RunDirectoryError(f"{run.path}: no run here; give the directory of a run, e.g. runs/demo")
    with run.lock():
        finish_promised_forgetting(run.path)
        with _alone(run):
            plan = plan_forgetting(run.path, request, archive)
            # Before anything is promised here: asked again after a kill, this run still knows what it gave away.
            taken = [_forget_taken(taker, request) for taker in plan.takers]
            promise = _with_digests(run, plan.promise)
            write_promise(run.path, promise)
            done = _keep_or_say(run, promise)
    others = taken + [
        f"run {name} took {counted(count, 'answer')} from these; forget them in its directory as well"
        for name, count in plan.other_runs.items()
    ]
    return replace(done, notes=(*done.notes, *others))


def _forget_taken(taker: Taker, request: ForgetRequest) -> str:
    """Forgets in a run that took answers what it took; returns a line about it."""
    done = forget(taker.path, ForgetRequest(taker.records, corrective=request.corrective))
    what = counted(taker.answers, "answer")
    return f"{taker.path} had taken {what} from these and forgot them; receipt {done.path}, salt {done.salt}"


def finish_promised_forgetting(run_dir: Path) -> Forgotten | None:
    """Finishes a forgetting that was promised and interrupted; the caller holds the run's lock.

    Returns:
        What was done, or None if nothing was promised.

    Raises:
        PilotwaveError: It cannot be finished yet; the promise stays.
    """
    run = RunDirectory(run_dir)
    promise = read_promise(run.path)
    if promise is None:
        if promised_file(run.path).parent.is_dir():
            for leftover in promised_file(run.path).parent.glob(".*.tmp"):  # killed before it was a promise
                leftover.unlink(missing_ok=True)
        return None
    with _alone(run):
        return _keep_or_say(run, promise)


@contextmanager
def _alone(run: RunDirectory) -> Iterator[None]:
    """Makes sure that nobody else writes here, and that the ledger is one file."""
    writer = run.become_writer(_WRITER_SECONDS)
    try:
        if run.receipts.is_dir() and not wait_until_quiet(run.receipts, _QUIET_SECONDS):
            raise RunDirectoryError(
                f"{run.path}: oracle processes of an earlier driver are still at work; wait for them, or end them"
            )
        settle_into_one_file(run.ledger_file)
        yield
    finally:
        os.close(writer)


def _with_digests(run: RunDirectory, promise: Promise) -> Promise:
    """Adds the digests of all files that are going to change or go."""
    files = _changing_files(run, promise, tracked_run(run.path))
    before = {promise.public_name(path, run.path): file_digest(path) for path in files}
    return replace(promise, before={name: found for name, found in before.items() if found})


def _changing_files(run: RunDirectory, promise: Promise, tracked: TrackedRun | None) -> list[Path]:
    files = [run.ledger_file, *receipts_of(run, promise.ids)]
    whole = (run.checkpoints, run.results, run.path / MODEL_FOLDER, run.logs)
    files += [path for folder in whole for path in files_under(folder)]
    if tracked is not None:
        files += tracked.model_files()
        made_anew = set(promise.artifacts)
        files += [path for path in tracked.files() if path.suffix == ".db" or path.name in made_anew]
    return files


def _keep_or_say(run: RunDirectory, promise: Promise) -> Forgotten:
    try:
        return _keep(run, promise)
    except (PilotwaveError, OSError) as error:
        raise InfrastructureError(
            f"{error}; the forgetting has begun and will be finished by: pilotwave forget {run.path} --finish"
        ) from error


def _keep(run: RunDirectory, promise: Promise) -> Forgotten:
    """Does what was promised, all of it or what is left of it."""
    if not is_reduced(run.ledger_file, promise.receipt):
        reduce_ledger(run.ledger_file, set(promise.ids), receipt=promise.receipt, queries=promise.queries)
    whole = (run.checkpoints, run.results, run.logs)
    for path in (*receipts_of(run, promise.ids), *(path for folder in whole for path in files_under(folder))):
        path.unlink(missing_ok=True)
    if (run.path / MODEL_FOLDER).exists():
        shutil.rmtree(run.path / MODEL_FOLDER)
    notes: list[str] = []
    if promise.had_results:
        notes += write_results(run.path).skipped.values()
    tracked = tracked_run(run.path)
    _forget_tracked(run, promise, tracked)
    archived = None
    if promise.archive is not None and promise.archived:
        archived = remove_from_archive(Path(promise.archive), promise.archived, promise.kind)
    for path in _our_leftovers(run):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    needs_collection = tracked is not None and tracked.needs_collection
    if needs_collection:
        notes.append("the old MLflow run is only marked as deleted: run `mlflow gc` on the tracking server")
    after = {
        promise.public_name(path, run.path): file_digest(path) for path in _changing_files(run, promise, tracked)
    }
    receipt = ForgettingReceipt(
        receipt=promise.receipt,
        kind=promise.kind,
        promised=promise.when,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        records=len(promise.ids),
        queries=promise.queries,
        hashed_ids=tuple(sorted(promise.hashed(query_id) for query_id in promise.ids)),
        files={name: (promise.before.get(name), after.get(name)) for name in sorted({*promise.before, *after})},
        state=ledger_digest(run.ledger_file),
        archive=archived,
        collect_garbage=needs_collection,
        signed_by=signer(),
    )
    path = write_receipt(run.path, receipt)
    left = _left(run, promise, tracked)
    delete_promise(run.path)
    notes += [f"{item} is not ours and still names a record; look at it yourself" for item in left]
    return Forgotten(receipt, path, tuple(left), tuple(notes), promise.salt)


def _forget_tracked(run: RunDirectory, promise: Promise, tracked: TrackedRun | None) -> None:
    rewrite_pending(run.path, promise.changes)
    if tracked is None:
        return
    tracked.delete_models()  # before the run may be logged again under another id
    made = {name: run.results / name for name in promise.artifacts}
    artifacts = {name: path if path.exists() else None for name, path in made.items()}
    if promise.changes or artifacts:
        tracked.rewrite(promise.changes, artifacts, promise.receipt)


def _our_leftovers(run: RunDirectory) -> Iterator[Path]:
    """What killed processes left half-written: such files are never opened again, and may hold anything."""
    for pattern in (".*.reduced*", ".ledger.sqlite.*", ".*.tmp", "*.tmp"):
        yield from run.path.glob(pattern)


def _left(run: RunDirectory, promise: Promise, tracked: TrackedRun | None) -> Sequence[Path]:
    """Files that still name a record: nothing of ours, but people keep files here too."""
    files = [path for path in files_under(run.path) if path != promised_file(run.path)]
    if tracked is not None:
        files += [path for path in tracked.files() if path.suffix != ".db"]
    return files_with_ids(files, promise.ids)


__all__ = ["FOLDER", "Forgotten", "Plan", "finish_promised_forgetting", "forget", "plan_forgetting"]
