"""How far a run is, from one pass over its ledger that keeps nothing of what is over: for runs of any size.

May import :mod:`pilotwave.archive`, :mod:`pilotwave.config` and :mod:`pilotwave.report`.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Self

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.running_state import RunningState
from pilotwave.config.campaign import CampaignConfig


@dataclass(frozen=True)
class RunSummary:
    """A run at one moment.

    Attributes:
        config: Of the campaign.
        state: Everything that can be counted.
        unit: Of the oracle's values, ``""`` if it has none or was never started.
        best: The best value, or None.
        best_label: What it belongs to.
        batch_mean: Of the values of the last proposal that was made, or None.
    """

    config: CampaignConfig
    state: RunningState
    unit: str
    best: float | None
    best_label: str | None
    batch_mean: float | None

    @classmethod
    def read(cls, directory: RunDirectory) -> Self:
        """Reads a run directory; a campaign may be writing to it.

        Raises:
            RunDirectoryError: There is no run here, or its campaign does not match its ledger.
            StorageError: The ledger cannot be read.
        """
        config, state, unit = directory.config(), RunningState(), ""
        with Ledger.open(directory.ledger_file, read_only=True) as ledger:
            for event in ledger.events():
                state.follow(event)
                if event.kind is EventKind.STARTED:
                    unit = str(event.record.get("facts", {}).get("unit", ""))
            best = state.highest if config.objective.is_better(1.0, 0.0) else state.lowest
            sample = None if best is None else ledger.candidate(best[1]).sample
        made = [item for _, item in sorted(state.proposals.items()) if item.generated]
        ends = [state.settled.get(query_id) for query_id in made[-1].query_ids] if made else []
        values = [end.value for end in ends if end is not None and end.value is not None]
        return cls(
            config,
            state,
            unit,
            None if best is None else best[0],
            None if sample is None else sample.label(),
            statistics.fmean(values) if values else None,
        )


__all__ = ["RunSummary"]
