"""What a training run shows: a live bar in a terminal, plain lines in a log; Ctrl-C saves and stops."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pilotwave.samples import Invalid, Sample
from pilotwave.training.progress import TrainingProgress, TrainingWatcher

INTERRUPTED = 130
LOG_SECONDS = 30.0
"""Without a terminal, passing lines are printed this often at most, and the state of a silent run."""
_RATE_SECONDS = 60.0
"""The rate shown is that of the last so many seconds."""
_SHOWN_SAMPLES = 6
_WORDS = {
    "strict_validity": "strict",
    "decoded_validity": "decoded",
    "uniqueness": "unique",
    "novelty": "novel",
    "tanimoto_distance": "Tanimoto distance",
    "real_held_out_loss": "held-out loss on real data",
}
_SHARES = {"strict_validity", "decoded_validity", "uniqueness", "novelty"}


class TrainingScreen(TrainingWatcher):
    """Shows a training run while it is open.

    Args:
        console: Where to.
        title: The first line: what is trained, where it goes.
    """

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._live: Live | None = None
        self._passing = "loading the data and the network"
        self._measured = self._losses = ""
        self._state: tuple[int, int, float] | None = None  # seen, total, loss
        self._pace: deque[tuple[float, int]] = deque(maxlen=200)
        self._said = time.monotonic()
        self._asked = self.interrupted = False
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Self:
        self._print(self._title, style="bold")
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._panel, console=self._console, refresh_per_second=4)
            self._live.start()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._live is not None:
            self._live.stop()

    def announce(self, line: str, *, passing: bool = False) -> None:
        """Shows a line; a passing one only until the next, and in a log only now and then."""
        self._passing = line if passing else ""
        if not passing or (self._live is None and self._silent_for(LOG_SECONDS)):
            self._print(line)

    def tick(self, seen: int, total: int, loss: float) -> None:
        """Moves the bar."""
        now = time.monotonic()
        self._asked = True  # who ticks will ask
        self._state, self._passing = (seen, total, loss), ""
        if not self._pace or now - self._pace[-1][0] > 0.5:
            self._pace.append((now, seen))
            while len(self._pace) > 2 and now - self._pace[0][0] > _RATE_SECONDS:
                self._pace.popleft()
        if self._live is None and self._silent_for(LOG_SECONDS):
            self._print(f"{self._counts()}  loss {loss:.4f}  {self._rate()}".rstrip())

    def __call__(self, progress: TrainingProgress) -> None:
        """Shows a report; what was measured stays on the screen."""
        self._state, self._passing = (progress.seen, progress.total, progress.loss), ""
        held_out = "" if progress.held_out_loss is None else f"  held-out {progress.held_out_loss:.4f}"
        self._losses = f"loss {progress.loss:.4f}{held_out}"
        measured = "  ".join(_figure(name, value) for name, value in progress.quality.items())
        if measured:
            self._measured = measured
        pace = f"{progress.per_second:.0f}/s"
        left = f"  {_duration(progress.seconds_left)} left" if progress.seen < progress.total else ""
        if self._live is None or measured:
            self._print("  ".join(filter(None, [self._counts(), self._losses, measured, f"{pace}{left}"])))
        shown = _labels(progress.samples)
        if shown:
            self._print(f"{'':>12} drew {'  '.join(shown)}", style="dim")
        if progress.note:
            self._print(f"note: {progress.note}", style="yellow")

    def must_stop(self) -> bool:
        """Says whether Ctrl-C was pressed."""
        self._asked = True
        return self.interrupted

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.interrupted:
            os._exit(INTERRUPTED)  # what the last checkpoint holds is on the disk
        if not self._asked:  # data is prepared, or the trainer does not look: nothing would stop it
            raise KeyboardInterrupt
        self.interrupted = True
        self._print("saving and stopping (Ctrl-C again quits now, at the last checkpoint)", style="yellow")

    def _panel(self) -> RenderableType:
        if self._state is None:
            return Spinner("dots", Text(self._passing or "working"))
        seen, total, loss = self._state
        row = Table.grid(padding=(0, 2))
        row.add_row(ProgressBar(total=total, completed=seen, width=40), self._counts(), self._rate())
        now = self._passing or f"loss {loss:.4f} now"
        lines = [Text("  ".join(filter(None, [now, self._losses])), overflow="ellipsis", no_wrap=True)]
        if self._measured:
            lines.append(Text(self._measured, overflow="ellipsis", no_wrap=True))
        return Group(row, *lines)

    def _counts(self) -> str:
        seen, total, _ = self._state or (0, 0, 0.0)
        return f"{seen:>12,} of {total:,} seen ({seen / max(total, 1):.0%})"

    def _rate(self) -> str:
        if self._state is None or len(self._pace) < 2:
            return ""
        (first, seen_then), (last, seen_now) = self._pace[0], self._pace[-1]
        rate = (seen_now - seen_then) / max(last - first, 1e-9)
        if rate <= 0:
            return ""
        return f"{rate:.0f}/s  {_duration(max(self._state[1] - self._state[0], 0) / rate)} left"

    def _silent_for(self, seconds: float) -> bool:
        return time.monotonic() - self._said >= seconds

    def _print(self, line: str, style: str = "") -> None:
        self._said = time.monotonic()
        self._console.print(Text(line, style=style), soft_wrap=True)


def _figure(name: str, value: float) -> str:
    word = _WORDS.get(name, name.replace("_", " "))
    return f"{word} {value:.1%}" if name in _SHARES else f"{word} {value:.3f}"


def _labels(samples: tuple[Sample | Invalid, ...]) -> list[str]:
    """Returns the first different molecules; a picture's label says nothing and is left out."""
    labels = [
        sample.label() for sample in samples if not isinstance(sample, Invalid) and sample.media == "molecule"
    ]
    return list(dict.fromkeys(labels))[:_SHOWN_SAMPLES]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


__all__ = ["INTERRUPTED", "TrainingScreen"]
