"""The algorithm's state on disk, so that a resumed campaign need not tell it everything again.

Saving takes the longer the more an algorithm knows; it is done as often as it may be without costing more than a
small share of the loop's time. The ledger alone suffices to go on: what was told since the last checkpoint is told
again. May import :mod:`pilotwave.archive` and :mod:`pilotwave.storage`.
"""

from __future__ import annotations

import time
from pathlib import Path

from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.state import CampaignState
from pilotwave.protocols import Algorithm
from pilotwave.storage import save_checkpoint

SHARE = 0.02
"""At most this much of the time goes into checkpoints."""
KEPT = 2
"""So many are kept, and further ones until there is one at which nothing was being made that is not made yet."""


class Checkpoints:
    """The checkpoints of one driver.

    Attributes:
        differs: Whether the algorithm was told something since the last one.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.differs = True
        self._run = run
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time for another one."""
        return time.monotonic() >= self._due

    def save(self, algorithm: Algorithm, state: CampaignState) -> None:
        """Saves the algorithm as it stands at the last event, and lets old checkpoints go.

        Raises:
            StorageError: The disk is full or read-only.
        """
        began = time.monotonic()
        path = self._run.checkpoints / f"{state.sequence:010d}.pt"
        saved = {"sequence": state.sequence, "algorithm": algorithm.name, "state": algorithm.state_dict()}
        save_checkpoint(path, saved)
        self._prune(first_unmade(state))
        self.differs = False
        now = time.monotonic()
        self._due = now + (now - began) * (1.0 - SHARE) / SHARE

    def _prune(self, first_unmade: int | None) -> None:
        found = checkpoints_of(self._run)
        whole = [path for path in found if first_unmade is None or standing_at(path) < first_unmade]
        kept = {*found[-KEPT:], *whole[-1:]}
        for path in found:
            if path not in kept:
                path.unlink(missing_ok=True)


def checkpoints_of(run: RunDirectory) -> list[Path]:
    """Returns the files of the algorithm's states, the oldest first."""
    return sorted(run.checkpoints.glob("[0-9]*.pt"))


def standing_at(path: Path) -> int:
    """Returns the event at which a checkpoint stands."""
    return int(path.stem)


def first_unmade(state: CampaignState) -> int | None:
    """Returns the event with which the first of the proposals still to be made was thought of, or None.

    An algorithm that is restored from before that event proposes it again.
    """
    return min((item.asked for item in state.proposals.values() if not item.generated), default=None)


__all__ = ["Checkpoints", "checkpoints_of", "first_unmade", "standing_at"]
