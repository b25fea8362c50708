"""``pilotwave top``: the best samples of a run, read from its ledger while it runs or after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def top(
    run_dir: Annotated[Path, typer.Argument(help="The directory of the run.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many.")] = 10,
    all_evaluations: Annotated[
        bool, typer.Option("--all", help="List the same molecule or image as often as it was evaluated.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the best samples of a run, distinct ones, and why queries have no value.

    Example: pilotwave top runs/polarizability -n 10
    """
    from pilotwave.report.ranking import best, failures
    from pilotwave.report.recorded_run import RecordedRun

    run = RecordedRun.read(run_dir)
    ranked = best(run, count, distinct=not all_evaluations)
    missed = failures(run)
    if json_output:
        facts = {
            "name": run.name,
            "oracle": run.oracle,
            "unit": run.unit,
            "direction": run.objective.direction,
            "best": [item.to_json() for item in ranked],
            "failures": [item.to_json() for item in missed],
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console

    from pilotwave.report.tables import best_table, failure_table

    console = Console()
    if ranked:
        console.print(best_table(ranked, oracle=run.oracle, unit=run.unit))
    else:
        console.print("no evaluation has a value yet", highlight=False)
    if missed:
        console.print(failure_table(missed))


__all__ = ["top"]
