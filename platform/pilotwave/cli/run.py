"""``pilotwave run``: run a campaign file to the end of its budget."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pilotwave.cli.options import Address, CampaignFile, Overrides, PluginPaths, cluster_overrides


def run(
    campaign: CampaignFile,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="A new directory for the run; runs/<name> by default.")
    ] = None,
    address: Address = None,
    plugins: PluginPaths = None,
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

    loaded = Campaign.from_yaml(campaign, [*(overrides or []), *cluster_overrides(address, plugins)])
    return drive(
        loaded.config,
        lambda observe, interrupt: loaded.run(run_dir, observe=observe, interrupt=interrupt, launched=launched),
        json_output=json_output,
    )


__all__ = ["run"]
