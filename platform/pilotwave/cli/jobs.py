"""``pilotwave jobs``: look after campaigns that were submitted to a cluster."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pilotwave.cli.options import JsonOutput
from pilotwave.cli.submit import JobsAddress, as_json, folder_for, report

if TYPE_CHECKING:
    from pilotwave.execution.jobs import JobState

JobId = Annotated[str, typer.Argument(help="The job's id, as submit printed it.")]

jobs = typer.Typer(name="jobs", help="Look after campaigns that were submitted to a cluster.", no_args_is_help=True)


@jobs.command("list")
def list_jobs(address: JobsAddress, json_output: JsonOutput = False) -> None:
    """List the campaigns that were submitted, the newest last.

    Example: pilotwave jobs list --address http://head:8265
    """
    from pilotwave.execution.jobs import open_jobs

    found = open_jobs(address).states()
    if json_output:
        typer.echo(json.dumps([as_json(state) for state in found], indent=2))
        return
    for state in found:
        typer.echo(_line(state))


@jobs.command()
def status(job: JobId, address: JobsAddress, json_output: JsonOutput = False) -> None:
    """Say where a job stands.

    Example: pilotwave jobs status pilotwave-1a2b3c --address http://head:8265
    """
    from pilotwave.execution.jobs import open_jobs

    opened = open_jobs(address)
    state = opened.state(job)
    if json_output:
        typer.echo(json.dumps(as_json(state), indent=2))
        return
    typer.echo(_line(state))
    last = [line for line in opened.logs(job).splitlines() if line.strip()]
    if last:
        typer.echo(f"  {last[-1]}")


@jobs.command()
def logs(
    job: JobId,
    address: JobsAddress,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> int:
    """Print what a job has printed; with --follow the exit code is the campaign's.

    Example: pilotwave jobs logs pilotwave-1a2b3c --follow --address http://head:8265
    """
    from pilotwave.execution.jobs import open_jobs

    opened = open_jobs(address)
    opened.state(job)  # one that does not exist is said before anything else
    if not follow:
        typer.echo(opened.logs(job), nl=False)
        return 0
    return report(opened.follow(job, lambda text: typer.echo(text, nl=False)))


@jobs.command()
def stop(job: JobId, address: JobsAddress) -> None:
    """Let a job save and stop; answers in flight get a few seconds.

    Example: pilotwave jobs stop pilotwave-1a2b3c --address http://head:8265
    """
    from pilotwave.execution.jobs import open_jobs

    typer.echo(_line(open_jobs(address).stop(job)))


@jobs.command()
def results(
    job: JobId,
    address: JobsAddress,
    output: Annotated[Path | None, typer.Option(help="The folder they come into; runs/<run> by default.")] = None,
) -> None:
    """Bring a job's run directory back as it stands now.

    Example: pilotwave jobs results pilotwave-1a2b3c --output runs/mine --address http://head:8265
    """
    from pilotwave.execution.jobs import open_jobs

    opened = open_jobs(address)
    folder = output or folder_for(opened.state(job))
    opened.results(job, folder)
    typer.echo(f"results in {folder}")


def _line(state: JobState) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.submitted)) if state.submitted else ""
    code = "" if state.exit_code is None else f" (exit code {state.exit_code})"
    why = f": {state.message}" if state.message else ""
    return f"{state.job}  {when}  {state.status}{code}  {state.name} in {state.run_dir}{why}"


__all__ = ["jobs"]
