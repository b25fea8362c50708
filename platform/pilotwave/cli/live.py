"""The live line of a running campaign: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pilotwave.report.tables import format_value

if TYPE_CHECKING:
    from pilotwave.config.campaign import CampaignConfig
    from pilotwave.execution.job import Progress

LOG_INTERVAL_SECONDS = 10.0
"""Without a terminal a line is printed this often, and whenever the phase changes."""


class LiveProgress:
    """Shows progress while it is open; :meth:`observe` may be called from any thread."""

    def __init__(self, console: Console, config: CampaignConfig) -> None:
        self._console = console
        self._config = config
        self._live: Live | None = None
        self._last_line = 0.0
        self._last_phase = ""
        self._last_note = ""

    def __enter__(self) -> Self:
        config = self._config
        aim = f"{config.objective.direction} {config.oracle.kind}"
        self._console.print(
            f"[bold]{config.name}[/]: {aim} on {config.backbone.kind} with {config.algorithm.kind}, "
            f"{config.budget.queries} queries in batches of {config.budget.batch_size} ({config.runtime.kind})",
            highlight=False,
        )
        if self._console.is_terminal:
            self._live = Live(Text("starting"), console=self._console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def observe(self, progress: Progress) -> None:
        """Shows what has become of the campaign."""
        if progress.note and progress.note != self._last_note:
            self._last_note = progress.note
            self._console.print(f"note: {progress.note}", highlight=False, style="yellow")
        if self._live is not None:
            self._live.update(_panel(progress))
            return
        now = time.monotonic()
        if progress.phase != self._last_phase or now - self._last_line >= LOG_INTERVAL_SECONDS:
            self._last_line, self._last_phase = now, progress.phase
            self._console.print(_line(progress), highlight=False, soft_wrap=True)


def _panel(progress: Progress) -> Group:
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=progress.queries, completed=progress.spent, width=40),
        f"{progress.spent}/{progress.queries} queries",
        _clock(progress),
    )
    return Group(bar, Text(_line(progress), overflow="ellipsis", no_wrap=True))


def _line(progress: Progress) -> str:
    if progress.phase in ("starting", "preflight", "saving") and not progress.in_flight:
        return {
            "starting": "starting the runtime, the model and the oracle workers",
            "preflight": "asking the oracle its known question",
            "saving": "saving the results",
        }[progress.phase]
    parts = ["paused"] if progress.paused else ["draining"] if progress.draining else []
    parts.append(f"{progress.spent}/{progress.queries} queries")
    if progress.cost_limit is not None:
        parts.append(f"cost {progress.cost:.4g}/{progress.cost_limit:.4g}")
    if progress.best is not None:
        parts.append(f"best {format_value(progress.best)} ({progress.best_label})")
    if progress.batch_mean is not None:
        parts.append(f"batch mean {format_value(progress.batch_mean)}")
    parts.append(f"failed {progress.failed}")
    parts.append(f"infeasible {progress.infeasible}")
    if progress.reused:
        parts.append(f"from the archive {progress.reused}")
    parts.append(f"evaluators {progress.utilisation:.0%}")
    parts.append("generating" if progress.generating else f"{progress.in_flight} in flight")
    if progress.resting:
        parts.append(f"{progress.resting} to be tried again")
    if progress.seconds_left is not None and progress.phase == "running":
        parts.append(f"about {duration(progress.seconds_left)} left")
    return "  ".join(parts)


def _clock(progress: Progress) -> str:
    return duration(progress.seconds)


def duration(seconds: float) -> str:
    """Returns e.g. ``"3:07"`` or ``"1:03:07"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


__all__ = ["LiveProgress", "duration"]
