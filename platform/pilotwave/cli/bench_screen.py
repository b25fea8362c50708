"""What ``pilotwave bench`` shows: a live bar in a terminal, a line per finished run in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pilotwave.bench.comparison import Progress

LOG_SECONDS = 10.0
"""Without a terminal a line is printed this often at most; the last one always is."""


class BenchScreen:
    """Shows a comparison while it is open; :meth:`observe` gets its progress.

    Args:
        console: Where to.
        title: The first line.
    """

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._print(self._title, "bold")
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._panel, console=self._console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def observe(self, progress: Progress) -> None:
        """Shows how far the comparison is."""
        self._progress = progress
        if progress.failure and progress.request is not None:
            self._print(f"failed: {progress.request.in_words()}: {progress.failure}", "yellow")
        last = progress.done == progress.total
        if self._live is None and (last or time.monotonic() - self._said >= LOG_SECONDS):
            self._print(f"{self._counts()}  {self._current()}  {self._left()}".rstrip())

    def _panel(self) -> Group:
        if self._progress is None:
            return Group(Text("building the tasks"))
        row = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(self._progress.total, 1), completed=self._progress.done, width=40)
        row.add_row(bar, self._counts(), self._left())
        return Group(row, Text(self._current(), overflow="ellipsis", no_wrap=True))

    def _counts(self) -> str:
        progress = self._progress
        if progress is None:
            return ""
        found = f" ({progress.found} found finished)" if progress.found else ""
        return f"{progress.done}/{progress.total} runs{found}"

    def _current(self) -> str:
        progress = self._progress
        if progress is None or progress.request is None:
            return ""
        if progress.step is None:
            return progress.request.in_words()
        level = "" if progress.step.level is None else f", batch mean {progress.step.level:+.2f}"
        return f"{progress.request.in_words()}: {progress.step.queries}/{progress.request.queries} queries{level}"

    def _left(self) -> str:
        progress = self._progress
        if progress is None or progress.done == progress.found or progress.done == progress.total:
            return ""
        pace = (time.monotonic() - self._began) / (progress.done - progress.found)
        minutes, seconds = divmod(round(pace * (progress.total - progress.done)), 60)
        return f"about {minutes // 60}:{minutes % 60:02d}:{seconds:02d} left"

    def _print(self, line: str, style: str = "") -> None:
        self._said = time.monotonic()
        self._console.print(Text(line, style=style), soft_wrap=True)


__all__ = ["BenchScreen"]
