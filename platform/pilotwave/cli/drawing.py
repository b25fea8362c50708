"""Progress of a command that draws samples: nothing for two seconds, then a bar; in a log a line now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIET_SECONDS = 2.0
"""Progress is shown only for what takes longer."""
LOG_INTERVAL_SECONDS = 10.0
"""Without a terminal a line is printed this often."""


@contextmanager
def drawing(total: int, what: str = "samples") -> Iterator[Callable[[int, int], None]]:
    """Yields a function to tell how many are done, of how many; what it says goes to standard error.

    It speaks by itself even before it is told anything: loading a model and a first batch may take long.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn(f"generating {what}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
    bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
    task = bar.add_task("generating", total=total)
    done, ended = [0], threading.Event()

    def speak() -> None:
        if ended.wait(QUIET_SECONDS):
            return
        if console.is_terminal:
            bar.start()
            return
        began = time.monotonic() - QUIET_SECONDS
        while True:
            seconds = time.monotonic() - began
            console.print(f"generated {done[0]} of {total} {what} in {seconds:.0f} s", highlight=False)
            if ended.wait(LOG_INTERVAL_SECONDS):
                return

    def tell(found: int, wanted: int) -> None:
        done[0] = found
        bar.update(task, completed=found, total=wanted)

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield tell
    finally:
        ended.set()
        speaker.join()
        if bar.live.is_started:
            bar.stop()


__all__ = ["drawing"]
