"""``pilotwave status``: how far a run is, read from its ledger while it runs or after."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from pilotwave.cli.options import JsonOutput, RunDir


def status(
    run_dir: RunDir,
    json_output: JsonOutput = False,
    watching: Annotated[
        bool,
        typer.Option("--watch", help="Draw it again each second until it ends; with --json a line per change."),
    ] = False,
) -> None:
    """Say how far a run is; reading does not disturb it.

    Example: pilotwave status runs/polarizability --watch
    """
    if watching:
        from pilotwave.cli.watching import watch

        watch(run_dir, json_output=json_output)
        return
    from pilotwave.archive.run_directory import RunDirectory
    from pilotwave.report.summary import RunSummary

    directory = RunDirectory(run_dir)
    run = RunSummary.read(directory)
    config, state = run.config, run.state
    at_work = directory.is_locked()
    at_work_on = "paused" if state.paused else "draining" if state.draining else "running"
    doing = at_work_on if at_work else state.stopped or "killed"
    limits = state.limits.now or config.budget.limits
    facts = {
        "name": config.name,
        "status": "not started" if state.started is None and not at_work else doing,
        "queries": limits.queries,
        "spent": state.spent,
        "answered": state.answered,
        "failed": state.failed,
        "infeasible": state.infeasible,
        "reused": None if config.archive is None else state.reused,
        "saved_cost": None if config.archive is None else state.saved_cost,
        "cost": state.spending.ended,
        "cost_limit": limits.cost,
        "wall_hours": limits.wall_hours,
        "ended_by": state.ended_by or None,
        "open": len(state.open_queries()),
        "proposals": state.proposed,
        "best": run.best,
        "best_label": run.best_label,
        "unit": run.unit,
        "batch_mean": run.batch_mean,
        "active_seconds": state.active_seconds,
        "last_event": state.last_time,
    }
    if json_output:
        typer.echo(json.dumps(facts, indent=2))
        return
    _print(facts, run_dir)


def _print(facts: Mapping[str, object], run_dir: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from pilotwave.report.tables import pretty_unit

    table = Table.grid(padding=(0, 2))
    for key, value in facts.items():
        if value is None or key in ("name", "unit", "last_event"):
            continue
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        if key in ("best", "batch_mean"):
            shown += f" {pretty_unit(str(facts['unit']))}"
        table.add_row(key.replace("_", " "), shown)
    last = facts["last_event"]
    if isinstance(last, float):
        table.add_row("last event", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last)))
    console = Console()
    console.print(f"[bold]{facts['name']}[/] in {run_dir}", highlight=False)
    console.print(table, highlight=False)
    if facts["status"] in ("killed", "interrupted", "breaker", "failed", "finished-early"):
        console.print(f"go on with: pilotwave resume {run_dir}", highlight=False)


__all__ = ["status"]
