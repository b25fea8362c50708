"""``pilotwave submit``: hand a campaign to a cluster as a job, follow it, and bring its results back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pilotwave.cli.options import CampaignFile, Overrides, PluginPaths

if TYPE_CHECKING:
    from pilotwave.execution.jobs import Jobs, JobState

INTERRUPTED = 130

JobsAddress = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's dashboard, http://head:8265; its token comes from RAY_AUTH_TOKEN or a file.",
    ),
]


def submit(
    campaign: CampaignFile,
    address: JobsAddress,
    overrides: Overrides = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            help="Where the run lives on the cluster; a relative path lies in runtime.storage. The same one again "
            "resumes. A new one by default."
        ),
    ] = None,
    plugins: PluginPaths = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the results come to on this machine; runs/<run> by default.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow the job to its end and bring the results back.")] = True,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON; the job's log goes to stderr.")
    ] = (False),
) -> int:
    """Run a campaign, or a study, as a Ray job. Ctrl-C stops following; the job goes on.

    The exit code is the campaign's. Submit again with the same --run-dir to resume.

    Example: pilotwave submit campaign.yaml --address http://head:8265 --run-dir mine --plugin my_oracle.py
    """
    from pilotwave.campaign import Campaign
    from pilotwave.execution.jobs import open_jobs

    changes = [*(overrides or []), "runtime.kind=ray", "runtime.address=auto"]
    if _is_study(campaign):
        state = _submit_study(campaign, changes, address, run_dir, plugins or [])
        jobs = open_jobs(address)
    else:
        loaded = Campaign.from_yaml(campaign, changes)
        jobs = open_jobs(address)
        own = list(getattr(loaded.config.runtime, "plugins", ()))
        state = jobs.submit(loaded.config, run_dir, [*own, *(plugins or [])])
    typer.echo(f"job {state.job}: {state.name} in {state.run_dir} on {address}", err=json_output)
    if not wait:
        typer.echo(f"follow it with: pilotwave jobs logs {state.job} --follow --address {address}", err=True)
        if json_output:
            typer.echo(json.dumps(as_json(state), indent=2))
        return 0
    try:
        state = jobs.follow(state.job, lambda text: typer.echo(text, nl=False, err=json_output))
    except KeyboardInterrupt:
        typer.echo(
            f"the job goes on; follow it with: pilotwave jobs logs {state.job} --follow --address {address}, or "
            f"stop it with: pilotwave jobs stop {state.job} --address {address}",
            err=True,
        )
        return INTERRUPTED
    folder = bring_back(jobs, state, output)
    if json_output:
        typer.echo(json.dumps(as_json(state) | {"results": str(folder) if folder else None}, indent=2))
    return report(state)


def _is_study(path: Path) -> bool:
    """Says whether a file is a study; what is no YAML is left to the campaign's messages."""
    from pilotwave.config.loading import read_yaml
    from pilotwave.errors import ConfigError

    try:
        return "search" in read_yaml(path)[0]
    except ConfigError:
        return False


def _submit_study(
    path: Path, overrides: Sequence[str], address: str, run_dir: str | None, plugins: Sequence[Path]
) -> JobState:
    from pilotwave.execution.jobs import open_jobs
    from pilotwave.tuning.study import Study

    study = Study.from_yaml(path, overrides)
    study.check()
    own = [Path(each) for each in (study.config.runtime or {}).get("plugins", ())]
    placed = [each if each.is_absolute() else study.config.folder / each for each in own]
    return open_jobs(address).submit_study(study.config, run_dir, [*placed, *plugins])


def bring_back(jobs: Jobs, state: JobState, output: Path | None) -> Path | None:
    """Brings the results of an ended job into a folder; what goes wrong is a warning, since they are safe there."""
    from pilotwave.errors import PilotwaveError

    folder = output or folder_for(state)
    try:
        jobs.results(state.job, folder)
    except PilotwaveError as error:
        if state.exit_code != 2:  # a campaign that was refused has no results, and has said why
            typer.echo(f"warning: {error}", err=True)
        return None
    typer.echo(f"results in {folder}", err=True)
    return folder


def folder_for(state: JobState) -> Path:
    """Returns the folder of this run's copy: the one that is there, or a free one."""
    from pilotwave.archive.origin import read_origin
    from pilotwave.campaign import free_run_dir

    folder = Path("runs") / Path(state.run_dir).name
    origin = read_origin(folder) if folder.is_dir() else None
    if origin is not None and origin.way == "job" and Path(origin.run_dir).name == folder.name:
        return folder
    return free_run_dir(folder.name)


def report(state: JobState) -> int:
    """Says why a job failed, if it did; returns its exit code."""
    if state.message and state.exit_code not in (0, INTERRUPTED):
        typer.echo(f"error: {state.message}", err=True)
    return 4 if state.exit_code is None else state.exit_code


def as_json(state: JobState) -> dict[str, object]:
    """Returns a job's state for programs."""
    from dataclasses import asdict

    return asdict(state)


__all__ = ["JobsAddress", "as_json", "bring_back", "folder_for", "report", "submit"]
