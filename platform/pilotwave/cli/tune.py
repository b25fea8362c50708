"""``pilotwave tune``: search a campaign's fields over tasks and seeds with Ray Tune."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotwave.cli.options import Address, Overrides, PluginPaths, cluster_overrides, prints_aside

if TYPE_CHECKING:
    from rich.console import Console

    from pilotwave.tuning.study import Study, StudyResult

INTERRUPTED = 130


def tune(
    study: Annotated[Path | None, typer.Argument(help="The study file; not with --resume.")] = None,
    overrides: Overrides = None,
    study_dir: Annotated[
        Path | None,
        typer.Option(help="Where the study lies, or shall; the same one again goes on. runs/<name> by default."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="STUDY_DIR", help="Go on with the study in this directory.")
    ] = None,
    address: Address = None,
    plugins: PluginPaths = None,
    check: Annotated[bool, typer.Option("--check", help="Check every campaign of the study, and stop.")] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON; progress goes to stderr.")
    ] = False,
) -> int:
    """Search a campaign's fields: which algorithm, which settings need the fewest questions?

    Every point of the search is a trial: real campaigns on all tasks with all seeds. The same command again goes on
    where the study stands, whatever was killed; nothing that was answered is asked again. Ctrl-C saves and stops.

    Example: pilotwave tune examples/study.yaml --set samples=12

    Example: pilotwave tune --resume runs/compressible-study --set budget=6000
    """
    launched = time.time()
    from pilotwave.errors import InputError
    from pilotwave.tuning.study import Study

    if (study is None) == (resume is None):
        raise InputError("expected a study file, or --resume STUDY_DIR; e.g. pilotwave tune examples/study.yaml")
    changes = [*(overrides or []), *cluster_overrides(address, plugins)]
    loaded = Study.of_directory(resume, changes) if resume is not None else Study.from_yaml(_given(study), changes)
    if check:
        loaded.check()
        typer.echo(f"{study or resume}: valid")
        return 0
    return drive(loaded, study_dir or resume, launched, json_output=json_output)


def _given(study: Path | None) -> Path:
    assert study is not None  # the command has looked
    return study


def drive(study: Study, study_dir: Path | None, launched: float, *, json_output: bool) -> int:
    """Runs a study under the terminal's eyes and returns the exit code."""
    from rich.console import Console

    from pilotwave.cli.driving import interruptible
    from pilotwave.cli.study_screen import StudyScreen

    console = Console(stderr=json_output)
    with (
        prints_aside(json_output),
        interruptible(console) as interrupt,
        StudyScreen(console, study.config) as screen,
    ):
        result = study.run(study_dir, observe=screen.observe, interrupt=interrupt, launched=launched)
    for warning in result.outcome.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if json_output:
        typer.echo(json.dumps(_as_json(result), indent=2, default=str))
    else:
        _summarise(console, study, result)
    return 0 if result.outcome.finished else INTERRUPTED


def _summarise(console: Console, study: Study, result: StudyResult) -> None:
    from pilotwave.cli.study_screen import trials_table

    console.print()
    console.print(trials_table(study.config, result.trials))
    budget = "" if study.config.budget is None else f" of {study.config.budget}"
    console.print(f"{result.spent}{budget} questions over {len(result.trials)} trials", highlight=False)
    if result.outcome.ended_by == "budget":
        console.print("the budget is spent: what another trial may ask does not fit any more", highlight=False)
    for what, path in result.files.items():
        console.print(f"  {what:<10} {_short(path)}", highlight=False, soft_wrap=True)
    if result.outcome.tracking:
        console.print(f"  {'tracking':<10} {result.outcome.tracking}", highlight=False, soft_wrap=True)
    if "campaign" in result.files:
        best = _short(result.files["campaign"])
        console.print(f"run the best with: pilotwave run {best}", highlight=False, soft_wrap=True)
    if not result.outcome.finished:
        console.print(
            f"interrupted after saving; go on with: pilotwave tune --resume {_short(result.study_dir)}",
            highlight=False,
            soft_wrap=True,
        )


def _as_json(result: StudyResult) -> dict[str, Any]:
    best = result.best
    return {
        "study_dir": str(result.study_dir),
        "finished": result.outcome.finished,
        "ended_by": result.outcome.ended_by,
        "queries": result.spent,
        "best": None if best is None else {"trial": best.number, "point": best.point, "loss": best.loss},
        "trials": [
            {
                "trial": record.number,
                "point": record.point,
                "status": record.status,
                **({} if record.last is None else record.last.to_json()),
            }
            for record in result.trials
        ],
        "files": {what: str(path) for what, path in result.files.items()},
        "tracking": result.outcome.tracking,
        "warnings": list(result.outcome.warnings),
    }


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


__all__ = ["drive", "tune"]
