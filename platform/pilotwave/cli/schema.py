"""``pilotwave schema``: the JSON Schema of a campaign or study file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def schema(
    output: Annotated[Path | None, typer.Option(help="Write it to this file instead of printing it.")] = None,
    study: Annotated[bool, typer.Option("--study", help="Of a study file, for pilotwave tune.")] = False,
) -> None:
    """Print the JSON Schema of a campaign file, so that editors complete and check it.

    Example: pilotwave schema --output campaign.schema.json, then put
    "# yaml-language-server: $schema=campaign.schema.json" on the first line of the campaign file.
    """
    from pilotwave.config.campaign import campaign_schema
    from pilotwave.errors import InputError
    from pilotwave.tuning.config import study_schema

    text = json.dumps(study_schema() if study else campaign_schema(), indent=2, ensure_ascii=False)
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}; choose another --output") from None


__all__ = ["schema"]
