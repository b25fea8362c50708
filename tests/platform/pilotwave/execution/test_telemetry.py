"""Who listens to a campaign hears all that is in its ledger, and can never stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pilotwave.archive.ledger import Event, EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.state import CampaignState
from pilotwave.errors import BreakerError
from pilotwave.execution.coordinator import Coordinator
from pilotwave.execution.job import CampaignJob, Outcome, Phase, Progress
from pilotwave.execution.telemetry import Level, Telemetry
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.small_campaign import campaign
from pilotwave.testing.virtual_workers import Attempt, VirtualWorkers
from pilotwave.types import Failure


class Listener:
    """Writes down all that it hears; fails where it is told to."""

    name = "the listener"

    def __init__(self, fails_at: str = "") -> None:
        self.heard: list[str] = []
        self.events: list[Event] = []
        self.notes: list[tuple[Level, str, str]] = []
        self.progress: list[Progress] = []
        self._fails_at = fails_at

    def opened(self, job: CampaignJob, state: CampaignState) -> None:
        self._hear("opened")

    def happened(self, event: Event) -> None:
        self.events.append(event)
        self._hear(f"happened {event.kind}")

    def entered(self, phase: Phase) -> None:
        self._hear(f"entered {phase}")

    def noted(self, level: Level, event: str, message: str, proposal: int | None = None) -> None:
        self.notes.append((level, event, message))
        self._hear(f"noted {event}")

    def looked(self, progress: Progress) -> None:
        self.progress.append(progress)
        self._hear("looked")

    def close(self, reason: str) -> None:
        self._hear(f"close {reason}")

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        if self._fails_at and what.startswith(self._fails_at):
            raise RuntimeError("it broke")


def drive(
    folder: Path,
    listeners: Sequence[Telemetry],
    oracle: Callable[[EvaluationRequest], Attempt] = lambda request: Attempt(seconds=30.0),
) -> Outcome:
    chosen = campaign(FaultyOracleConfig(attempts=3), {"kind": "inline", "evaluators": 2}).config
    run = RunDirectory(folder)
    run.create(chosen)
    workers = VirtualWorkers(chosen, oracle)
    job = CampaignJob(chosen, run.path, workers.now)
    return Coordinator(
        job, workers, lambda progress: None, threading.Event(), workers.clock, telemetry=listeners
    ).run()


def test_a_listener_hears_every_event_of_the_ledger_in_order(tmp_path: Path) -> None:
    listener = Listener()
    drive(tmp_path / "run", [listener])
    with Ledger.open(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger:
        assert listener.events == list(ledger.events())
    assert listener.heard[:2] == ["opened", "entered starting"]
    assert [what for what in listener.heard if what.startswith("entered")] == [
        f"entered {phase}" for phase in ("starting", "preflight", "running", "saving")
    ]
    assert listener.heard[-1] == "close finished"


def test_progress_says_what_waits_and_who_could_ask(tmp_path: Path) -> None:
    listener = Listener()
    drive(tmp_path / "run", [listener])
    assert {progress.evaluators for progress in listener.progress} == {2}
    assert all(progress.in_flight <= 2 for progress in listener.progress)
    assert 0 < listener.progress[-1].platform_seconds < 30


def test_generated_says_who_made_it_and_why_some_may_not_be_asked_about(tmp_path: Path) -> None:
    listener = Listener()
    drive(tmp_path / "run", [listener])
    made = [event.record for event in listener.events if event.kind is EventKind.GENERATED]
    assert made
    for record in made:
        assert sum(record["infeasible"].values()) == len(record["query_ids"]) - len(record["feasible"])
        assert record["worker"] == ""
        assert record["started"] > 0


@pytest.mark.parametrize("moment", ["opened", "happened reserved", "entered running", "looked", "close finished"])
def test_one_that_breaks_is_left_out_and_said_once_and_the_others_go_on(tmp_path: Path, moment: str) -> None:
    broken, whole = Listener(fails_at=moment), Listener()
    outcome = drive(tmp_path / "run", [broken, whole])
    assert outcome.finished
    assert outcome.spent == 24
    assert whole.heard[-1] == "close finished"
    assert broken.heard[-2].startswith(moment)
    assert broken.heard[-1] == "close failed", "it is told to let go of what it holds"
    warnings = [message for level, _, message in whole.notes if level is Level.WARNING]
    assert warnings == ["the listener is off from here on: RuntimeError: it broke"]
    if moment != "close finished":  # what breaks at the very end is said to nobody but the log
        assert list(outcome.warnings) == warnings


def test_why_a_campaign_failed_is_noted_before_it_is_closed(tmp_path: Path) -> None:
    listener = Listener()
    failure = Failure("scf", "it does not converge")
    with pytest.raises(BreakerError):
        drive(tmp_path / "run", [listener], lambda request: Attempt(failure=failure))
    level, event, message = listener.notes[-1]
    assert (level, event) == (Level.ERROR, "breaker")
    assert "it does not converge" in message
    assert listener.heard[-1] == "close breaker"
