"""A trial as Ray Tune runs it: an actor that drives the trial's campaigns and says how they stand.

It holds no model and no oracle: those are in the actors of its campaigns' runtimes (or, with the inline runtime, in
threads here). It returns to Tune every second, so that it can be told to stop. May import ray and the core.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from pilotwave.tuning.plans import TrialPlan
from pilotwave.tuning.trial import TrialRun

HEARTBEAT_SECONDS = 1.0
PLAN, STUDY_DIR = "plan", "study_dir"
"""What a trial is given."""
TRIAL, QUERIES, LOSS, SPENT, STANDING = "trial", "queries", "loss", "spent", "standing"
"""What it returns; without a standing it is only a sign of life."""


@dataclass(frozen=True, repr=False)
class Sent:
    """A plan on its way; Tune writes what it is given into names of folders."""

    plan: TrialPlan

    def __repr__(self) -> str:
        return f"trial-{self.plan.number}"


class StudyTrial(Trainable):
    """Runs one trial, from where the ledgers of its campaigns stand."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begins."""
        plan: TrialPlan = config[PLAN].plan
        self._trial = TrialRun(plan, Path(config[STUDY_DIR]))
        self._trial.start()

    def step(self) -> dict[str, Any]:
        """Waits a second for the next comparison."""
        standing = self._trial.wait(HEARTBEAT_SECONDS)
        said: dict[str, Any] = {TRIAL: self._trial.plan.number, SPENT: self._trial.spent}
        if standing is not None:
            figures = {
                QUERIES: standing.queries,
                LOSS: standing.loss,
                STANDING: standing,
                "done": bool(standing.over),
            }
            said |= figures
        return said

    def cleanup(self) -> None:
        """Lets the campaigns save, if they are still at work."""
        self._trial.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Saves nothing, since the ledgers have it all; a scheduler that pauses a trial asks for it."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Loads nothing: :meth:`setup` has gone on from the ledgers."""


__all__ = [
    "HEARTBEAT_SECONDS",
    "LOSS",
    "PLAN",
    "QUERIES",
    "SPENT",
    "STANDING",
    "STUDY_DIR",
    "TRIAL",
    "Sent",
    "StudyTrial",
]
