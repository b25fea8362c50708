"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CampaignFile = Annotated[Path, typer.Argument(help="The campaign file.")]
RunDir = Annotated[Path, typer.Argument(help="The directory of the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value, e.g. budget.queries=400; may be repeated."),
]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON for programs; progress goes to stderr.")]

__all__ = ["CampaignFile", "JsonOutput", "Overrides", "RunDir"]
