"""``pilotwave list``: what is installed, ours and plug-ins."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pilotwave.cli.options import JsonOutput

PLURALS = {
    "backbones": "backbone",
    "oracles": "oracle",
    "constraints": "constraint",
    "algorithms": "algorithm",
    "runtimes": "runtime",
    "trackers": "tracking",
}


def list_choices(
    what: Annotated[str | None, typer.Argument(help=f"One of {', '.join(PLURALS)}; all by default.")] = None,
    json_output: JsonOutput = False,
) -> None:
    """List the kinds that a campaign file may choose.

    Example: pilotwave list oracles
    """
    from pilotwave.config import registry
    from pilotwave.errors import InputError

    if what is not None and what not in PLURALS:
        raise InputError(f"expected one of {', '.join(PLURALS)}, got {what!r}{registry.suggestion(what, PLURALS)}")
    chosen = {what: PLURALS[what]} if what else PLURALS
    found = {plural: _describe(section) for plural, section in chosen.items()}
    if json_output:
        typer.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    for plural, rows in found.items():
        table = Table(title=plural, title_justify="left", box=None, padding=(0, 2))
        for column in ("kind", "what it is", "ready"):
            table.add_column(column, no_wrap=column == "kind", overflow="fold")
        for row in rows:
            table.add_row(row["kind"], row["summary"], row["ready"])
        Console().print(table)
        Console().print()


def _describe(section: str) -> list[dict[str, str]]:
    from pilotwave.config import registry
    from pilotwave.errors import PilotwaveError

    rows = []
    for kind in registry.choices(section):
        try:
            config = registry.load(section, kind)
        except PilotwaveError as error:
            rows.append({"kind": kind, "summary": "", "ready": f"no: {error}"})
            continue
        missing = [name for name in config.packages if not config.is_installed(name)]
        extra = f"pilotwave[{config.extra}]" if config.extra else " ".join(missing)
        ready = "yes" if not missing else f"no: pip install '{extra}'"
        rows.append({"kind": kind, "summary": config.summary, "ready": ready})
    return rows


__all__ = ["list_choices"]
