"""When the loop proposes, on a virtual clock: evaluators never wait for a model that could work; no queue ages."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.errors import InfrastructureError
from pilotwave.execution.coordinator import Coordinator
from pilotwave.execution.generation import generate_candidates
from pilotwave.execution.job import CampaignJob
from pilotwave.execution.workers import GenerationFailed, GenerationRequest
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.queue_measures import QueueMeasures, measure_queue
from pilotwave.testing.small_campaign import campaign, state_of
from pilotwave.testing.virtual_workers import Attempt, VirtualWorkers

BEGIN = 1_000_000.0


def drive(
    folder: Path,
    oracle_seconds: Callable[[], float],
    model_seconds: float,
    *,
    workers: type[VirtualWorkers] = VirtualWorkers,
    runtime: dict[str, Any] | None = None,
    calls_per_minute: float | None = None,
    queries: int = 96,
    batch_size: int = 8,
) -> VirtualWorkers:
    """Runs a campaign, or resumes it."""
    chosen = campaign(
        FaultyOracleConfig(calls_per_minute=calls_per_minute, time_limit=1e9),
        {"kind": "inline", "evaluators": 8, **(runtime or {})},
        queries=queries,
        batch_size=batch_size,
        algorithm={"kind": "random"},
    ).config
    run = RunDirectory(folder)
    if not run.exists():
        run.create(chosen)
    at_work = workers(chosen, lambda request: Attempt(oracle_seconds()), lambda request: model_seconds, BEGIN)
    job = CampaignJob(chosen, run.path, BEGIN)
    Coordinator(job, at_work, lambda progress: None, threading.Event(), at_work.clock).run()
    assert state_of(folder).spent == queries
    return at_work


def measured(folder: Path, evaluators: int = 8) -> QueueMeasures:
    return measure_queue(folder, evaluators)


def lognormal(mean: float) -> Callable[[], float]:
    chance = random.Random(0)
    return lambda: mean * chance.lognormvariate(-0.5, 1.0)


def most_in_the_making(folder: Path) -> int:
    at_once = most = 0
    with Ledger.open(folder / "ledger.sqlite", read_only=True) as ledger:
        for event in ledger.events():
            at_once += (event.kind is EventKind.ASKED) - (event.kind is EventKind.GENERATED)
            most = max(most, at_once)
    return most


@pytest.mark.parametrize("oracle_seconds", [lognormal(60.0), lambda: 60.0], ids=["one by one", "in lockstep"])
def test_a_slow_oracle_is_asked_about_fresh_candidates(tmp_path: Path, oracle_seconds: Callable[[], float]) -> None:
    drive(tmp_path / "run", oracle_seconds, 2.0)
    found = measured(tmp_path / "run")
    assert found.idle_share < 0.01
    # Within a batch of 8 it is 3.5 answers at least; a queue of one for every evaluator made it 8 more.
    assert found.staleness < 7.5
    assert found.longest <= 16


def test_a_fast_oracle_does_not_wait_for_a_model_that_could_keep_up(tmp_path: Path) -> None:
    drive(tmp_path / "run", lambda: 0.5, 2.0, queries=400, batch_size=50)
    found = measured(tmp_path / "run")
    assert found.idle_share < 0.05
    assert found.longest <= 8 + 2 * 50


def test_as_many_copies_of_a_slow_model_work_as_are_needed(tmp_path: Path) -> None:
    # Four evaluators take two candidates a second; a copy makes 8 in 8 seconds.
    four = {"evaluators": 4, "generators": 4}
    drive(tmp_path / "four", lambda: 2.0, 8.0, runtime=four, queries=160)
    drive(tmp_path / "one", lambda: 2.0, 8.0, runtime={**four, "generators": 1}, queries=160)
    rates = [measured(tmp_path / name, 4).per_minute for name in ("four", "one")]
    assert 100 <= rates[0] <= 120
    assert 50 <= rates[1] <= 62
    assert [most_in_the_making(tmp_path / name) for name in ("four", "one")] == [4, 1]


def test_copies_that_are_not_needed_rest(tmp_path: Path) -> None:
    drive(tmp_path / "run", lognormal(60.0), 2.0, runtime={"generators": 8})
    assert most_in_the_making(tmp_path / "run") <= 2
    assert measured(tmp_path / "run").staleness < 7.5


def test_a_rate_limit_keeps_the_queue_short(tmp_path: Path) -> None:
    drive(tmp_path / "run", lambda: 1.0, 2.0, calls_per_minute=6.0)
    found = measured(tmp_path / "run")
    assert found.per_minute == pytest.approx(6.0, rel=0.01)
    assert found.staleness < 7.5


def test_a_synchronous_campaign_has_one_proposal_at_a_time(tmp_path: Path) -> None:
    drive(tmp_path / "run", lambda: 1.0, 2.0, runtime={"generators": 4, "mode": "synchronous"})
    assert most_in_the_making(tmp_path / "run") == 1
    assert measured(tmp_path / "run").longest == 8


class LosingTwice(VirtualWorkers):
    """Loses the worker of every third proposal, twice; the others go on."""

    def generate(self, request: GenerationRequest) -> None:
        number = request.proposal.number
        lost: dict[int, int] = self.__dict__.setdefault("lost", {})
        if number % 3 == 0 and lost.get(number, 0) < 2:
            lost[number] = lost.get(number, 0) + 1
            self._push(self.now + 1.0, GenerationFailed(number, "killed", retryable=True))
        else:
            super().generate(request)


class Breaking(VirtualWorkers):
    """Its model fails on the seventh proposal, after a while."""

    def generate(self, request: GenerationRequest) -> None:
        if request.proposal.number >= 6:
            failed = GenerationFailed(request.proposal.number, "RuntimeError: no", retryable=False)
            self._push(self.now + 6.0, failed)
        else:
            super().generate(request)


def test_a_lost_generator_costs_its_proposal_s_repetition(tmp_path: Path) -> None:
    workers = drive(
        tmp_path / "run", lambda: 2.0, 8.0, workers=LosingTwice, runtime={"evaluators": 4, "generators": 4}
    )
    assert sum(workers.__dict__["lost"].values()) >= 6
    assert len({query_id for _, query_id, _ in workers.asked}) == len(workers.asked) == 96


@pytest.mark.parametrize("generators", [1, 4])
def test_proposals_in_the_making_outlive_their_driver(
    tmp_path: Path, generators: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was saved meanwhile: a checkpoint that was written after one was thought of does not contain it."""
    monkeypatch.setattr("pilotwave.execution.checkpoints.SHARE", 1.0)  # after every proposal
    run, runtime = tmp_path / "run", {"evaluators": 4, "generators": generators}
    with pytest.raises(InfrastructureError, match="failed on proposal 6: RuntimeError: no"):
        drive(run, lambda: 0.5, 8.0, workers=Breaking, runtime=runtime)
    left = [number for number, item in state_of(run).proposals.items() if not item.generated]
    assert left[0] <= 6 <= left[-1]
    saved = max(int(path.stem) for path in (run / "checkpoints").glob("*.pt"))
    assert saved > thought_of(run)[left[0]]
    drive(run, lambda: 0.5, 8.0, runtime={**runtime, "generators": 1})
    proposals = state_of(run).proposals.values()
    assert all(item.generated for item in proposals)
    assert sum(item.count for item in proposals) == 96
    assert len(list((run / "checkpoints").glob("*.pt"))) == 2


def thought_of(folder: Path) -> dict[int, int]:
    with Ledger.open(folder / "ledger.sqlite", read_only=True) as ledger:
        events = [event for event in ledger.events() if event.kind is EventKind.ASKED]
    return {event.record["proposal"]: event.sequence for event in events}


class MakingTheSame(VirtualWorkers):
    """Every odd proposal comes to the same samples as the one before, which is made at the same time."""

    def generate(self, request: GenerationRequest) -> None:
        twin = dataclasses.replace(request.proposal, number=request.proposal.number // 2 * 2)
        same = generate_candidates(
            self._backbone, [], dataclasses.replace(request, proposal=twin, known=frozenset())
        )
        number = request.proposal.number
        candidates = tuple(
            dataclasses.replace(item, proposal=number, query_id=f"p{number:04d}-{item.query_id.split('-')[1]}")
            for item in same.candidates
        )
        feasible = tuple(item.query_id for item in candidates)
        self._push(
            self.now + 8.0, dataclasses.replace(same, proposal=number, candidates=candidates, feasible=feasible)
        )


def test_what_two_generators_come_to_at_once_is_asked_about_once(tmp_path: Path) -> None:
    drive(tmp_path / "run", lambda: 0.5, 8.0, workers=MakingTheSame, runtime={"generators": 2})
    state = state_of(tmp_path / "run")
    assert [len(item.query_ids) for item in state.proposals.values()][:4] == [8, 0, 8, 0]
    assert state.infeasible >= 8


class EndedForMemory(VirtualWorkers):
    """A worker that has to make more than one sample at a time is ended, because memory runs short."""

    def generate(self, request: GenerationRequest) -> None:
        if request.together == 1:
            super().generate(request)
        else:
            self.__dict__.setdefault("tried", []).append(request.together)
            failed = GenerationFailed(request.proposal.number, "low on memory", retryable=True, out_of_memory=True)
            self._push(self.now + 1.0, failed)


def test_a_worker_that_is_ended_for_memory_is_given_half_as_much(tmp_path: Path) -> None:
    workers = drive(tmp_path / "run", lambda: 2.0, 8.0, workers=EndedForMemory, queries=48, batch_size=16)
    assert workers.__dict__["tried"] == [None, 8, 4, 2]
    assert state_of(tmp_path / "run").together == 1
    again = drive(tmp_path / "run", lambda: 2.0, 8.0, workers=EndedForMemory, queries=64, batch_size=16)
    assert "tried" not in again.__dict__


class Elastic(VirtualWorkers):
    """A pool of two evaluators that grows, once rates are known, with the questions that wait, up to eight."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.evaluators = 2

    def backlog(self, waiting: int) -> None:
        if len(self.asked) > 10:
            self.evaluators = max(self.evaluators, min(8, self.in_flight + waiting))


def test_an_elastic_pool_is_given_something_to_grow_with(tmp_path: Path) -> None:
    workers = drive(tmp_path / "run", lambda: 60.0, 2.0, workers=Elastic, batch_size=2, queries=64)
    assert workers.evaluators == 8
    assert measured(tmp_path / "run").longest <= 8 + 2 * 2
