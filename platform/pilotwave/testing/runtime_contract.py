"""What every runtime must do, as tests: subclass :class:`RuntimeContract` and say how it is configured.

    class TestMyRuntime(RuntimeContract):
        def runtime(self, **settings):
            return {"kind": "mine", **settings}

Everything is real: oracle processes, ledgers, kills. May import: pytest, torch and the core.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.campaign import Campaign, CampaignResult
from pilotwave.errors import BreakerError, PreflightError, RunDirectoryError
from pilotwave.execution.job import Progress
from pilotwave.protocols import Oracle, QueryContext
from pilotwave.samples import Sample
from pilotwave.storage import load_checkpoint
from pilotwave.testing.control_contract import ControlContract
from pilotwave.testing.faulty_oracles import FaultyOracleConfig, RecordingOracle, RecordingOracleConfig
from pilotwave.testing.small_campaign import answers_of, campaign, state_of
from pilotwave.types import Answer, Status

HANGING_QUERY = "p0000-01"


def final_algorithm_state(run_dir: Path) -> dict[str, Any]:
    """Returns the algorithm's state in the newest checkpoint."""
    newest = max((run_dir / "checkpoints").glob("*.pt"))
    state: dict[str, Any] = load_checkpoint(newest)["state"]
    return state


def assert_same_state(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Fails unless two algorithm states are equal, bit for bit."""
    assert left.keys() == right.keys()
    for key, value in left.items():
        same = torch.equal(value, right[key]) if isinstance(value, torch.Tensor) else value == right[key]
        assert same, key


def processes_gone(pid_file: Path, seconds: float = 20.0) -> bool:
    """Waits until none of the processes listed in a file is alive."""
    pids = [int(line) for line in pid_file.read_text().split()]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(_alive(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


class RuntimeContract(ControlContract):
    """Tests of :class:`pilotwave.execution.job.Runtime`."""

    @pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
    def test_spends_the_budget_exactly_and_asks_nothing_twice(self, tmp_path: Path, mode: str) -> None:
        seen: list[Progress] = []
        oracle = self.recording(tmp_path, delay=0.005)
        runtime = self.runtime(mode=mode, evaluators=3, generators=2)
        result = campaign(oracle, runtime, queries=21).run(tmp_path / "run", observe=seen.append)
        asked = (tmp_path / "finished").read_text().split()
        assert len(asked) == len(set(asked)) == 21
        state = state_of(result.run_dir)
        assert (state.spent, state.answered, len(state.told), state.stopped) == (21, 21, 21, "finished")
        assert result.outcome.finished
        assert (seen[0].phase, seen[-1].spent) == ("starting", 21)
        assert all(0 <= progress.spent <= 21 and 0 <= progress.utilisation <= 1 for progress in seen)
        assert not list((result.run_dir / "receipts").glob("*.json"))

    def test_the_same_seed_gives_the_same_campaign_however_many_evaluators(self, tmp_path: Path) -> None:
        runs = []
        for evaluators in (1, 4):
            oracle = FaultyOracleConfig(delay=0.004, seed=evaluators)
            runtime = self.runtime(mode="synchronous", evaluators=evaluators)
            runs.append(campaign(oracle, runtime).run(tmp_path / str(evaluators)).run_dir)
        assert answers_of(runs[0]) == answers_of(runs[1])
        assert_same_state(final_algorithm_state(runs[0]), final_algorithm_state(runs[1]))

    def test_a_hanging_oracle_holds_up_nobody(self, tmp_path: Path) -> None:
        recording = self.recording(tmp_path, delay=0.01, time_limit=6.0)  # an evaluator may start late
        oracle = _HangingOnce(**recording.model_dump(exclude={"kind"}))
        runtime = self.runtime(mode="asynchronous", evaluators=2)
        result = campaign(oracle, runtime, queries=16).run(tmp_path / "run")
        settled = state_of(result.run_dir).settled
        assert len(settled) == 16
        hung = settled.pop(HANGING_QUERY)
        assert (hung.status, hung.value) == (Status.TIMED_OUT, None)
        assert hung.failure is not None
        assert hung.timings is not None
        # While one evaluator hung, the other one answered everything else.
        assert all(item.status is Status.OK for item in settled.values())
        assert all(item.timings and item.timings.finished < hung.timings.finished for item in settled.values())

    def test_failures_have_a_reason_and_no_value(self, tmp_path: Path) -> None:
        oracle = FaultyOracleConfig(fault="bug", every=4)
        result = campaign(oracle, self.runtime(evaluators=2), queries=16).run(tmp_path / "run")
        failed = [item for item in state_of(result.run_dir).settled.values() if item.status is Status.FAILED]
        assert failed
        assert all(item.value is None and item.failure and "KeyError" in item.failure.message for item in failed)

    def test_too_many_failures_stop_the_campaign(self, tmp_path: Path) -> None:
        oracle = FaultyOracleConfig(fault="bug", every=1)
        failures = {"maximum_rate": 0.5, "window": 6}
        spoilt = campaign(oracle.model_copy(update={"fault": "bug"}), self.runtime(), failures=failures)
        with pytest.raises((BreakerError, PreflightError)):
            spoilt.run(tmp_path / "at once")
        late = self.recording(tmp_path)  # no known answer, so the failures come after the preflight
        late = _FailingLater(**late.model_dump(exclude={"kind"}))
        with pytest.raises(BreakerError, match=r"of the last 6 evaluations failed.*pilotwave resume"):
            campaign(late, self.runtime(evaluators=2), failures=failures).run(tmp_path / "run")
        state = state_of(tmp_path / "run")
        assert state.stopped == "breaker"
        assert state.spent < 24

    def test_a_wrong_known_answer_stops_it_before_anything_is_paid(self, tmp_path: Path) -> None:
        oracle = FaultyOracleConfig(fault="wrong answer")
        with pytest.raises(PreflightError, match="1003"):
            campaign(oracle, self.runtime()).run(tmp_path / "run")
        assert not (tmp_path / "run").exists()  # nothing was asked, so nothing is left

    def test_interrupted_and_resumed_it_ends_as_if_never_stopped(self, tmp_path: Path) -> None:
        runtime = self.runtime(mode="synchronous", evaluators=2)
        whole = campaign(self.recording(_made(tmp_path / "a")), runtime).run(tmp_path / "whole")
        oracle = self.recording(_made(tmp_path / "b"), delay=0.08)
        stopped = self._interrupt_after(5, campaign(oracle, runtime), tmp_path / "run")
        assert not stopped.outcome.finished
        assert state_of(stopped.run_dir).stopped == "interrupted"
        assert 5 <= stopped.outcome.spent < 24
        resumed = campaign(oracle, runtime).resume(tmp_path / "run")
        assert resumed.outcome.finished
        asked = (tmp_path / "b" / "finished").read_text().split()
        assert len(asked) == len(set(asked)) == 24
        assert answers_of(resumed.run_dir) == answers_of(whole.run_dir)
        assert_same_state(final_algorithm_state(resumed.run_dir), final_algorithm_state(whole.run_dir))

    def test_more_budget_may_be_given_but_no_other_campaign(self, tmp_path: Path) -> None:
        oracle = self.recording(tmp_path)
        campaign(oracle, self.runtime(), queries=8).run(tmp_path / "run")
        again = campaign(oracle, self.runtime(), queries=8).resume(tmp_path / "run")
        assert again.outcome.finished
        assert again.outcome.spent == 8
        more = campaign(oracle, self.runtime(), queries=13).resume(tmp_path / "run")
        assert more.outcome.spent == 13
        assert len((tmp_path / "finished").read_text().split()) == 13
        with pytest.raises(RunDirectoryError, match="belongs to another campaign"):
            campaign(oracle, self.runtime(), queries=20, seed=4).resume(tmp_path / "run")
        with pytest.raises(RunDirectoryError, match="pilotwave resume"):
            campaign(oracle, self.runtime(), queries=8).run(tmp_path / "run")

    def test_an_answer_on_disk_is_adopted_rather_than_paid_for_again(self, tmp_path: Path) -> None:
        from pilotwave.execution.receipts import write_receipt

        oracle = self.recording(tmp_path, delay=0.08)
        runtime = self.runtime(mode="synchronous", evaluators=1)
        stopped = self._interrupt_after(3, campaign(oracle, runtime), tmp_path / "run")
        state = state_of(stopped.run_dir)
        query_id = state.open_queries()[0]
        with Ledger.open(stopped.run_dir / "ledger.sqlite") as ledger:
            ledger.append(EventKind.RESERVED, {"query_id": query_id, "attempt": 1})
        known = next(iter(state.settled.values()))
        # As if a killed driver's oracle had answered and nobody had been told.
        write_receipt(stopped.run_dir / "receipts", dataclasses.replace(known, query_id=query_id))
        campaign(oracle, runtime).resume(tmp_path / "run")
        assert query_id not in (tmp_path / "finished").read_text().split()
        assert answers_of(tmp_path / "run")[query_id] == known.value

    def test_no_oracle_process_is_left_behind(self, tmp_path: Path) -> None:
        oracle = FaultyOracleConfig(fault="orphan", every=7, attempts=5, pid_file=tmp_path / "pids")
        campaign(oracle, self.runtime(evaluators=2), queries=16).run(tmp_path / "run")
        assert processes_gone(tmp_path / "pids")

    def _interrupt_after(self, spent: int, job: Campaign, run_dir: Path) -> CampaignResult:
        interrupt = threading.Event()
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                ledger = run_dir / "ledger.sqlite"
                if ledger.exists() and state_of(run_dir).spent >= spent:
                    interrupt.set()
                    return
                time.sleep(0.002)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            return job.run(run_dir, interrupt=interrupt)
        finally:
            done.set()
            watcher.join()


class _FailingLater(RecordingOracleConfig):
    """Passes its preflight, having none, and then fails every question."""

    def build(self) -> Oracle:
        return _Failing(self)


class _Failing(RecordingOracle):
    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        raise RuntimeError("out of paper")


class _HangingOnce(RecordingOracleConfig):
    """Hangs on one question and answers every other."""

    def build(self) -> Oracle:
        return _Hanging(self)


class _Hanging(RecordingOracle):
    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        if context.query_id == HANGING_QUERY:
            time.sleep(3600)
        return super().evaluate(sample, context)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


__all__ = [
    "RuntimeContract",
    "answers_of",
    "assert_same_state",
    "campaign",
    "final_algorithm_state",
    "state_of",
]
