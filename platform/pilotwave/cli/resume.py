"""``pilotwave resume``: go on with a run that was interrupted, killed, or given more budget."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from pilotwave.cli.options import Address, Overrides, PluginPaths, RunDir, cluster_overrides


def resume(
    run_dir: RunDir,
    overrides: Overrides = None,
    address: Address = None,
    plugins: PluginPaths = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON; progress goes to stderr.")
    ] = (False),
) -> int:
    """Go on where a run stands: nothing that was answered is asked again.

    Example: pilotwave resume runs/polarizability --set budget.queries=320
    """
    launched = time.time()
    from pilotwave.campaign import Campaign
    from pilotwave.cli.driving import drive

    loaded = Campaign.of_run(run_dir, [*(overrides or []), *cluster_overrides(address, plugins)])
    return drive(
        loaded.config,
        lambda observe, interrupt: loaded.resume(run_dir, observe=observe, interrupt=interrupt, launched=launched),
        json_output=json_output,
    )


__all__ = ["resume"]
