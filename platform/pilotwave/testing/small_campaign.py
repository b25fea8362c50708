"""A small campaign on an analytic model, and what its ledger says: for tests of whatever runs campaigns.

May import the core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pilotwave.archive.ledger import Ledger
from pilotwave.archive.state import CampaignState
from pilotwave.campaign import Campaign
from pilotwave.config.components import OracleConfig


def campaign(oracle: OracleConfig, runtime: dict[str, Any], **fields: Any) -> Campaign:
    """Returns a small campaign on an analytic model."""
    queries = fields.pop("queries", 24)
    return Campaign.from_dict(
        {
            "name": "contract",
            "backbone": {"kind": "analytic", "dim": 6, "steps": 3},
            "oracle": oracle,
            "objective": {"direction": "minimize"},
            "algorithm": {"kind": "fast-direct", "step_size": 0.5},
            "budget": {"queries": queries, "batch_size": fields.pop("batch_size", 8)},
            "runtime": runtime,
            "seed": 3,
            **fields,
        }
    )


def state_of(run_dir: Path) -> CampaignState:
    """Reduces the ledger of a run."""
    with Ledger.open(run_dir / "ledger.sqlite", read_only=True) as ledger:
        return CampaignState.of(ledger.events())


def answers_of(run_dir: Path) -> dict[str, float | None]:
    """Returns what each query was answered."""
    return {query_id: item.value for query_id, item in sorted(state_of(run_dir).settled.items())}


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.01)


__all__ = ["answers_of", "campaign", "state_of", "wait_for"]
