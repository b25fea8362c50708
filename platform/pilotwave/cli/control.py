"""``pilotwave control``: commands to a campaign at work, from any terminal that sees its run directory."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotwave.cli.options import JsonOutput, RunDir
from pilotwave.errors import InputError

if TYPE_CHECKING:
    from pilotwave.archive.run_directory import RunDirectory
    from pilotwave.execution.control import Command

PATIENCE_SECONDS = 15.0
"""How long the driver's word is waited for."""
INSTEAD = {
    "pause": "there is nothing to pause",
    "drain": "there is nothing to drain",
    "stop": "there is nothing to stop",
    "resume": "go on with: pilotwave resume {run_dir}",
    "add-queries": "give it more with: pilotwave resume {run_dir} --set budget.queries=N",
    "set": "give it another budget with: pilotwave resume {run_dir} --set {argument}",
}
ENDED = {
    None: "it was killed",
    "finished": "it has finished",
    "finished-early": "it was drained",
    "interrupted": "it was interrupted",
    "breaker": "the failure-rate breaker stopped it",
    "failed": "it has failed",
}
MEANING = {
    "pause": "paused: nothing new is made or asked, what is in flight settles; go on with: "
    "pilotwave control {run_dir} resume",
    "resume": "going on",
    "drain": "draining: nothing new is proposed; what is ready is asked, then the campaign ends",
    "stop": "stopping: answers in flight get a few seconds, then all is saved; go on with: "
    "pilotwave resume {run_dir}",
}


def control(
    run_dir: RunDir,
    command: Annotated[str, typer.Argument(help="pause, resume, drain, stop, add-queries or set.")],
    argument: Annotated[
        str | None,
        typer.Argument(
            help="How many (add-queries), or budget.queries=N, budget.cost=X, budget.wall_hours=X (set)."
        ),
    ] = None,
    json_output: JsonOutput = False,
) -> None:
    """Pause, drain, stop or give more budget to a campaign while it runs.

    Example: pilotwave control runs/polarizability add-queries 100
    """
    from pilotwave.execution.control import Command

    chosen = Command.of(command, argument)
    run = _run_at_work(run_dir, chosen)
    path = chosen.send(run)
    record = _acknowledged(run, chosen)
    if record is None and not _is_at_work(run):
        path.unlink(missing_ok=True)
        raise InputError(_nobody(run, chosen, run_dir))
    if record is not None and record["refused"]:
        raise InputError(f"control {command}: refused by the driver: {record['refused']}")
    if json_output:
        typer.echo(json.dumps({"acknowledged": record is not None, **(record or {"id": chosen.id})}))
    elif record is None:
        typer.echo(
            f"handed over; the driver has not come to it within {PATIENCE_SECONDS:.0f} s (it is starting, "
            "proposing, or far away) and will obey when it does"
        )
    else:
        typer.echo(_in_words(record, run_dir))


def _run_at_work(run_dir: Path, command: Command) -> RunDirectory:
    """Returns the run itself, also where the folder is only a copy of it."""
    from pilotwave.archive.origin import read_origin
    from pilotwave.archive.run_directory import RunDirectory
    from pilotwave.errors import RunDirectoryError

    run = RunDirectory(run_dir)
    origin = read_origin(run.path)
    if origin is not None and Path(origin.run_dir) != run.path:
        run = RunDirectory(Path(origin.run_dir))
        if not run.exists():
            words = f"{origin.run_dir} {command.verb} {command.argument}".strip()
            raise InputError(
                f"{run_dir} is a copy of {origin.run_dir} at {origin.address}, which is not seen from here; give "
                f"the command there: pilotwave control {words}"
            )
    if not run.exists():
        raise RunDirectoryError(f"{run_dir}: no run here; give the directory of a run, e.g. runs/demo")
    if not _is_at_work(run):
        raise InputError(_nobody(run, command, run_dir))
    return run


def _is_at_work(run: RunDirectory) -> bool:
    return run.is_locked() or run.is_written()


def _nobody(run: RunDirectory, command: Command, run_dir: Path) -> str:
    from pilotwave.archive.ledger import Ledger
    from pilotwave.archive.state import CampaignState

    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        state = CampaignState.of(ledger.events())
    ended = "it never started" if state.started is None else ENDED.get(state.stopped, f"it ended: {state.stopped}")
    instead = INSTEAD[command.verb].format(run_dir=run_dir, argument=command.argument)
    return f"{run_dir}: no driver is at work here ({ended}); {instead}"


def _acknowledged(run: RunDirectory, command: Command) -> dict[str, Any] | None:
    """Waits until the ledger says that the driver obeyed or refused; None if it does not in time."""
    from pilotwave.archive.ledger import EventKind, Ledger

    deadline, seen = time.monotonic() + PATIENCE_SECONDS, 0
    while time.monotonic() < deadline:
        at_work = _is_at_work(run)  # asked first: what a driver wrote before it ended is then seen
        with Ledger.open(run.ledger_file, read_only=True) as ledger:
            for event in ledger.events(seen):
                seen = event.sequence
                if event.kind is EventKind.CONTROLLED and event.record["id"] == command.id:
                    return dict(event.record)
        if not at_work:
            return None
        time.sleep(0.05)
    return None


def _in_words(record: dict[str, Any], run_dir: Path) -> str:
    if "limits" not in record:
        return MEANING[record["command"]].format(run_dir=run_dir)
    limits = record["limits"]
    parts = [f"{limits['queries']} queries"]
    parts += [f"cost {limits['cost']:g}"] if limits["cost"] is not None else []
    parts += [f"{limits['wall_hours']:g} hours"] if limits["wall_hours"] is not None else []
    return f"the budget is now {', '.join(parts)}; it holds for this run from now on"


__all__ = ["control"]
