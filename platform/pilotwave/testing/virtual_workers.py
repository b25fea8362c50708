"""Workers in virtual time: the loop's own code, with an oracle that takes hours and a test that takes none.

The model is real and runs when it is asked to; an oracle is a function that says how long an attempt takes and how
it ends. Nothing sleeps: to wait is to turn the clock. May import the core.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from pilotwave.config.campaign import CampaignConfig
from pilotwave.execution.generation import generate_candidates
from pilotwave.execution.question import OracleIdentity, unanswered
from pilotwave.execution.workers import (
    EvaluationRequest,
    GenerationRequest,
    GenerationResult,
    WorkerEvent,
    WorkerFacts,
)
from pilotwave.protocols import Backbone, QueryContext
from pilotwave.testing.faulty_oracles import score
from pilotwave.types import Evaluation, Failure, Status, Timings


@dataclass(frozen=True)
class Attempt:
    """How one attempt goes.

    Attributes:
        seconds: Until it ends, if no limit ends it before.
        cost: What it costs.
        failure: Why it has no value, or None.
    """

    seconds: float = 1.0
    cost: float = 1.0
    failure: Failure | None = None


@dataclass
class VirtualWorkers:
    """See :class:`pilotwave.execution.workers.Workers`.

    Attributes:
        config: Of the campaign; only its model is used.
        oracle: How an attempt goes.
        model: How long a proposal takes to make, in seconds.
        now: The clock.
        lag: For how many seconds the loop is taken to be busy in each turn: what ends meanwhile comes together.
        keep_asked: Whether every attempt is kept in ``asked``.
        asked: Every attempt in order: when, which query, which attempt.
    """

    config: CampaignConfig
    oracle: Callable[[EvaluationRequest], Attempt]
    model: Callable[[GenerationRequest], float] = lambda request: 0.0
    now: float = 1_000_000.0
    lag: float = 0.0
    keep_asked: bool = True
    asked: list[tuple[float, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.evaluators = self.config.runtime.evaluators
        self.generators = self.config.runtime.generators_in_use
        self.in_flight = 0
        self.in_the_making = 0
        self._agenda: list[tuple[float, int, WorkerEvent | Callable[[], None]]] = []
        self._order = itertools.count()
        self._backbone: Backbone

    def clock(self) -> float:
        """Returns the virtual time."""
        return self.now

    def at(self, moment: float, act: Callable[[], None]) -> None:
        """Does something once the clock stands there."""
        heapq.heappush(self._agenda, (moment, next(self._order), act))

    def start(self) -> WorkerFacts:
        """Loads the model."""
        self._backbone = self.config.backbone.build()
        identity = OracleIdentity("virtual", "1", "", frozenset({self.config.backbone.media}), True)
        return WorkerFacts.of(self._backbone, identity)

    def preflight(self) -> None:
        """Asks nothing."""

    def generate(self, request: GenerationRequest) -> None:
        """Makes a proposal's candidates, and lets it take its time."""
        self.in_the_making += 1
        if self.in_the_making > self.generators:
            raise ValueError(f"expected at most {self.generators} proposals in the making, got one more")
        result = generate_candidates(self._backbone, [], request)
        ended = self.now + self.model(request)
        self._push(ended, dataclasses.replace(result, started=self.now, finished=ended))

    def evaluate(self, request: EvaluationRequest) -> None:
        """Lets an attempt take its time."""
        if self.keep_asked:
            self.asked.append((self.now, request.query_id, request.attempt))
        self.in_flight += 1
        attempt = self.oracle(request)
        context = QueryContext(request.query_id, request.attempt)
        limit = request.time_limit or self.config.oracle.longest
        seconds = min(attempt.seconds, limit)
        if attempt.seconds > limit:
            failure = Failure("wall-clock limit", f"no answer within {limit:g} s")
            ended = unanswered(context, failure, "virtual", self.now, Status.TIMED_OUT)
        elif attempt.failure is not None:
            ended = unanswered(context, attempt.failure, "virtual", self.now)
        else:
            ended = Evaluation(request.query_id, Status.OK, score(request.sample), request.attempt)
        timings = Timings(self.now, self.now + seconds)
        self._push(self.now + seconds, replace(ended, cost=attempt.cost, timings=timings))

    def backlog(self, waiting: int) -> None:
        """Makes no more of them."""

    def wait(self, timeout: float) -> Sequence[WorkerEvent]:
        """Turns the clock to the next event, or by the timeout."""
        deadline = self.now + timeout
        events: list[WorkerEvent] = []
        while self._agenda and self._agenda[0][0] <= deadline:
            moment, _, event = heapq.heappop(self._agenda)
            self.now = max(self.now, moment)
            if callable(event):
                event()
                return events
            self.in_flight -= isinstance(event, Evaluation)
            self.in_the_making -= isinstance(event, GenerationResult)
            if not events:
                deadline = self.now + self.lag
            events.append(event)
            if not self.lag:
                return events
        self.now = deadline
        return events

    def close(self) -> None:
        """Ends nothing."""

    def _push(self, moment: float, event: WorkerEvent) -> None:
        heapq.heappush(self._agenda, (moment, next(self._order), event))


__all__ = ["Attempt", "VirtualWorkers"]
