"""What ``pilotwave tune`` shows: a live table of trials in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pilotwave.tuning.config import StudyConfig
    from pilotwave.tuning.ledger import TrialRecord
    from pilotwave.tuning.tuner import StudyProgress, TrialRow

LOG_SECONDS = 10.0
"""Without a terminal a line is printed this often, and whenever a trial ends."""
ROWS = 14
"""So many trials are shown while it runs: those at work, and the best of the others."""
VALUE_WIDTH = 36
STYLES = {"running": "cyan", "failed": "red", "stopped": "dim"}


class StudyScreen:
    """Shows a study while it is open; :meth:`observe` may be called from any thread.

    Args:
        console: Where to.
        study: Which.
    """

    def __init__(self, console: Console, study: StudyConfig) -> None:
        self._console = console
        self._study = study
        self._live: Live | None = None
        self._statuses: dict[int, str] = {}
        self._phase = ""
        self._note = ""
        self._said = 0.0

    def __enter__(self) -> Self:
        from pilotwave.tuning.checks import samples_of
        from pilotwave.tuning.plans import seeds_of, tasks_of

        study = self._study
        campaigns = f"{len(tasks_of(study))} tasks x {len(seeds_of(study))} seeds"
        budget = "" if study.budget is None else f", at most {study.budget} questions"
        self._print(
            f"{study.name}: {samples_of(study)} points of {len(study.search)} fields on {campaigns}, "
            f"{study.searcher.kind} with {study.scheduler.kind}{budget}",
            "bold",
        )
        if self._console.is_terminal:
            self._live = Live(Text("starting"), console=self._console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(Text(""))
            self._live.stop()

    def observe(self, progress: StudyProgress) -> None:
        """Shows what has become of the study."""
        if progress.note and progress.note != self._note:
            self._note = progress.note
            self._print(f"note: {progress.note}", "yellow")
        if self._live is not None:
            self._live.update(self._panel(progress))
            return
        for row in progress.trials:
            if row.status not in ("running", "open") and self._statuses.get(row.number, "running") == "running":
                self._print(_ended_line(row))
            self._statuses[row.number] = row.status
        now = time.monotonic()
        if progress.phase != self._phase or now - self._said >= LOG_SECONDS:
            self._phase = progress.phase
            self._print(_line(progress))

    def _panel(self, progress: StudyProgress) -> Group:
        ended = sum(row.status not in ("running", "open") for row in progress.trials)
        if progress.budget is None:
            measure = ProgressBar(total=max(progress.samples, 1), completed=ended, width=60)
        else:
            measure = ProgressBar(total=progress.budget, completed=min(progress.spent, progress.budget), width=60)
        bar = Table.grid()
        bar.add_row(measure)
        bar.add_row(Text(_line(progress), overflow="ellipsis", no_wrap=True))
        if not progress.trials:
            return Group(bar)
        table = _table(self._study)
        for row in _shown(progress.trials):
            style = "bold green" if row.number == progress.best else STYLES.get(row.status, "")
            table.add_row(*_cells(self._study, row), style=style)
        hidden = len(progress.trials) - ROWS
        more = [Text(f"and {hidden} more trials", style="dim")] if hidden > 0 else []
        return Group(table, *more, bar)

    def _print(self, line: str, style: str = "") -> None:
        self._said = time.monotonic()
        self._console.print(Text(line, style=style), soft_wrap=True)


def trials_table(study: StudyConfig, records: Sequence[TrialRecord], count: int = 20) -> Table:
    """Returns the best trials as a table, best first."""
    from pilotwave.tuning.tuner import TrialRow

    table = _table(study)
    for place, record in enumerate(records[:count]):
        last = record.last
        row = TrialRow(
            record.number,
            record.point,
            record.status,
            0 if last is None else last.queries,
            None if last is None or not last.campaigns else last.loss,
            0 if last is None else last.spent,
            0 if last is None else last.reached,
            0 if last is None else len(last.campaigns),
        )
        table.add_row(*_cells(study, row), style="bold" if place == 0 and record.ended else "")
    return table


def _table(study: StudyConfig) -> Table:
    from pilotwave.tuning.plans import objective_of

    heads = {"queries_to_target": "to target", "level": "mean level", "best": "best level"}
    shorts = [name.rpartition(".")[2] for name in study.search]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0))
    table.add_column("trial", justify="right", no_wrap=True)
    for name in study.search:
        short = name.rpartition(".")[2]
        head = short if shorts.count(short) == 1 else name
        table.add_column(head, max_width=VALUE_WIDTH, overflow="fold")
    figures = ["after", heads[objective_of(study)]]
    figures += ["reached"] if objective_of(study) == "queries_to_target" else []
    for head in (*figures, "asked"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    return table


def _cells(study: StudyConfig, row: TrialRow) -> list[str]:
    from pilotwave.tuning.checks import value_in_words
    from pilotwave.tuning.plans import objective_of

    values = [value_in_words(row.point[name]) if name in row.point else "-" for name in study.search]
    cells = [str(row.number), *values, str(row.queries or ""), "" if row.loss is None else f"{row.loss:.4g}"]
    if objective_of(study) == "queries_to_target":
        cells.append(f"{row.reached}/{row.campaigns}" if row.campaigns else "")
    return [*cells, str(row.spent), row.status]


def _shown(rows: Iterable[TrialRow]) -> list[TrialRow]:
    order = {"running": 0, "finished": 1, "stopped": 2}
    chosen = sorted(rows, key=lambda row: (order.get(row.status, 3), row.loss or 0.0, row.number))[:ROWS]
    return sorted(chosen, key=lambda row: row.number)


def _line(progress: StudyProgress) -> str:
    if progress.phase in ("starting", "saving") and not progress.trials:
        return {"starting": "starting Ray Tune, the model and the oracles", "saving": "saving the results"}[
            progress.phase
        ]
    ended = sum(row.status not in ("running", "open") for row in progress.trials)
    budget = "" if progress.budget is None else f"/{progress.budget}"
    parts = [f"{ended}/{progress.samples} trials", f"{progress.spent}{budget} questions"]
    best = next((row for row in progress.trials if row.number == progress.best), None)
    if best is not None and best.loss is not None:
        parts.append(f"best {best.loss:.4g} (trial {best.number})")
    if progress.seconds_left is not None and ended < progress.samples:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        parts.append(f"about {minutes // 60}:{minutes % 60:02d}:{seconds:02d} left")
    return "  ".join(parts)


def _ended_line(row: TrialRow) -> str:
    from pilotwave.tuning.checks import in_words

    loss = "" if row.loss is None or row.status == "failed" else f": {row.loss:.4g}"
    why = f": {row.failure}" if row.status == "failed" else ""
    return f"trial {row.number} {row.status} after {row.spent} questions{loss}{why}  ({in_words(row.point)})"


__all__ = ["StudyScreen", "trials_table"]
