"""What ``run`` and ``resume`` share: the live line, Ctrl-C, and the summary at the end."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from pilotwave.archive.spending import SECONDS_PER_HOUR
from pilotwave.cli.live import LiveProgress
from pilotwave.cli.options import prints_aside
from pilotwave.execution.job import Interrupt, Observer, Outcome, TimeShares
from pilotwave.report.ranking import best, failures
from pilotwave.report.recorded_run import RecordedRun
from pilotwave.report.results import existing_results
from pilotwave.report.tables import best_table

if TYPE_CHECKING:
    from pilotwave.archive.spending import Limits
    from pilotwave.archive.state import CampaignState
    from pilotwave.campaign import CampaignResult
    from pilotwave.config.campaign import CampaignConfig

INTERRUPTED = 130


def drive(
    config: CampaignConfig, start: Callable[[Observer, Interrupt], CampaignResult], *, json_output: bool
) -> int:
    """Runs a campaign under the terminal's eyes and returns the exit code."""
    console = Console(stderr=json_output)
    with prints_aside(json_output), interruptible(console) as interrupt, LiveProgress(console, config) as live:
        result = start(live.observe, interrupt)
    from pilotwave.forgetting.monitor import drift_warning

    for warning in (*result.outcome.warnings, drift_warning(result.run_dir)):
        if warning:
            typer.echo(f"warning: {warning}", err=True)
    if json_output:
        typer.echo(json.dumps(_as_json(result), indent=2))
    else:
        _summarise(console, result, config)
    return 0 if result.outcome.finished else INTERRUPTED


@contextmanager
def interruptible(console: Console) -> Iterator[threading.Event]:
    """Turns the first Ctrl-C (or SIGTERM) into an event; a second one ends the process at once."""
    interrupt = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        if interrupt.is_set():
            os._exit(INTERRUPTED)  # every answer that was acknowledged is on disk already
        interrupt.set()
        console.print("stopping: answers in flight get a few seconds, then all is saved (Ctrl-C again quits now)")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summarise(console: Console, result: CampaignResult, config: CampaignConfig) -> None:
    run = RecordedRun.read(result.run_dir)
    ranked = best(run, 10)
    if ranked:
        console.print()
        console.print(best_table(ranked, oracle=run.oracle, unit=run.unit))
    console.print()
    state = run.state
    limits = state.limits.now or config.budget.limits
    console.print(
        f"{state.spent}/{limits.queries} queries: {state.answered} answered, {state.failed} failed; "
        f"{state.infeasible} candidates were infeasible and cost nothing",
        highlight=False,
    )
    for line in (*_ending_lines(state, limits), *_archive_lines(state)):
        console.print(line, highlight=False, soft_wrap=True)
    for why in failures(run)[:5]:
        console.print(f"  {why.count:>4} {why.status}  {why.stage}: {why.message}", highlight=False, soft_wrap=True)
    console.print(_where(result.run_dir), highlight=False, soft_wrap=True)
    if result.outcome.tracking:
        console.print(f"  tracking        {result.outcome.tracking}", highlight=False, soft_wrap=True)
    console.print()
    console.print(_time_line(result.outcome.times), highlight=False, soft_wrap=True)
    if not result.outcome.finished:
        console.print(f"interrupted after saving; go on with: pilotwave resume {_short(result.run_dir)}")


def _ending_lines(state: CampaignState, limits: Limits) -> list[str]:
    """Says what other budget than that of queries was set, and what ended the campaign."""
    lines = []
    if limits.cost is not None:
        lines.append(f"cost {state.spending.ended:g} of {limits.cost:g}")
    if limits.wall_hours is not None:
        lines.append(f"at work {state.active_seconds / SECONDS_PER_HOUR:.2f} of {limits.wall_hours:g} hours")
    ends = {
        "cost": "the cost budget is spent: what the next attempt is expected to cost does not fit any more",
        "wall_hours": "the wall-clock budget is spent",
        "drain": "it was drained before its budget was spent",
    }
    return [*lines, *([ends[state.ended_by]] if state.ended_by in ends else [])]


def _archive_lines(state: CampaignState) -> list[str]:
    """Says what the project archive saved, and what it could have saved."""
    lines = []
    if state.remembered:
        lines.append(f"it began with {len(state.remembered)} answers of earlier campaigns")
    if state.reused:
        lines.append(
            f"{state.reused} questions were answered from the archive, for nothing; "
            f"their answers had cost {state.saved_cost:g}"
        )
    if state.near:
        lines.append(
            f"for {state.near} queries the archive had an answer nearby; to take those would have saved "
            f"{state.near_cost:g} (archive.near: reuse)"
        )
    return lines


def _where(run_dir: Path) -> str:
    lines = [f"results in {_short(run_dir)}"]
    lines += [f"  {name:<15} {_short(path)}" for name, path in existing_results(run_dir).items()]
    lines.append(f"  {'ledger':<15} {_short(run_dir / 'ledger.sqlite')}")
    return "\n".join(lines)


def _time_line(times: TimeShares) -> str:
    after = max(0.0, times.wall - times.busy - times.starting)
    return (
        f"{times.wall:.0f} s in all: generating {times.generating:.0f} s, evaluating {times.evaluating:.0f} s; "
        f"neither {times.overhead:.0%} (platform overhead: {times.starting:.1f} s starting the runtime, the model "
        f"and the oracle workers, {after:.1f} s coordinating, saving and drawing)"
    )


def _short(path: Path) -> str:
    """Shows a path as the user would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _as_json(result: CampaignResult) -> dict[str, Any]:
    run = RecordedRun.read(result.run_dir)
    outcome: Outcome = result.outcome
    return {
        "run_dir": str(result.run_dir),
        "finished": outcome.finished,
        "ended_by": outcome.ended_by,
        "queries": outcome.spent,
        "cost": run.state.spending.ended,
        "reused": run.state.reused,
        "saved_cost": run.state.saved_cost,
        "best": [item.to_json() for item in best(run, 10)],
        "results": {name: str(path) for name, path in existing_results(result.run_dir).items()},
        "tracking": outcome.tracking,
        "seconds": {
            "wall": outcome.times.wall,
            "generating": outcome.times.generating,
            "evaluating": outcome.times.evaluating,
            "starting": outcome.times.starting,
        },
        "overhead": outcome.times.overhead,
        "warnings": list(outcome.warnings),
    }


__all__ = ["drive", "interruptible"]
