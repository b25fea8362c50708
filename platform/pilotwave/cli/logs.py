"""``pilotwave logs``: what happened in a run, line by line, while it runs or after."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from pilotwave.cli.options import RunDir
from pilotwave.errors import InputError

if TYPE_CHECKING:
    from pilotwave.report.log_lines import Line
    from pilotwave.report.run_log import RunLog, Wanted

POLL_SECONDS = 0.5
COLOURS = {"debug": "dim", "info": "green", "warning": "yellow", "error": "bold red"}


def logs(
    run_dir: RunDir,
    query: Annotated[str | None, typer.Option(metavar="ID", help="About one query only, e.g. p0003-07.")] = None,
    proposal: Annotated[int | None, typer.Option(min=0, help="About one proposal only.")] = None,
    worker: Annotated[
        str | None, typer.Option(metavar="NAME", help="From or about one worker only, e.g. evaluator-3.")
    ] = None,
    level: Annotated[str, typer.Option(help="debug, info, warning or error: this one and above.")] = "info",
    event: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND", help="Of this kind only, e.g. settled, attempted, oracle-output; may be repeated."
        ),
    ] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="The last so many; 0 for all.")] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
) -> None:
    """Say what happened in a run; for a run without a log it is told from its ledger.

    Example: pilotwave logs runs/polarizability --level warning -f
    """
    from pilotwave.report.log_lines import LEVELS
    from pilotwave.report.run_log import RunLog, Wanted

    if level not in LEVELS:
        raise InputError(f"--level: expected {', '.join(LEVELS)}, got {level!r}")
    wanted = Wanted(level, query, proposal, worker, frozenset(event or ()))
    log = RunLog(run_dir)
    show = _as_json if json_output else _Screen().show
    found = log.last(wanted, lines or None)
    show(found)
    if follow:
        _follow(log, wanted, show)
    elif not found and not json_output:
        typer.echo("no such line; --level debug shows every detail that the log holds", err=True)


def _follow(log: RunLog, wanted: Wanted, show: Callable[[Iterable[Line]], None]) -> None:
    try:
        while True:
            at_work = log.is_at_work()  # asked first: what was written before it ended is then seen
            show(log.new(wanted))
            if not at_work:
                return
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return


def _as_json(found: Iterable[Line]) -> None:
    for line in found:
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


class _Screen:
    """Lines for people."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(soft_wrap=True, highlight=False)

    def show(self, found: Iterable[Line]) -> None:
        from rich.text import Text

        from pilotwave.report.log_lines import as_text

        for line in found:
            when, level, about, message, output = as_text(line)
            text = Text.assemble(
                (when, "dim"),
                " ",
                (f"{level:<7}", COLOURS.get(level, "")),
                " ",
                (f"{about:<24}", "cyan"),
                " ",
                (message, "red" if level == "error" else ""),
            )
            self._console.print(text)
            for printed in output:
                self._console.print(Text(f"{'':<23}│ {printed}", style="dim"))


__all__ = ["logs"]
