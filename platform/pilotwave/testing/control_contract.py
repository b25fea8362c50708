"""What every runtime must do when it is told to: pause, drain, take more budget, keep a rate; as tests.

Part of :class:`pilotwave.testing.runtime_contract.RuntimeContract`. May import: pytest and the core.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.campaign import Campaign, CampaignResult
from pilotwave.execution.control import Command
from pilotwave.testing.faulty_oracles import FaultyOracleConfig, RecordingOracleConfig
from pilotwave.testing.small_campaign import campaign, state_of, wait_for


def send(run: RunDirectory, verb: str, argument: str | None = None) -> None:
    """Sends a command and waits until the driver has obeyed."""
    command = Command.of(verb, argument)
    command.send(run)
    wait_for(lambda: command.id in state_of(run.path).controls)


def commanded(job: Campaign, run_dir: Path, orders: Callable[[RunDirectory], None]) -> CampaignResult:
    """Runs a campaign while somebody gives orders, in a thread that must not fail."""
    run, wrong = RunDirectory(run_dir), list[BaseException]()

    def give() -> None:
        try:
            wait_for(lambda: run.exists() and state_of(run.path).started is not None)
            orders(run)
        except BaseException as error:  # a thread's own error would be lost
            wrong.append(error)

    thread = threading.Thread(target=give, daemon=True)
    thread.start()
    result = job.run(run_dir)
    thread.join(60.0)
    assert not wrong, wrong
    return result


class ControlContract:
    """Tests of budgets, rates and commands."""

    def runtime(self, **settings: Any) -> dict[str, Any]:
        """Returns the ``runtime`` section of a campaign file with these settings."""
        raise NotImplementedError

    def recording(self, folder: Path, **settings: Any) -> RecordingOracleConfig:
        """Returns an oracle that writes down what it was asked."""
        settings = {"started_file": folder / "started", "finished_file": folder / "finished", **settings}
        return RecordingOracleConfig(**settings)

    def test_paused_it_asks_nothing_until_it_is_told_to_go_on(self, tmp_path: Path) -> None:
        def orders(run: RunDirectory) -> None:
            wait_for(lambda: state_of(run.path).spent >= 4)
            send(run, "pause")
            wait_for(lambda: not state_of(run.path).spending.held)
            spent = state_of(run.path).spent
            time.sleep(0.5)
            paused.append((spent, state_of(run.path).spent))
            send(run, "resume")

        paused: list[tuple[int, int]] = []
        job = campaign(self.recording(tmp_path, delay=0.02), self.runtime(evaluators=2), batch_size=4)
        result = commanded(job, tmp_path / "run", orders)
        assert paused[0][0] == paused[0][1] < 24
        assert (result.outcome.finished, result.outcome.spent) == (True, 24)

    def test_drained_it_asks_what_is_ready_and_ends_as_done(self, tmp_path: Path) -> None:
        def orders(run: RunDirectory) -> None:
            wait_for(lambda: state_of(run.path).spent >= 2)
            send(run, "drain")

        job = campaign(self.recording(tmp_path, delay=0.02), self.runtime(evaluators=2), queries=400)
        result = commanded(job, tmp_path / "run", orders)
        state = state_of(result.run_dir)
        assert (result.outcome.finished, result.outcome.ended_by, state.stopped) == (
            True,
            "drain",
            "finished-early",
        )
        assert state.open_queries() == []
        assert state.spent == 8 * len(state.proposals) < 400

    def test_queries_are_added_while_it_runs_and_stay_added(self, tmp_path: Path) -> None:
        def orders(run: RunDirectory) -> None:
            wait_for(lambda: state_of(run.path).spent >= 2)
            send(run, "add-queries", "5")
            send(run, "stop")

        job = campaign(self.recording(tmp_path, delay=0.05), self.runtime(evaluators=2), queries=16)
        stopped = commanded(job, tmp_path / "run", orders)
        assert not stopped.outcome.finished
        resumed = job.resume(tmp_path / "run")
        assert (resumed.outcome.ended_by, resumed.outcome.spent) == ("queries", 21)
        asked = (tmp_path / "finished").read_text().split()
        assert len(asked) == len(set(asked)) == 21

    def test_the_cost_budget_ends_it_as_done_and_is_never_overspent(self, tmp_path: Path) -> None:
        oracle = FaultyOracleConfig(fault="raise", every=4, attempts=4, backoff_seconds=0.02)
        budget = {"queries": 100, "batch_size": 4, "cost": 11.0}
        job = campaign(oracle, self.runtime(evaluators=3), budget=budget)
        result = job.run(tmp_path / "run")
        state = state_of(result.run_dir)
        assert (result.outcome.finished, result.outcome.ended_by) == (True, "cost")
        assert state.spending.ended == state.answered + state.attempted + state.failed == 11.0

    def test_calls_keep_their_order_and_their_rate(self, tmp_path: Path) -> None:
        oracle = self.recording(tmp_path, calls_per_minute=600.0)
        runtime = self.runtime(evaluators=3, mode="synchronous")
        result = campaign(oracle, runtime, queries=8, batch_size=4).run(tmp_path / "run")
        with Ledger.open(result.run_dir / "ledger.sqlite", read_only=True) as ledger:
            asked = [event for event in ledger.events() if event.kind is EventKind.RESERVED]
        # The last one begins seven tenths of a second after the first, at the earliest.
        assert asked[-1].time - asked[0].time >= 0.5
        assert [event.record["query_id"] for event in asked] == sorted(state_of(result.run_dir).settled)
        assert len((tmp_path / "started").read_text().split()) == 8


__all__ = ["ControlContract", "commanded", "send"]
