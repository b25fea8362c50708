"""``pilotwave doctor``: whether everything that a campaign needs works here, and how to mend what does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from pilotwave.doctor.check import Check

MISSING = 2


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out what takes long: starting Ray, models, an xTB evaluation.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Check Python, packages, GPU, Ray, xTB, models, disk and memory; exit code 2 if something needed is missing.

    Example: pilotwave doctor
    """
    from rich.console import Console
    from rich.markup import escape

    from pilotwave.doctor.checks import checks

    console = Console(stderr=json_output)
    with console.status("looking around") as status:
        found = checks(quick=quick, say=lambda name: status.update(f"checking {name}"))
    ok = all(check.status != "missing" for check in found)
    if json_output:
        typer.echo(json.dumps({"ok": ok, "checks": [check.to_json() for check in found]}, indent=2))
    else:
        console.print(_table(found))
        for check in found:
            if check.remedy:
                console.print(f"[bold]{check.name}[/]: {escape(check.remedy)}", highlight=False, soft_wrap=True)
        verdict = "all that a campaign needs is here" if ok else "something that a campaign needs is missing"
        console.print(f"\n[bold {'green' if ok else 'red'}]{verdict}[/]")
    return 0 if ok else MISSING


def _table(found: Sequence[Check]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    colours = {"ok": "green", "warning": "yellow", "missing": "bold red"}
    table = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("status")
    table.add_column("found", overflow="fold")
    for check in found:
        colour = colours[check.status]
        table.add_row(check.name, f"[{colour}]{check.status}[/]", escape(check.found))
    return table


__all__ = ["doctor"]
