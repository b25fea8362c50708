"""A run as somebody sees it who looks at its ledger again and again: what waits, how fast it goes, how long yet.

It only reads, and only what is new. May import :mod:`pilotwave.archive`, :mod:`pilotwave.config` and
:mod:`pilotwave.report`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pilotwave.archive.ledger import Event, EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.running_state import RunningState
from pilotwave.archive.spending import SECONDS_PER_HOUR, Limits
from pilotwave.types import Evaluation, Status

RATE_SECONDS = 300.0
"""The rates are those of the last so many seconds."""
SHORTEST_SECONDS = 1.0
"""No rate is taken over less."""


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment.

    Attributes:
        name: The campaign's.
        status: ``"starting"``, ``"running"``, ``"paused"``, ``"draining"``, ``"saving"``, or how it ended.
        at_work: Whether a driver is at work.
        ended_by: The budget that ended it, ``"drain"``, ``"archive"``, or empty.
        sequence: Of the last event.
        spent: Queries for which the oracle was asked.
        queries: The budget for that.
        cost: Of all attempts that ended, in the oracle's unit.
        cost_held: Expected of those in flight.
        cost_limit: The budget for both, or None.
        active_seconds: For how long drivers were at work, pauses not counted.
        wall_limit: The budget for that in seconds, or None.
        queries_per_minute: Of late.
        cost_per_minute: Of late.
        evaluators: How many there are.
        in_flight: Questions that are being asked.
        ready: Candidates that wait to be asked about.
        resting: Questions that failed and will be asked again.
        generating: Proposals whose candidates are being made.
        answered: With a value.
        failed: Paid for, without a value.
        infeasible: Made, never asked about.
        reused: Answered from a project archive.
        saved_cost: What those answers had cost.
        repeated: Attempts that failed and were repeated.
        failures: How many attempts failed, by stage.
        best: The best value, or None.
        best_label: What it belongs to.
        unit: The oracle's.
        seconds_left: Until the first budget is spent at the present rate, or None.
        last_event: When, seconds since the epoch, or None.
    """

    name: str
    status: str
    at_work: bool
    ended_by: str
    sequence: int
    spent: int
    queries: int
    cost: float
    cost_held: float
    cost_limit: float | None
    active_seconds: float
    wall_limit: float | None
    queries_per_minute: float
    cost_per_minute: float
    evaluators: int
    in_flight: int
    ready: int
    resting: int
    generating: int
    answered: int
    failed: int
    infeasible: int
    reused: int
    saved_cost: float
    repeated: int
    failures: Mapping[str, int] = field(default_factory=dict)
    best: float | None = None
    best_label: str = ""
    unit: str = ""
    seconds_left: float | None = None
    last_event: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns it for programs."""
        return asdict(self)


class RunWatch:
    """Looks at one run.

    Args:
        run_dir: Its directory.
        clock: Seconds since the epoch.

    Raises:
        RunDirectoryError: There is no run here, or its campaign file was changed.
    """

    def __init__(self, run_dir: Path, clock: Callable[[], float] = time.time) -> None:
        self._run = RunDirectory(run_dir)
        self._config = self._run.config()
        self._clock = clock
        self._state = RunningState()
        self._since: float | None = None
        self._paid: deque[tuple[float, float, bool]] = deque()
        self._failures: Counter[str] = Counter()
        self._best: tuple[float, str] | None = None
        self._best_label = ""
        self._unit = ""
        self._saw_it_run = False

    def look(self) -> Snapshot:
        """Reads what is new and says how the run is.

        Raises:
            StorageError: The ledger cannot be read.
        """
        at_work = self._run.is_locked() or self._run.is_written()  # first: what it wrote before it ended is seen
        best = self._best
        with Ledger.open(self._run.ledger_file, read_only=True) as ledger:
            for event in ledger.events(self._state.sequence):
                self._state.follow(event)
                self._note(event)
            if self._best is not None and self._best != best:
                sample = ledger.candidate(self._best[1]).sample
                self._best_label = "" if sample is None else sample.label()
        return self._snapshot(at_work)

    def _note(self, event: Event) -> None:
        if event.kind is EventKind.STARTED:
            self._since = event.time
            self._paid.clear()
            self._unit = event.record.get("facts", {}).get("unit", self._unit)
        elif event.kind in (EventKind.ATTEMPTED, EventKind.SETTLED):
            evaluation = event.evaluation()
            if evaluation.failure is not None:
                self._failures[evaluation.failure.stage] += 1
            if evaluation.reused_from is None:
                self._paid.append((event.time, evaluation.cost, event.kind is EventKind.SETTLED))
            self._consider(evaluation)

    def _consider(self, evaluation: Evaluation) -> None:
        value, best = evaluation.value, self._best
        better = self._config.objective.is_better
        if (
            evaluation.status is Status.OK
            and value is not None
            and better(value, None if best is None else best[0])
        ):
            self._best = (value, evaluation.query_id)

    def _snapshot(self, at_work: bool) -> Snapshot:
        state, now = self._state, self._clock()
        limits = state.limits.now or self._config.budget.limits
        waiting = state.open_queries()
        ready = [query_id for query_id in waiting if query_id not in state.reserved]
        status = self._status(at_work)
        running = status in ("running", "draining")
        active = state.active_seconds
        if running and state.last_time is not None:
            active += max(0.0, now - state.last_time)
        queries_rate, cost_rate = self._rates(now) if running else (0.0, 0.0)
        return Snapshot(
            name=self._config.name,
            status=status,
            at_work=at_work,
            ended_by=state.ended_by,
            sequence=state.sequence,
            spent=state.spent,
            queries=limits.queries,
            cost=state.spending.ended,
            cost_held=sum(state.spending.held.values()),
            cost_limit=limits.cost,
            active_seconds=active,
            wall_limit=None if limits.wall_hours is None else limits.wall_hours * SECONDS_PER_HOUR,
            queries_per_minute=queries_rate,
            cost_per_minute=cost_rate,
            evaluators=self._config.runtime.evaluators,
            in_flight=len(waiting) - len(ready) - len(state.resting) if at_work else 0,
            ready=len(ready),
            resting=len(state.resting),
            generating=sum(not proposal.generated for proposal in state.proposals.values()),
            answered=state.answered,
            failed=state.failed,
            infeasible=state.infeasible,
            reused=state.reused,
            saved_cost=state.saved_cost,
            repeated=state.attempted,
            failures=dict(self._failures.most_common()),
            best=None if self._best is None else self._best[0],
            best_label=self._best_label,
            unit=self._unit,
            seconds_left=self._left(limits, active, queries_rate, cost_rate) if running else None,
            last_event=state.last_time,
        )

    def _status(self, at_work: bool) -> str:
        state = self._state
        if not at_work:
            if state.started is None:
                return "not started"
            return state.stopped or "killed"
        if state.started is None or state.stopped is not None:
            return "saving" if self._saw_it_run else "starting"
        self._saw_it_run = True
        return "paused" if state.paused else "draining" if state.draining else "running"

    def _rates(self, now: float) -> tuple[float, float]:
        """Returns queries that ended, and what all attempts cost, a minute."""
        while self._paid and self._paid[0][0] < now - RATE_SECONDS:
            self._paid.popleft()
        since = max(now - RATE_SECONDS, self._since or now)
        minutes = max(SHORTEST_SECONDS, now - since) / 60.0
        ended = sum(is_end for _, _, is_end in self._paid)
        return ended / minutes, sum(cost for _, cost, _ in self._paid) / minutes

    def _left(self, limits: Limits, active: float, queries_rate: float, cost_rate: float) -> float | None:
        state, ends = self._state, []
        if queries_rate > 0:
            ends.append((limits.queries - state.spent + len(state.spending.held)) / queries_rate * 60.0)
        if limits.cost is not None and cost_rate > 0:
            ends.append((limits.cost - state.spending.ended) / cost_rate * 60.0)
        if limits.wall_hours is not None:
            ends.append(limits.wall_hours * SECONDS_PER_HOUR - active)
        return max(0.0, min(ends)) if ends else None


__all__ = ["RunWatch", "Snapshot"]
