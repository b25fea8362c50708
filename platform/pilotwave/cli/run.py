"""``pilotwave run``: run a campaign file to the end of its budget."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pilotwave.cli.options import CampaignFile, Overrides


def run(
    campaign: CampaignFile,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="A new directory for the run; runs/<name> by default.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster: auto, or ray://host:10001; a private one by default.")
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON; progress goes to stderr.")
    ] = (False),
) -> int:
    """Run a campaign. Ctrl-C saves and stops; a second one stops at once.

    Example: pilotwave run examples/polarizability.yaml --set budget.queries=64
    """
    launched = time.time()
    from pilotwave.campaign import Campaign
    from pilotwave.cli.driving import drive

    overrides = list(overrides or [])
    if address is not None:
        overrides += ["runtime.kind=ray", f"runtime.address={address}"]
    loaded = Campaign.from_yaml(campaign, overrides)
    return drive(
        loaded.config,
        lambda observe, interrupt: loaded.run(run_dir, observe=observe, interrupt=interrupt, launched=launched),
        json_output=json_output,
    )


__all__ = ["run"]
