"""What is to be run, by whom, and what can be seen of it while it runs.

A :class:`Runtime` takes a :class:`CampaignJob` and drives it to its :class:`Outcome`; it reports
:class:`Progress` and obeys an :class:`Interrupt`. May import :mod:`pilotwave.config` and the standard library.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from pilotwave.config.campaign import CampaignConfig

Phase = Literal["starting", "preflight", "running", "saving", "done"]


@dataclass(frozen=True)
class CampaignJob:
    """A campaign and the directory that it lives in; picklable.

    Attributes:
        config: Checked.
        run_dir: Created, with a ledger.
        launched: When the user typed the command, seconds since the epoch; start-up counts as overhead.
    """

    config: CampaignConfig
    run_dir: Path
    launched: float


@dataclass(frozen=True)
class Progress:
    """What a user sees while a campaign runs.

    Attributes:
        phase: What it is doing.
        queries: The budget.
        spent: Queries for which an oracle was asked.
        answered: With a value.
        failed: Paid for, without a value.
        infeasible: Made, never asked about.
        reused: Answered from a project archive, at no cost.
        saved_cost: What those answers had cost.
        best: The best value so far, in the oracle's unit.
        best_label: What it belongs to, e.g. a SMILES.
        batch_mean: Mean value of the last complete batch.
        generating: Whether the model is at work.
        in_flight: How many oracle workers are.
        utilisation: Share of the oracle workers' time in use since the first query, 0 to 1.
        seconds: Since the launch.
        seconds_left: Estimated from the pace so far, or None before there is one.
        note: One line worth saying, e.g. a retry.
        cost: Of all attempts so far, in the oracle's unit.
        cost_limit: The budget for it, or None.
        resting: How many questions wait to be tried again.
        paused: Whether nothing new is made or asked.
        draining: Whether nothing new is proposed.
        ready: How many candidates may be asked about and wait for an evaluator.
        evaluators: How many questions can be asked at once.
        platform_seconds: For how long this driver's loop was at work itself, waiting for nobody.
    """

    phase: Phase
    queries: int
    spent: int = 0
    answered: int = 0
    failed: int = 0
    infeasible: int = 0
    reused: int = 0
    saved_cost: float = 0.0
    best: float | None = None
    best_label: str = ""
    batch_mean: float | None = None
    generating: bool = False
    in_flight: int = 0
    utilisation: float = 0.0
    seconds: float = 0.0
    seconds_left: float | None = None
    note: str = ""
    cost: float = 0.0
    cost_limit: float | None = None
    resting: int = 0
    paused: bool = False
    draining: bool = False
    ready: int = 0
    evaluators: int = 0
    platform_seconds: float = 0.0

    @property
    def ended(self) -> int:
        """How many queries have ended, with a value or without."""
        return self.answered + self.failed + self.reused


@dataclass(frozen=True)
class TimeShares:
    """Where the wall time of one driver went, in seconds.

    Attributes:
        wall: From launch to the end.
        busy: Something was generating or evaluating.
        generating: The model was at work.
        evaluating: At least one oracle was.
        starting: From launch until the first of either: imports, the cluster, the model, the preflight.
    """

    wall: float = 0.0
    busy: float = 0.0
    generating: float = 0.0
    evaluating: float = 0.0
    starting: float = 0.0

    @property
    def overhead(self) -> float:
        """Share of the wall time that is neither generating nor evaluating, 0 to 1."""
        return max(0.0, 1.0 - self.busy / self.wall) if self.wall > 0 else 0.0


@dataclass(frozen=True)
class Outcome:
    """How a driver ended.

    Attributes:
        finished: True if a budget is spent or it was drained, False if it was interrupted.
        spent: Queries asked in all.
        times: Where this driver's time went.
        tracking: One line: where it was written down, or empty.
        warnings: Lines the user should see.
        ended_by: The budget that was spent (``"queries"``, ``"cost"``, ``"wall_hours"``), ``"drain"``,
            ``"archive"`` (everything is known already), or empty if it was interrupted.
    """

    finished: bool
    spent: int
    times: TimeShares = field(default_factory=TimeShares)
    tracking: str = ""
    warnings: tuple[str, ...] = ()
    ended_by: str = ""


class Interrupt(Protocol):
    """Says whether the user wants to stop; :class:`threading.Event` is one."""

    def is_set(self) -> bool:
        """Returns True once stopping was asked for."""
        ...


Observer = Callable[[Progress], None]


@runtime_checkable
class Runtime(Protocol):
    """Runs a campaign somewhere: in this process, on Ray."""

    name: str

    def execute(self, job: CampaignJob, observe: Observer, interrupt: Interrupt) -> Outcome:
        """Runs the job from where its ledger stands until its budget is spent or it is interrupted.

        Args:
            job: What to run.
            observe: Called in the caller's thread or another one, several times a second at most.
            interrupt: Looked at often; when set, answers in flight get a short grace, all is saved, and the
                outcome is unfinished.

        Raises:
            PilotwaveError: The campaign could not start, was stopped by the breaker, or the storage failed.
        """
        ...


def never() -> Interrupt:
    """Returns an interrupt that is never set."""
    return threading.Event()


__all__ = [
    "CampaignJob",
    "Interrupt",
    "Observer",
    "Outcome",
    "Phase",
    "Progress",
    "Runtime",
    "TimeShares",
    "never",
]
