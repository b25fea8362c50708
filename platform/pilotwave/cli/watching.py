"""``pilotwave status --watch``: a run on a screen that is drawn again each second, or as lines of JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pilotwave.cli.live import duration
from pilotwave.report.run_watch import RunWatch, Snapshot
from pilotwave.report.tables import format_value, pretty_unit

REFRESH_SECONDS = 1.0
WIDE = 100
"""From so many columns on, facts stand side by side."""
COLOURS = {"running": "green", "paused": "yellow", "draining": "yellow", "starting": "cyan", "saving": "cyan"}


def watch(run_dir: Path, *, json_output: bool, pause: Callable[[float], None] = time.sleep) -> None:
    """Shows a run until no driver is at work on it any more; a run that has ended is shown once."""
    looking = RunWatch(run_dir)
    if json_output:
        _lines(looking, pause)
        return
    console = Console()
    snapshot = looking.look()
    if not console.is_terminal:  # a log gets what a screen would end with
        while snapshot.at_work:
            pause(REFRESH_SECONDS)
            snapshot = looking.look()
        console.print(screen(snapshot, run_dir, console.width))
        return
    with Live(screen(snapshot, run_dir, console.width), console=console, auto_refresh=False) as live:
        while snapshot.at_work:
            pause(REFRESH_SECONDS)
            snapshot = looking.look()
            live.update(screen(snapshot, run_dir, console.width), refresh=True)


def _lines(looking: RunWatch, pause: Callable[[float], None]) -> None:
    shown: tuple[int, str] | None = None
    while True:
        snapshot = looking.look()
        if (snapshot.sequence, snapshot.status) != shown:
            shown = snapshot.sequence, snapshot.status
            typer.echo(json.dumps(snapshot.to_json()))
        if not snapshot.at_work:
            return
        pause(REFRESH_SECONDS)


def screen(snapshot: Snapshot, run_dir: Path, width: int) -> RenderableType:
    """Returns what is drawn."""
    facts = _facts(snapshot)
    parts: list[RenderableType] = [_heading(snapshot, run_dir), _budgets(snapshot, width)]
    parts.append(_side_by_side(facts) if width >= WIDE else _below_each_other(facts))
    hint = _hint(snapshot, run_dir)
    return Group(*parts, *([Text(hint, style="dim", overflow="fold")] if hint else []))


def _heading(snapshot: Snapshot, run_dir: Path) -> Text:
    colour = COLOURS.get(snapshot.status, "bold")
    text = Text.from_markup(f"[bold]{escape(snapshot.name)}[/] in {escape(str(run_dir))}  ")
    text.append(snapshot.status, style=colour)
    if snapshot.ended_by not in ("", "queries", "drain"):
        text.append(f" ({snapshot.ended_by.replace('_', ' ')})")
    if snapshot.seconds_left is not None:
        text.append(f"  about {duration(snapshot.seconds_left)} left")
    return text


def _budgets(snapshot: Snapshot, width: int) -> Table:
    table = Table.grid(padding=(0, 2))
    bar = max(10, min(50, width - 45))
    rows: list[tuple[str, float, float | None, str]] = [
        ("queries", snapshot.spent, snapshot.queries, f"{snapshot.spent}/{snapshot.queries}"),
        ("cost", snapshot.cost, snapshot.cost_limit, f"{snapshot.cost:.6g}"),
        ("time", snapshot.active_seconds, snapshot.wall_limit, duration(snapshot.active_seconds)),
    ]
    for name, spent, limit, words in rows:
        if limit is None:
            table.add_row(name, "", words)
            continue
        of = {"cost": f"/{limit:.6g}", "time": f"/{duration(limit)}"}.get(name, "")
        table.add_row(name, ProgressBar(total=limit, completed=min(spent, limit), width=bar), words + of)
    return table


def _facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    unit = f" {pretty_unit(snapshot.unit)}" if snapshot.unit else ""
    best = "none yet" if snapshot.best is None else f"{format_value(snapshot.best)}{unit} ({snapshot.best_label})"
    at_work = f"{snapshot.in_flight} of {snapshot.evaluators} evaluators"
    at_work += ", generating" if snapshot.generating else ""
    failures = ", ".join(f"{stage} {count}" for stage, count in snapshot.failures.items()) or "none"
    facts = [
        ("best so far", best),
        ("at work", at_work),
        ("queue", f"{snapshot.ready} ready, {snapshot.in_flight} in flight, {snapshot.resting} in back-off"),
        ("rate", f"{snapshot.queries_per_minute:.3g} queries, cost {snapshot.cost_per_minute:.3g} a minute"),
        ("answered", f"{snapshot.answered}, {snapshot.failed} failed, {snapshot.infeasible} infeasible"),
        ("failures", failures + (f" ({snapshot.repeated} tried again)" if snapshot.repeated else "")),
    ]
    if snapshot.reused:
        facts.append(("archive", f"{snapshot.reused} reused, saved {snapshot.saved_cost:.6g}"))
    if snapshot.last_event is not None:
        facts.append(("last event", time.strftime("%H:%M:%S", time.localtime(snapshot.last_event))))
    return facts


def _below_each_other(facts: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for key, value in facts:
        table.add_row(Text(key, style="dim"), Text(value, overflow="ellipsis", no_wrap=True))
    return table


def _side_by_side(facts: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in range(2):
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
    half = (len(facts) + 1) // 2
    for left in range(half):
        row: list[RenderableType] = []
        for index in (left, left + half):
            key, value = facts[index] if index < len(facts) else ("", "")
            row += [Text(key, style="dim"), Text(value, overflow="ellipsis", no_wrap=True)]
        table.add_row(*row)
    return table


def _hint(snapshot: Snapshot, run_dir: Path) -> str:
    if snapshot.status == "paused":
        return f"go on with: pilotwave control {run_dir} resume"
    if snapshot.status in ("killed", "interrupted", "breaker", "failed", "finished-early"):
        return f"go on with: pilotwave resume {run_dir}"
    return ""


__all__ = ["screen", "watch"]
