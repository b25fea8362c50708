"""Who tunes: what a tuner is given, what it tells, and how one is found.

They are entry points of the group ``pilotwave.tuners``; the core knows no Ray. May import the modules beside it
and the standard library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal, Protocol

from pilotwave.errors import MissingDependencyError
from pilotwave.execution.job import Interrupt
from pilotwave.tuning.config import StudyConfig
from pilotwave.tuning.space import Point

GROUP = "pilotwave.tuners"
KIND = "ray"

Phase = Literal["starting", "running", "saving", "done"]


@dataclass(frozen=True)
class StudyJob:
    """A study and the directory that it lives in; picklable.

    Attributes:
        study: Checked.
        study_dir: Created, with a ledger.
        launched: When the user began to wait, seconds since the epoch.
    """

    study: StudyConfig
    study_dir: Path
    launched: float


@dataclass(frozen=True)
class TrialRow:
    """A trial on the screen.

    Attributes:
        number: Counts up, from 1.
        point: What it tries.
        status: ``"running"``, ``"finished"``, ``"stopped"``, ``"failed"``, or ``"open"``: it waits to be taken up.
        queries: To each campaign, when it was last compared.
        loss: Then, or None before.
        spent: Of all its campaigns, by now.
        reached: How many of them have met their target.
        campaigns: How many there are.
        failure: Why it failed.
    """

    number: int
    point: Point
    status: str
    queries: int
    loss: float | None
    spent: int
    reached: int
    campaigns: int
    failure: str = ""


@dataclass(frozen=True)
class StudyProgress:
    """What a user sees while a study runs.

    Attributes:
        phase: What it is doing.
        trials: All that were begun.
        samples: How many there will be at most.
        spent: Questions so far.
        budget: Of them, or None.
        best: The number of the best finished trial, or None.
        seconds: Since the launch.
        seconds_left: Estimated from the pace of trials so far, or None.
        note: One line worth saying.
    """

    phase: Phase
    trials: tuple[TrialRow, ...] = ()
    samples: int = 0
    spent: int = 0
    budget: int | None = None
    best: int | None = None
    seconds: float = 0.0
    seconds_left: float | None = None
    note: str = ""


@dataclass(frozen=True)
class StudyOutcome:
    """How a driver of a study ended.

    Attributes:
        finished: False if it was interrupted.
        ended_by: ``"samples"``, ``"budget"``, ``"searcher"``, or empty.
        tracking: One line: where it was written down, or empty.
        warnings: Lines the user should see.
    """

    finished: bool
    ended_by: str = ""
    tracking: str = ""
    warnings: tuple[str, ...] = field(default_factory=tuple)


Observer = Callable[[StudyProgress], None]


class Tuner(Protocol):
    """Runs a study: asks a searcher for points, runs trials side by side, lets a scheduler stop some."""

    def check(self, study: StudyConfig) -> None:
        """Makes sure that the searcher and the scheduler of a study are there and take its search.

        Raises:
            InputError: One is unknown or not installed (the message says what to install), or cannot search this.
        """
        ...

    def run(self, job: StudyJob, observe: Observer, interrupt: Interrupt) -> StudyOutcome:
        """Goes on from where the study's ledger stands to its end, or until it is interrupted.

        Raises:
            PilotwaveError: It could not start or go on; what was answered is in the ledgers of the campaigns.
        """
        ...


def open_tuner() -> Tuner:
    """Returns what runs studies.

    Raises:
        MissingDependencyError: Ray is not installed.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    try:
        opened: Tuner = found[KIND].load()()
    except (KeyError, ImportError) as error:
        raise MissingDependencyError(
            "pilotwave tune needs ray[tune], which is not installed; run: pip install 'pilotwave[ray]'"
        ) from error
    return opened


__all__ = ["Observer", "StudyJob", "StudyOutcome", "StudyProgress", "TrialRow", "Tuner", "open_tuner"]
