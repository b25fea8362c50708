"""Budgets under any interleaving: asked, answered, failed, tried again, killed and read back, given more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pilotwave.archive.ledger import Event, EventKind
from pilotwave.archive.records import evaluation_to_json
from pilotwave.archive.spending import GivenLimits, Limits, Spending
from pilotwave.archive.state import CampaignState
from pilotwave.execution.budgets import Budgets
from pilotwave.types import Evaluation, Failure, Status, Timings

DEAREST = 3.0


def ended(query_id: str, cost: float, *, ok: bool = True, attempt: int = 1) -> dict[str, Any]:
    failure = None if ok else Failure("network", "gone", retryable=True)
    status = Status.OK if ok else Status.FAILED
    timings = Timings(0.0, 1.0)
    evaluation = Evaluation(query_id, status, 1.0 if ok else None, attempt, cost, timings=timings, failure=failure)
    return evaluation_to_json(evaluation)


class Campaign(RuleBasedStateMachine):
    """A campaign whose oracle says that an attempt costs at most three, and keeps to it."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.now = 1000.0
        self.launched = 0.0
        self.first = Limits(queries=6, cost=9.5, wall_hours=0.1)
        self.billed = 0.0
        self.asked: set[str] = set()
        self.flying: dict[str, int] = {}
        self.again: dict[str, int] = {}
        self.working = 0.0
        self.state = CampaignState()
        self.begin(self.first)

    def begin(self, limits: Limits) -> None:
        self.state = CampaignState.of(self.events)
        self.launched += 1.0
        self.budgets = Budgets(self.state, limits, DEAREST, self.launched, lambda: self.now)
        self.write(EventKind.STARTED, {"given": limits.to_json(), "launched": self.launched})
        self.flying = {}

    def write(self, kind: EventKind, record: dict[str, Any]) -> None:
        self.events.append(Event(len(self.events) + 1, self.now, kind, record))
        self.state.apply(self.events[-1])

    @rule(seconds=st.floats(0.0, 60.0), billed=st.floats(0.0, DEAREST))
    def ask_something_new(self, seconds: float, billed: float) -> None:
        self.pass_time(seconds)
        query_id = f"q{len(self.asked)}"
        if not self.budgets.refusal(query_id):
            self.reserve(query_id, 1, billed)

    @precondition(lambda self: self.again)
    @rule(billed=st.floats(0.0, DEAREST))
    def ask_again(self, billed: float) -> None:
        query_id = min(self.again)
        if not self.budgets.refusal(query_id):
            self.reserve(query_id, self.again.pop(query_id), billed)

    def reserve(self, query_id: str, attempt: int, billed: float) -> None:
        assert self.budgets.active_seconds() < (self.budgets.limits.wall_hours or 1e9) * 3600.0
        cost = self.budgets.expected_cost
        self.write(EventKind.RESERVED, {"query_id": query_id, "attempt": attempt, "cost": cost})
        self.asked.add(query_id)
        self.flying[query_id] = attempt
        self.billed += billed  # the oracle sends its bill whether or not anybody hears the answer
        self.bill = {**getattr(self, "bill", {}), query_id: billed}

    @precondition(lambda self: self.flying)
    @rule()
    def an_answer_comes(self) -> None:
        query_id, attempt = self.flying.popitem()
        self.write(EventKind.SETTLED, ended(query_id, self.bill[query_id], attempt=attempt))

    @precondition(lambda self: self.flying)
    @rule()
    def an_attempt_fails(self) -> None:
        query_id, attempt = self.flying.popitem()
        self.write(EventKind.ATTEMPTED, ended(query_id, self.bill[query_id], ok=False, attempt=attempt))
        self.again[query_id] = attempt + 1

    @rule(seconds=st.floats(0.0, 1000.0))
    def killed_and_resumed(self, seconds: float) -> None:
        self.again |= self.flying  # nobody knows what became of them
        self.now += seconds  # nobody is at work
        self.begin(self.first)

    @rule(seconds=st.floats(0.0, 100.0))
    def pause(self, seconds: float) -> None:
        self.write(EventKind.CONTROLLED, {"id": f"{len(self.events)}", "command": "pause", "argument": ""})
        self.now += seconds
        self.write(EventKind.CONTROLLED, {"id": f"{len(self.events)}", "command": "resume", "argument": ""})

    @rule(queries=st.integers(0, 2), cost=st.floats(0.0, 4.0))
    def more_is_given(self, queries: int, cost: float) -> None:
        now = self.budgets.limits
        more = Limits(now.queries + queries, (now.cost or 0.0) + cost, now.wall_hours)
        record = {"id": f"{len(self.events)}", "command": "set", "argument": "", "limits": more.to_json()}
        self.write(EventKind.CONTROLLED, record)
        assert self.budgets.limits == more

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def never_overspent(self) -> None:
        limits = self.budgets.limits
        assert limits.cost is not None
        assert self.state.spent == len(self.asked) <= limits.queries
        assert self.billed <= self.state.spending.committed + 1e-9
        assert self.state.spending.committed <= limits.cost + 1e-6

    @invariant()
    def a_new_reader_counts_the_same(self) -> None:
        again = CampaignState.of(self.events)
        assert again.spending == self.state.spending
        assert again.limits == self.state.limits
        assert (again.spent, again.active_seconds) == (self.state.spent, self.state.active_seconds)

    @invariant()
    def what_may_be_thought_of_may_be_asked(self) -> None:
        left = self.budgets.left(0)
        assert (left == 0) == bool(self.budgets.refusal())
        assert self.state.spent + left <= self.budgets.limits.queries


TestCampaign = Campaign.TestCase
TestCampaign.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_sum_of_tenths_fits_its_limit_exactly() -> None:
    spending, made = Spending(), 0
    while spending.affords(1, 1.0, declared=0.1):
        spending.reserve(f"{made}", 0.1)
        spending.end(f"{made}", 0.1)
        made += 1
    assert made == 10


@given(limit=st.floats(0.1, 1e4), costs=st.lists(st.floats(0.01, 10.0), max_size=20))
def test_the_dearest_attempt_so_far_is_what_the_next_one_is_taken_to_cost(limit: float, costs: list[float]) -> None:
    spending = Spending()
    for number, cost in enumerate(costs):
        spending.reserve(f"{number}", 0.0)
        spending.end(f"{number}", cost)
    assert spending.expected() == (max(costs) if costs else 1.0)
    count = spending.affordable(limit)
    assert count is not None
    assert count == 0 or spending.affords(count, limit)
    assert not spending.affords(count + 1, limit) or spending.ended > limit


def test_a_failure_that_never_reached_the_oracle_does_not_make_attempts_free() -> None:
    spending = Spending()
    spending.reserve("a", 1.0)
    spending.end("a", 0.0)
    assert (spending.ended, spending.expected()) == (0.0, 1.0)


def test_a_lost_attempt_is_paid_for() -> None:
    spending = Spending()
    spending.reserve("a", 2.0)
    spending.reserve("a", 2.0)
    spending.end("a", 1.5)
    assert (spending.ended, spending.held) == (3.5, {})


@pytest.mark.parametrize(
    ("given_now", "then"),
    [(24, 34), (40, 40), (34, 34)],
    ids=["the file's value keeps what was added", "a new value wins", "the value that holds"],
)
def test_what_was_added_survives_a_resume_unless_a_new_value_is_given(given_now: int, then: int) -> None:
    known = GivenLimits()
    known.start(Limits(24, cost=5.0))
    known.now = Limits(34, cost=7.0)
    assert known.after(Limits(given_now, cost=5.0)) == Limits(then, cost=7.0)


def test_an_optimizer_that_is_made_again_keeps_what_was_added_after_an_override() -> None:
    known = GivenLimits()
    known.start(Limits(24))
    known.start(Limits(40))
    known.now = Limits(45)
    known.start(Limits(40))
    assert known.now == Limits(45)
    known.start(Limits(24))
    assert known.now == Limits(45)
