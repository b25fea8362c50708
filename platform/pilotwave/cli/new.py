"""``pilotwave new``: the beginning of a plug-in, which works from its first minute."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

new = typer.Typer(name="new", help="Write the beginning of a plug-in.", no_args_is_help=True)

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@new.command("oracle")
def new_oracle(
    name: Annotated[str, typer.Argument(help="What campaign files will call it, e.g. melting-point.")],
    media: Annotated[
        Literal["molecule", "image", "array"], typer.Option(help="The kind of sample that it judges.")
    ] = "molecule",
    output: Annotated[
        Path | None, typer.Option(help="The folder to write; pilotwave-oracle-NAME here by default.")
    ] = None,
) -> None:
    """Write a package with an oracle, its tests by the contract, and a README.

    Example: pilotwave new oracle melting-point --media molecule
    """
    from pilotwave.cli.oracle_template import files_of
    from pilotwave.config import registry
    from pilotwave.errors import InputError

    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise InputError(f"expected a name in lower case such as melting-point, got {name!r}")
    if name in registry.choices("oracle"):
        raise InputError(f"there is an oracle {name!r} already (pilotwave list oracles); choose another name")
    folder = output or Path(f"pilotwave-oracle-{name}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already; choose another folder with --output")
    try:
        for place, text in files_of(name, media).items():
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    python = "python" if Path(sys.executable).name.startswith("python") else sys.executable
    shown = folder if folder.is_absolute() else f"./{folder}"  # pip takes a bare name for a package of the index
    typer.echo(f"{folder}: an oracle {name!r} for {media} samples. Next:")
    typer.echo(f"  {python} -m pip install -e {shown}")
    typer.echo(f"  {python} -m pytest {shown}")
    typer.echo(f"  pilotwave oracle test {name}")


__all__ = ["new"]
