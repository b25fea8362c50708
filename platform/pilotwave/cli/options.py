"""Options that several commands share."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

CampaignFile = Annotated[Path, typer.Argument(help="The campaign file.")]
RunDir = Annotated[Path, typer.Argument(help="The directory of the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value, e.g. budget.queries=400; may be repeated."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="The Ray cluster: local (a private one), auto (that of this machine), host:6379 or ray://host:10001; "
        "overrides runtime.address."
    ),
]
PluginPaths = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="PATH",
        help="Python code of yours that the workers need: a file, a package, or a folder of them; may be repeated.",
    ),
]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON for programs; progress goes to stderr.")]


@contextlib.contextmanager
def prints_aside(json_output: bool) -> Iterator[None]:
    """Keeps standard output for the one JSON document: what oracles, models and Ray print goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr) if json_output else contextlib.nullcontext():
        yield


def cluster_overrides(address: str | None, plugins: Sequence[Path] | None) -> list[str]:
    """Returns what ``--address`` and ``--plugin`` override; either chooses the Ray runtime."""
    overrides = []
    if address is not None:
        overrides.append(f"runtime.address={json.dumps(address)}")
    if plugins:
        paths = [str(path.expanduser().resolve()) for path in plugins]
        overrides.append(f"runtime.plugins={json.dumps(paths)}")
    return ["runtime.kind=ray", *overrides] if overrides else []


__all__ = [
    "Address",
    "CampaignFile",
    "JsonOutput",
    "Overrides",
    "PluginPaths",
    "RunDir",
    "cluster_overrides",
    "prints_aside",
]
