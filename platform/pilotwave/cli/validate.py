"""``pilotwave validate``: is this campaign file right, and can it run here?"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pilotwave.cli.options import CampaignFile, JsonOutput, Overrides


def validate(
    campaign: CampaignFile,
    overrides: Overrides = None,
    preflight: Annotated[
        bool, typer.Option("--preflight", help="Also load the model and ask the oracle its known question.")
    ] = False,
    json_output: JsonOutput = False,
) -> None:
    """Check a campaign file without paying for anything.

    Example: pilotwave validate campaign.yaml --set budget.queries=400 --preflight
    """
    from pilotwave.campaign import Campaign

    checked = Campaign.from_yaml(campaign, overrides or [])
    checked.check()
    said = "valid"
    if preflight:
        checked.preflight()
        said = "valid; the model loads and the oracle gives its known answer"
    if json_output:
        typer.echo(json.dumps(checked.config.model_dump(mode="json"), indent=2))
    else:
        typer.echo(f"{campaign}: {said}")


__all__ = ["validate"]
