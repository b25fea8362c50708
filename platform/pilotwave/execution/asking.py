"""The questions of a campaign on their way to the oracle: which wait, which rest after a failure, which are asked.

It decides when a question is asked: within the budget, no faster than the rate limits, after its rest, with the
time limit that was learned. What a driver forgets when it is killed is read back from the ledger. May import the
modules beside it, :mod:`pilotwave.archive` and :mod:`pilotwave.config`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pilotwave.archive.ledger import EventKind
from pilotwave.archive.spending import DEFAULT_COST
from pilotwave.config.campaign import CampaignConfig
from pilotwave.execution.archiving import Archiving
from pilotwave.execution.backoff import rest_seconds
from pilotwave.execution.budgets import Budgets
from pilotwave.execution.forecasting import RecentTimes, evenly, foreseen
from pilotwave.execution.memory import CampaignMemory
from pilotwave.execution.pacing import RateLimits
from pilotwave.execution.time_limits import LearnedLimit
from pilotwave.execution.workers import EvaluationRequest, Workers
from pilotwave.types import Evaluation, Status

LATELY = 16
"""So many events per evaluator are read back to know how long attempts take, where nothing else needs them all."""


@dataclass(frozen=True)
class Asked:
    """An attempt in progress.

    Attributes:
        cost: What it is expected to cost.
        limit: Its learned time limit in seconds, or None if the limit is fixed.
        since: When it was handed over, seconds since the epoch.
    """

    cost: float
    limit: float | None
    since: float


class Asking:
    """The questions of one driver.

    Args:
        config: Of the campaign.
        memory: Where each attempt is written down before it is made.
        workers: Who asks.
        budgets: What may be spent.
        archiving: Where answers may be known already, or None.
        note: Told of what is tried again.

    Attributes:
        ready: Feasible candidates that may be asked about, in order.
        in_flight: Those that are being asked about.
    """

    def __init__(
        self,
        config: CampaignConfig,
        memory: CampaignMemory,
        workers: Workers,
        budgets: Budgets,
        archiving: Archiving | None,
        note: Callable[[str], None],
    ) -> None:
        self.ready: deque[str] = deque()
        self.in_flight: dict[str, Asked] = {}
        self._oracle = oracle = config.oracle
        self._most, self._batch_size = config.runtime.evaluators, config.budget.batch_size
        self._seed = config.seed
        self._memory = memory
        self._workers = workers
        self._budgets = budgets
        self._archiving = archiving
        self._note = note
        self._resting: list[tuple[float, str]] = []
        self._refused: deque[str] = deque()
        self._attempt: dict[str, int] = {}
        self._asked_before: set[str] = set()
        self._rates = RateLimits(oracle.calls_per_minute, oracle.cost_per_minute)
        self._limit = LearnedLimit(oracle.time_limit_cap) if oracle.time_limit == "auto" else None
        self._longer: dict[str, float] = {}
        self._took = RecentTimes()

    def restore(self) -> None:
        """Takes up the questions that an earlier driver left, its rates and what it had learned of the time."""
        state = self._memory.state
        self.ready.extend(state.open_queries())
        for query_id in self.ready:
            if query_id in state.reserved:
                again = query_id in state.resting
                self._attempt[query_id] = state.resting[query_id] + 1 if again else state.reserved[query_id]
        self._asked_before.update(query_id for query_id in self.ready if query_id in state.reserved)
        everything = self._rates.are_limited or self._limit is not None
        asked: dict[str, Asked] = {}
        for event in self._memory.events(None if everything else LATELY * self._workers.evaluators):
            record = event.record
            if event.kind is EventKind.RESERVED:
                item = asked[record["query_id"]] = Asked(
                    record.get("cost", DEFAULT_COST), record.get("time_limit"), event.time
                )
                self._rates.begin(event.time, item.cost)
            elif event.kind in (EventKind.ATTEMPTED, EventKind.SETTLED):
                evaluation, before = event.evaluation(), asked.pop(record["query_id"], None)
                self._learn(evaluation, before)
                if before is not None:
                    self._took.add(event.time - before.since)
                self._may_take_longer(evaluation, None if before is None else before.limit)

    def forget_settled(self) -> None:
        """Lets go of questions that were answered by a receipt after all."""
        self.ready = deque(query_id for query_id in self.ready if query_id not in self._memory.state.settled)
        self._asked_before.intersection_update(self.ready)

    @property
    def resting(self) -> int:
        """How many questions rest after a failure."""
        return len(self._resting)

    @property
    def waiting(self) -> bool:
        """Whether a question waits, for whatever reason."""
        return bool(self.ready or self._resting or self._refused)

    def can_go_on(self) -> bool:
        """Says whether a question is being asked, or waits and the budget allows it."""
        if self.in_flight:
            return True
        again = next(iter(self._asked_before), None)  # whether a question may be asked depends on that alone
        if again is not None and not self._budgets.refusal(again):
            return True
        return self._new > 0 and not self._budgets.refusal()

    def left(self, on_the_way: int) -> int:
        """Returns how many new questions may still be thought of.

        Args:
            on_the_way: How many candidates are being made.
        """
        return self._budgets.left(self._new + on_the_way, self._asked_before)

    def seconds_until_due(self) -> float:
        """Returns after how long :meth:`ask` may have more to do, without any event."""
        now = self._budgets.clock()
        due = [self._resting[0][0] - now] if self._resting else []
        if self.ready and len(self.in_flight) < self._workers.evaluators:
            due.append(self._rates.seconds_until_free(now))
        return max(0.0, min(due, default=float("inf")))

    def wanted_within(self, seconds: float) -> float | None:
        """Returns for how many candidates the evaluators will have room within some seconds, cautiously.

        Rates count: what may not be asked yet is not wanted yet. A pool that may still grow wants a batch to grow
        with, since only questions that wait make it grow. None while no attempt has ended.
        """
        if not self._took:
            return None
        now, busy = self._budgets.clock(), len(self.in_flight)
        looked_at = evenly(self.in_flight.values(), busy)
        demand = foreseen(self._took, [now - asked.since for asked in looked_at], busy, seconds)
        idle = max(0, self._workers.evaluators - busy)
        growth = min(max(0, self._most - self._workers.evaluators), self._batch_size)
        allowed = self._rates.allowed_within(now, seconds, self._budgets.expected_cost)
        return min(allowed, idle + growth + demand.cautious)

    def at_hand_within(self, seconds: float) -> int:
        """Returns how many questions are ready, or will have rested, within some seconds."""
        until = self._budgets.clock() + seconds
        return len(self.ready) + sum(due <= until for due, _ in self._resting)

    def backlog(self) -> int:
        """Returns how many questions wait for nothing but an evaluator."""
        return 0 if self._rates.seconds_until_free(self._budgets.clock()) > 0 else len(self.ready)

    def ask(self) -> int:
        """Asks as many questions as may be asked now, as soon as that is written down.

        Returns:
            How many were answered from the archive.
        """
        reused = 0
        now = self._budgets.clock()
        while self._resting and self._resting[0][0] <= now:
            self.ready.append(heapq.heappop(self._resting)[1])
        while self.ready and len(self.in_flight) < self._workers.evaluators:
            if self._rates.seconds_until_free(now) > 0:
                break
            query_id = self.ready.popleft()
            near = None
            if self._archiving is not None and query_id not in self._memory.state.reserved:
                recalled = self._archiving.recall(self._memory.candidates[query_id])
                if recalled.evaluation is not None:
                    self._memory.settle(recalled.evaluation, recalled.saved_cost)
                    reused += 1
                    continue
                near = recalled.near
            if self._budgets.refusal(query_id):
                self._refused.append(query_id)
                continue
            self._asked_before.discard(query_id)
            candidate, attempt = self._memory.candidates[query_id], self._attempt.pop(query_id, 1)
            assert candidate.sample is not None, "only feasible candidates are ready"
            cost, limit = self._budgets.expected_cost, self._limit_of(query_id)
            self._memory.reserve(query_id, attempt, cost, near=near, time_limit=limit)
            self._rates.begin(now, cost)
            self.in_flight[query_id] = Asked(cost, limit, now)
            request = EvaluationRequest(query_id, candidate.sample, attempt, limit)
            self._memory.once_written(partial(self._workers.evaluate, request))
        return reused

    def ended(self, evaluation: Evaluation) -> bool:
        """Takes note of how an attempt ended; returns whether there will be another one, which is then arranged."""
        query_id = evaluation.query_id
        asked = self.in_flight.pop(query_id, None)
        if asked is not None:
            self._took.add(self._budgets.clock() - asked.since)
        self._learn(evaluation, asked)
        self.reconsider()
        pause = self._pause(evaluation, None if asked is None else asked.limit)
        if pause is None:
            self._longer.pop(query_id, None)
            return False
        failure = evaluation.failure
        assert failure is not None
        self._memory.attempted(evaluation)
        self._attempt[query_id] = evaluation.attempt + 1
        self._asked_before.add(query_id)
        heapq.heappush(self._resting, (self._budgets.clock() + pause, query_id))
        when = f"in {pause:.1f} s" if pause else "with a longer limit"
        self._note(f"{query_id}: {failure.stage}: {failure.message}; tried again {when}")
        return True

    def reconsider(self) -> None:
        """Looks anew at what the budget did not allow: an attempt cost less than it held, or more was given."""
        self.ready.extendleft(reversed(self._refused))
        self._refused.clear()

    @property
    def _new(self) -> int:
        """How many questions wait that were never asked."""
        return len(self.ready) + len(self._resting) + len(self._refused) - len(self._asked_before)

    def _limit_of(self, query_id: str) -> float | None:
        if self._limit is None:
            return None
        return max(self._longer.get(query_id, 0.0), self._limit.seconds)

    def _pause(self, evaluation: Evaluation, limit: float | None) -> float | None:
        """Returns after how many seconds the question is asked again, or None if this is its end."""
        query_id, failure = evaluation.query_id, evaluation.failure
        if evaluation.status is Status.OK or failure is None:
            return None
        if self._may_take_longer(evaluation, limit):
            return 0.0
        allowed = self._oracle.attempts + (query_id in self._longer)
        if failure.retryable and evaluation.attempt < allowed:
            return rest_seconds(self._oracle.backoff_seconds, self._seed, query_id, evaluation.attempt)
        return None

    def _may_take_longer(self, evaluation: Evaluation, limit: float | None) -> bool:
        """Gives a question that ran into a learned limit a longer one, once; a fixed limit is the user's word."""
        query_id = evaluation.query_id
        ran_into_it = evaluation.status is Status.TIMED_OUT and query_id not in self._longer
        if not ran_into_it or self._limit is None or limit is None or limit >= self._oracle.time_limit_cap:
            return False
        self._longer[query_id] = self._limit.after_timeout(limit)
        return True

    def _learn(self, evaluation: Evaluation, asked: Asked | None) -> None:
        if asked is not None:
            self._rates.end(evaluation.cost, asked.cost)
        if self._limit is None or evaluation.timings is None or evaluation.reused_from is not None:
            return
        if evaluation.status is Status.OK:
            self._limit.answered(evaluation.timings.seconds)
        elif evaluation.status is Status.TIMED_OUT:
            self._limit.timed_out(evaluation.timings.seconds)


__all__ = ["Asking"]
