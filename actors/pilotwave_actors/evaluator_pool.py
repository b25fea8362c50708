"""The evaluator actors of one campaign, from the optimizer's side: asked, never waited for.

Whatever an actor was doing when it died is handed out again by the loop, from its ledger (``max_task_retries=0``),
so nothing happens twice behind its back. May import ray and the core.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import RayActorError, RayTaskError

from pilotwave.execution.question import OracleIdentity, unanswered
from pilotwave.execution.receipts import read_receipt
from pilotwave.execution.sizing import PoolSizing
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.protocols import QueryContext
from pilotwave.types import Evaluation, Failure
from pilotwave_actors.evaluator_crew import Crew, CrewPlan, Place
from pilotwave_actors.waiting import cause_of, fetch, first_line

READY_SECONDS = 0.1
"""How often it is looked at what became of those that start."""


class Evaluators(Protocol):
    """The evaluating half of :class:`pilotwave_actors.workers.RayWorkers`: actors of its own, or shared ones.

    Attributes:
        up: How many questions can be in flight now.
    """

    @property
    def up(self) -> int: ...

    def launch(self) -> None:
        """Has actors made; does not wait for them."""
        ...

    def ready(self) -> OracleIdentity:
        """Waits until the first oracle is up.

        Raises:
            PilotwaveError: None can be built.
        """
        ...

    def preflight(self) -> None:
        """Asks the known question."""
        ...

    def evaluate(self, request: EvaluationRequest) -> None:
        """Hands over a question; at most ``up`` may be in flight."""
        ...

    def backlog(self, waiting: int) -> None:
        """Is told in every turn of the loop how many more questions could be asked.

        Raises:
            PilotwaveError: There is no evaluator any more, and none will come.
        """
        ...

    def actors(self) -> Mapping[str, Any]:
        """Returns the actors by the names that their evaluations bear, where they are known here."""
        ...

    @property
    def references(self) -> list[Any]:
        """What is waited for."""
        ...

    def event(self, reference: Any) -> Evaluation | None:
        """Returns what a reference that has ended brought, or nothing if it brought no answer."""
        ...

    def close(self) -> None:
        """Lets go of the actors."""
        ...


class EvaluatorPool:
    """See :class:`Evaluators`; the actors belong to this process and die with it.

    Args:
        plan: What each actor is like.
        sizing: How many there shall be.
    """

    def __init__(self, plan: CrewPlan, sizing: PoolSizing) -> None:
        self._plan = plan
        self._crew = Crew(plan, sizing)
        self._asked: dict[Any, tuple[Place, EvaluationRequest, float]] = {}

    @property
    def up(self) -> int:
        """How many questions can be in flight now."""
        return self._crew.up

    def launch(self) -> None:
        """Has the fewest made, all at once."""
        self._crew.review(0, at_once=True)

    def ready(self) -> OracleIdentity:
        """Waits for the first of them."""
        while (identity := self._crew.identity()) is None:
            starting = self._crew.starting
            ended, _ = ray.wait(starting, timeout=READY_SECONDS, fetch_local=False) if starting else ([], [])
            for reference in ended:
                self._take_note(reference)
            if not starting:  # those that failed rest before they are tried again
                time.sleep(READY_SECONDS)
            self._crew.review(0)
        return identity

    def preflight(self) -> None:
        """Asks one that is up the known question."""
        fetch(self._crew.anyone().preflight.remote(), "the preflight", self._preflight_again)

    def evaluate(self, request: EvaluationRequest) -> None:
        """Hands a question to a free place."""
        place = self._crew.take()
        assert place is not None, "more questions than places"
        self._asked[place.member.actor.evaluate.remote(place.index, request)] = (place, request, time.time())

    def backlog(self, waiting: int) -> None:
        """Makes more actors, or fewer."""
        self._crew.review(waiting)

    def actors(self) -> Mapping[str, Any]:
        """Returns the actors by the names that their evaluations bear."""
        return self._crew.actors

    @property
    def references(self) -> list[Any]:
        """Answers, and actors coming up."""
        return [*self._asked, *self._crew.starting]

    def event(self, reference: Any) -> Evaluation | None:
        """Returns an answer, or takes note of an actor that is up."""
        asked = self._asked.pop(reference, None)
        if asked is None:
            self._take_note(reference)
            return None
        place, request, since = asked
        evaluation, gone = answer_of(reference, request, self._plan.receipts, place.name, since)
        self._crew.give_back(place, gone=gone)
        return evaluation

    def close(self) -> None:
        """Kills the actors; their oracle processes die with them."""
        self._crew.close()
        self._asked = {}

    def _preflight_again(self) -> Any:
        """Asks another one, after the one that was asked has died."""
        self._crew.review(0, at_once=True)
        self.ready()
        return self._crew.anyone().preflight.remote()

    def _take_note(self, reference: Any) -> None:
        try:
            self._crew.started(reference, ray.get(reference))
        except (RayActorError, RayTaskError) as error:
            self._crew.started(reference, error)


def answer_of(
    reference: Any, request: EvaluationRequest, receipts: Path | None, worker: str, since: float
) -> tuple[Evaluation, bool]:
    """Returns how a question ended, and whether the actor that asked it is gone.

    Args:
        reference: Of the call, which has ended.
        request: What was asked.
        receipts: Where the answer may lie all the same.
        worker: Who asked.
        since: From when on, seconds since the epoch.
    """
    try:
        evaluation: Evaluation = ray.get(reference)
        return evaluation, False
    except (RayActorError, RayTaskError) as error:
        return lost(error, request, receipts, worker, since), isinstance(error, RayActorError)


def lost(
    error: RayActorError | RayTaskError,
    request: EvaluationRequest,
    receipts: Path | None,
    worker: str,
    since: float,
) -> Evaluation:
    """Returns what became of a question whose call failed: its receipt, or an attempt that may be repeated."""
    # The actor died, but its oracle may have answered: then the receipt is there, and paid for.
    receipt = None if receipts is None else read_receipt(receipts, request.query_id, request.attempt)
    if receipt is not None:
        return receipt
    message = cause_of(error) if isinstance(error, RayTaskError) else first_line(error)
    # Perhaps it was asked, so it is counted as paid for.
    context = QueryContext(request.query_id, request.attempt)
    return unanswered(context, Failure("worker", message, retryable=True), worker, since)


__all__ = ["EvaluatorPool", "Evaluators", "answer_of", "lost"]
