"""The loop with an oracle that takes hours, on a clock that nobody waits for: rates, rests, limits, commands."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.config.campaign import CampaignConfig
from pilotwave.execution.control import Command
from pilotwave.execution.coordinator import Coordinator
from pilotwave.execution.job import CampaignJob, Outcome
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.runtime_contract import campaign, state_of
from pilotwave.testing.virtual_workers import Attempt, VirtualWorkers
from pilotwave.types import Failure, Status

Oracle = Callable[[EvaluationRequest], Attempt]
BROKEN_LINE = Failure("network", "the line is broken", retryable=True)
BEGIN = 1_000_000.0


def config(
    *, evaluators: int = 2, mode: str = "asynchronous", budget: dict[str, Any] | None = None, **oracle: Any
) -> CampaignConfig:
    runtime = {"kind": "inline", "evaluators": evaluators, "mode": mode}
    chosen = campaign(FaultyOracleConfig(**oracle), runtime).config
    limits = chosen.budget.model_copy(update={"queries": 16, "batch_size": 4, **(budget or {})})
    return chosen.model_copy(update={"budget": limits})


def drive(
    folder: Path, chosen: CampaignConfig, oracle: Oracle, *orders: tuple[float, str, str | None]
) -> tuple[Outcome, VirtualWorkers]:
    """Runs or resumes a campaign; orders are sent so many seconds after its begin."""
    run = RunDirectory(folder)
    if not run.exists():
        run.create(chosen)
    workers = VirtualWorkers(chosen, oracle)
    for seconds, verb, argument in orders:
        workers.at(BEGIN + seconds, lambda verb=verb, argument=argument: Command.of(verb, argument).send(run))  # type: ignore[misc]
    coordinator = Coordinator(
        CampaignJob(chosen, run.path, BEGIN), workers, lambda progress: None, threading.Event(), workers.clock
    )
    return coordinator.run(), workers


def controlled(folder: Path) -> list[tuple[str, str]]:
    with Ledger.open(folder / "ledger.sqlite", read_only=True) as ledger:
        return [
            (event.record["command"], event.record["refused"])
            for event in ledger.events()
            if event.kind is EventKind.CONTROLLED
        ]


def seconds_of(workers: VirtualWorkers) -> list[float]:
    return [moment - BEGIN for moment, _, _ in workers.asked]


def test_calls_are_spaced_evenly_whatever_the_number_of_evaluators(tmp_path: Path) -> None:
    chosen = config(evaluators=8, calls_per_minute=30.0)
    outcome, workers = drive(tmp_path / "run", chosen, lambda request: Attempt(seconds=0.3))
    gaps = [later - earlier for earlier, later in itertools.pairwise(seconds_of(workers))]
    assert outcome.spent == 16
    assert min(gaps) >= 2.0 - 1e-6
    assert max(gaps) <= 2.2


def test_cost_a_minute_is_what_attempts_cost_in_the_end(tmp_path: Path) -> None:
    chosen = config(evaluators=1, cost_per_minute=60.0)
    _, workers = drive(tmp_path / "run", chosen, lambda request: Attempt(seconds=0.1, cost=3.0))
    gaps = [later - earlier for earlier, later in itertools.pairwise(seconds_of(workers))]
    assert min(gaps) >= 3.0 - 1e-6
    assert max(gaps) <= 3.3


def test_a_question_that_rests_occupies_no_evaluator_and_is_charged_once(tmp_path: Path) -> None:
    def oracle(request: EvaluationRequest) -> Attempt:
        fails = request.query_id == "p0000-00" and request.attempt < 4
        return Attempt(cost=1.0, failure=BROKEN_LINE if fails else None)

    chosen = config(evaluators=1, attempts=4, backoff_seconds=10.0, budget={"queries": 24})
    _, workers = drive(tmp_path / "run", chosen, oracle)
    state = state_of(tmp_path / "run")
    again = [moment - BEGIN for moment, query_id, _ in workers.asked if query_id == "p0000-00"]
    rests = [later - earlier - 1.0 for earlier, later in itertools.pairwise(again)]
    assert [5 <= rests[0] <= 16, 10 <= rests[1] <= 31, 20 <= rests[2] <= 62] == [True] * 3
    # The only evaluator answered every other question meanwhile.
    assert sum(again[0] < moment - BEGIN < again[-1] for moment, _, _ in workers.asked) == 23 + 2
    assert (state.spent, state.answered, state.attempted, state.resting) == (24, 24, 3, {})
    assert state.spending.ended == 24 + 3


def test_what_is_not_retryable_is_not_tried_again(tmp_path: Path) -> None:
    chosen = config(attempts=5)
    _, workers = drive(
        tmp_path / "run",
        chosen,
        lambda request: Attempt(failure=Failure("scf", "diverged") if request.query_id == "p0000-01" else None),
    )
    assert [attempt for _, query_id, attempt in workers.asked if query_id == "p0000-01"] == [1]


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_the_cost_budget_ends_it_with_failed_attempts_counted(tmp_path: Path, mode: str) -> None:
    def oracle(request: EvaluationRequest) -> Attempt:
        fails = request.attempt == 1 and request.query_id.endswith("2")
        return Attempt(cost=2.0, failure=BROKEN_LINE if fails else None)

    chosen = config(mode=mode, budget={"cost": 15.0, "queries": 1000}, expected_cost=2.0)
    outcome, workers = drive(tmp_path / "run", chosen, oracle)
    state = state_of(tmp_path / "run")
    assert (outcome.finished, outcome.ended_by) == (True, "cost")
    assert (len(workers.asked), state.spending.ended) == (7, 14.0)
    assert (state.stopped, state.ended_by) == ("finished", "cost")
    # More cost, and it goes on where it stood, the second attempts first.
    more, _ = drive(tmp_path / "run", config(mode=mode, budget={"cost": 40.0, "queries": 12}), oracle)
    state = state_of(tmp_path / "run")
    assert (more.ended_by, state.spent, state.answered) == ("queries", 12, 12)
    assert state.spending.ended == 2.0 * (12 + state.attempted)
    assert state.attempted >= 2


def test_a_dearer_answer_than_expected_ends_it_rather_than_being_followed_by_more(tmp_path: Path) -> None:
    costs = itertools.cycle([1.0, 1.0, 6.0])
    chosen = config(evaluators=1, budget={"cost": 12.0})
    outcome, workers = drive(tmp_path / "run", chosen, lambda request: Attempt(cost=next(costs)))
    assert outcome.ended_by == "cost"
    assert len(workers.asked) == 3  # 8 is spent, and another one may cost 6


def test_paused_it_makes_and_asks_nothing_and_what_is_in_flight_settles(tmp_path: Path) -> None:
    orders = [(10.5, "pause", None), (500.0, "resume", None)]
    outcome, workers = drive(tmp_path / "run", config(), lambda request: Attempt(seconds=3.0), *orders)
    asked = seconds_of(workers)
    assert outcome.finished
    assert not [moment for moment in asked if 11.0 < moment < 500.0]
    assert len([moment for moment in asked if moment < 11.0]) == 8
    assert controlled(tmp_path / "run") == [("pause", ""), ("resume", "")]
    with Ledger.open(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger:
        kinds = [event.kind for event in ledger.events()]
    pause, resume = [index for index, kind in enumerate(kinds) if kind is EventKind.CONTROLLED]
    assert set(kinds[pause + 1 : resume]) == {EventKind.SETTLED, EventKind.TOLD}


def test_drained_it_asks_what_is_ready_and_ends_early(tmp_path: Path) -> None:
    chosen = config(budget={"queries": 400, "batch_size": 8})
    outcome, workers = drive(tmp_path / "run", chosen, lambda request: Attempt(), (1.5, "drain", None))
    state = state_of(tmp_path / "run")
    assert (outcome.finished, outcome.ended_by, state.stopped) == (True, "drain", "finished-early")
    assert len(workers.asked) == outcome.spent == 8 * len(state.proposals) < 30
    assert state.open_queries() == []
    # A resumed campaign is a new will: it goes on.
    run = RunDirectory(tmp_path / "run")
    workers = VirtualWorkers(chosen, lambda request: Attempt())
    limits = chosen.budget.model_copy(update={"queries": 40})
    job = CampaignJob(chosen.model_copy(update={"budget": limits}), run.path, BEGIN + 1)
    again = Coordinator(job, workers, lambda progress: None, threading.Event(), workers.clock).run()
    assert (again.ended_by, again.spent) == ("queries", 40)


def test_stopped_it_saves_and_is_interrupted(tmp_path: Path) -> None:
    chosen = config(budget={"queries": 400})
    outcome, _ = drive(tmp_path / "run", chosen, lambda request: Attempt(), (3.5, "stop", None))
    state = state_of(tmp_path / "run")
    assert (outcome.finished, state.stopped) == (False, "interrupted")
    assert state.spending.held == {}


@pytest.mark.parametrize("order", ["add-queries 7", "set budget.queries=23"])
def test_queries_that_are_added_survive_a_resume(tmp_path: Path, order: str) -> None:
    verb, argument = order.split()
    orders = [(2.5, verb, argument), (4.5, "stop", None)]
    stopped, _ = drive(tmp_path / "run", config(), lambda request: Attempt(), *orders)
    assert not stopped.finished
    outcome, _ = drive(tmp_path / "run", config(), lambda request: Attempt())
    assert (outcome.ended_by, outcome.spent) == ("queries", 23)


def test_a_budget_below_what_is_spent_ends_it_without_one_more_question(tmp_path: Path) -> None:
    chosen = config(budget={"queries": 400})
    orders = [(5.5, "set", "budget.queries=3")]
    outcome, workers = drive(tmp_path / "run", chosen, lambda request: Attempt(), *orders)
    assert outcome.ended_by == "queries"
    assert max(seconds_of(workers)) <= 5.8


def test_more_cost_sets_free_what_was_refused(tmp_path: Path) -> None:
    chosen = config(evaluators=3, budget={"cost": 9.0, "queries": 12})
    slow = {"p0001-00": 50.0}
    orders = [(30.0, "set", "budget.cost=20")]
    outcome, workers = drive(
        tmp_path / "run", chosen, lambda request: Attempt(seconds=slow.get(request.query_id, 1.0)), *orders
    )
    assert outcome.ended_by == "queries"
    assert len([moment for moment in seconds_of(workers) if moment < 30]) == 9
    assert outcome.spent == 12


def test_a_command_is_obeyed_once_and_nonsense_is_refused(tmp_path: Path) -> None:
    chosen = config()
    run = RunDirectory(tmp_path / "run")
    run.create(chosen)
    command = Command.of("add-queries", "2")
    first = command.send(run)
    copy = first.with_name("9" + first.name[1:])
    copy.write_bytes(first.read_bytes())
    (run.control / "5-nonsense.json").write_text("[1, 2")
    Command("old", "stop", "", BEGIN - 5).send(run)
    outcome, _ = drive(tmp_path / "run", chosen, lambda request: Attempt())
    assert outcome.spent == 18
    refused = [(verb, bool(why)) for verb, why in controlled(tmp_path / "run")]
    assert sorted(refused) == [("", True), ("add-queries", False), ("stop", True)]
    assert list(run.control.iterdir()) == []


def test_a_learned_limit_is_doubled_once_for_a_question_that_runs_into_it(tmp_path: Path) -> None:
    slow = {"p0003-01": 60.0, "p0004-02": 5000.0}
    chosen = config(evaluators=1, time_limit="auto", attempts=1, budget={"queries": 32})
    outcome, workers = drive(
        tmp_path / "run", chosen, lambda request: Attempt(seconds=slow.get(request.query_id, 10.0))
    )
    settled = state_of(tmp_path / "run").settled
    assert outcome.spent == 32
    # 40 s is four times the usual 10 s; with twice that the first is answered and the other one is not.
    assert (settled["p0003-01"].status, settled["p0003-01"].attempt) == (Status.OK, 2)
    lost = settled["p0004-02"]
    assert (lost.status, lost.attempt) == (Status.TIMED_OUT, 2)
    assert lost.timings is not None
    assert 80.0 <= lost.timings.seconds <= 480.0
    assert workers.now - BEGIN < 3600.0


def test_a_fixed_limit_is_the_users_word(tmp_path: Path) -> None:
    chosen = config(time_limit=20.0, attempts=5)
    slow = {"p0001-01": 60.0}
    _, workers = drive(tmp_path / "run", chosen, lambda request: Attempt(seconds=slow.get(request.query_id, 10.0)))
    assert [attempt for _, query_id, attempt in workers.asked if query_id == "p0001-01"] == [1]
