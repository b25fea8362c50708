"""``pilotwave timeline``: when everything in a run happened, for Perfetto or as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pilotwave.cli.options import RunDir


def timeline(
    run_dir: RunDir,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The trace, for ui.perfetto.dev; .json or .json.gz. Default: results/timeline.json in the run.",
        ),
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw a picture: who was at work when, and utilisation.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Export when everything in a run happened, from its ledger alone; reading does not disturb it.

    Example: pilotwave timeline runs/polarizability --png timeline.png
    """
    from pilotwave.archive.run_directory import RunDirectory
    from pilotwave.report.timeline import Timeline
    from pilotwave.report.trace_events import write_trace

    if png is not None and png.suffix.lower() != ".png":
        from pilotwave.errors import InputError

        raise InputError(f"--png: expected a file that ends in .png, got {png}")
    read = Timeline.read(run_dir)
    trace: Path | None = output
    if output is None and png is None:
        trace = RunDirectory(run_dir).results / "timeline.json"
    facts: dict[str, object] = {
        "name": read.name,
        "attempts": len(read.attempts),
        "generations": len(read.generations),
        "drivers": len(read.drivers),
        "evaluators": read.evaluators,
        "utilisation": read.utilisation(),
        "seconds": sum(end - begin for begin, end in read.working_spans()),
        "trace": None if trace is None else str(trace),
        "picture": None if png is None else str(png),
    }
    if trace is not None:
        facts["events"] = write_trace(read, trace)
    if png is not None:
        _draw(read, png)
    if json_output:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(
        f"{read.name}: {len(read.attempts)} attempts, {len(read.generations)} proposals, "
        f"{read.utilisation():.0%} of {read.evaluators} evaluators' time in use"
    )
    if trace is not None:
        typer.echo(f"  trace    {trace}  (open it at https://ui.perfetto.dev)")
    if png is not None:
        typer.echo(f"  picture  {png}")


def _draw(read: object, path: Path) -> None:
    from pilotwave.errors import StorageError
    from pilotwave.report.timeline import Timeline
    from pilotwave.report.timeline_picture import draw_timeline

    assert isinstance(read, Timeline)
    picture = draw_timeline(read)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}; choose another file") from error


__all__ = ["timeline"]
