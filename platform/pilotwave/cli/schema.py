"""``pilotwave schema``: the JSON Schema of a campaign file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def schema(
    output: Annotated[Path | None, typer.Option(help="Write it to this file instead of printing it.")] = None,
) -> None:
    """Print the JSON Schema of a campaign file, so that editors complete and check it.

    Example: pilotwave schema --output campaign.schema.json, then put
    "# yaml-language-server: $schema=campaign.schema.json" on the first line of the campaign file.
    """
    from pilotwave.config.campaign import campaign_schema
    from pilotwave.errors import InputError

    text = json.dumps(campaign_schema(), indent=2, ensure_ascii=False)
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}; choose another --output") from None


__all__ = ["schema"]
