"""``pilotwave export``: a run's samples and evaluations in a format that other programs open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pilotwave.report.export_format import ExportFormat


def export(
    run_dir: Annotated[Path, typer.Argument(help="The directory of the run.")],
    format: Annotated[
        ExportFormat,
        typer.Option("--format", "-f", help="sdf, png: the best, distinct ones; parquet, csv: every candidate."),
    ],
    count: Annotated[int | None, typer.Option("-n", "--count", min=1, help="Only so many of the best.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; RUN_DIR/results/export.FORMAT by default.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a run's samples or evaluations to a file; reading does not disturb a running campaign.

    Example: pilotwave export runs/polarizability --format sdf -n 50 --output best50.sdf
    """
    from pilotwave.report.export import export_run
    from pilotwave.report.recorded_run import RecordedRun

    run = RecordedRun.read(run_dir)
    path = output or run.directory.results / f"export.{format.value}"
    written = export_run(run, format, path, count)
    if json_output:
        typer.echo(json.dumps({"path": str(path), "format": format.value, "count": written}, indent=2))
    else:
        what = "samples" if format in (ExportFormat.SDF, ExportFormat.PNG) else "candidates"
        typer.echo(f"{written} {what} in {path}")


__all__ = ["export"]
