"""The evaluator actors from the optimizer's side: asked, never waited for.

Actors restart by themselves; whatever they were doing when they died is handed out again by the loop, from
its ledger (``max_task_retries=0``), so nothing happens twice behind its back. May import ray and the core.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from pilotwave.config.components import OracleConfig
from pilotwave.execution.question import OracleIdentity, unanswered
from pilotwave.execution.receipts import read_receipt
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.protocols import QueryContext
from pilotwave.types import Evaluation, Failure
from pilotwave_actors.evaluator import Evaluator
from pilotwave_actors.waiting import cause_of, fetch, first_line


class EvaluatorPool:
    """The evaluating half of :class:`pilotwave_actors.workers.RayWorkers`.

    Args:
        oracle: What each asks.
        receipts: Where answers are left.
        count: How many there are.
        resources: What each occupies.
    """

    def __init__(self, oracle: OracleConfig, receipts: Path, count: int, resources: dict[str, float]) -> None:
        self._oracle = oracle
        self._receipts = receipts
        self._count = count
        self._resources = resources
        self._actors: list[Any] = []
        self._idle: deque[int] = deque()
        self._starting: list[Any] = []
        self._asked: dict[Any, tuple[int, EvaluationRequest, float]] = {}

    def launch(self) -> None:
        """Creates the actors, all at once; does not wait for them."""
        resources = dict(self._resources)
        evaluator = ray.remote(Evaluator).options(
            num_cpus=resources.pop("CPU", 1.0),
            num_gpus=resources.pop("GPU", 0.0),
            resources=resources,
            max_restarts=-1,
            max_task_retries=0,
        )
        self._actors = [
            evaluator.remote(self._oracle, self._receipts, f"evaluator-{number}") for number in range(self._count)
        ]
        self._starting = [actor.start.remote() for actor in self._actors]

    def ready(self) -> OracleIdentity:
        """Waits until every oracle is up.

        Raises:
            PilotwaveError: One cannot be built.
        """
        identities = [
            fetch(reference, f"evaluator {number}", self._actors[number].start.remote)
            for number, reference in enumerate(self._starting)
        ]
        self._idle.extend(range(self._count))
        identity: OracleIdentity = identities[0]
        return identity

    def preflight(self) -> None:
        """Asks the first evaluator the known question."""
        preflight = self._actors[0].preflight.remote
        fetch(preflight(), "the preflight", preflight)

    def evaluate(self, request: EvaluationRequest) -> None:
        """Hands a question to an idle evaluator."""
        number = self._idle.popleft()
        self._asked[self._actors[number].evaluate.remote(request)] = (number, request, time.time())

    def actors(self) -> dict[str, Any]:
        """Returns the actors by the names that their evaluations bear."""
        return {f"evaluator-{number}": actor for number, actor in enumerate(self._actors)}

    @property
    def references(self) -> list[Any]:
        """What is waited for."""
        return list(self._asked)

    def event(self, reference: Any) -> Evaluation | None:
        """Returns what a reference that has ended brought, or nothing if it is none of these."""
        asked = self._asked.pop(reference, None)
        if asked is None:
            return None
        number, request, since = asked
        self._idle.append(number)
        try:
            evaluation: Evaluation = ray.get(reference)
            return evaluation
        except (RayActorError, RayTaskError) as error:
            # The actor died, but its oracle may have answered: then the receipt is there, and paid for.
            receipt = read_receipt(self._receipts, request.query_id, request.attempt)
            if receipt is not None:
                return receipt
            message = cause_of(error) if isinstance(error, RayTaskError) else first_line(error)
            # Perhaps it was asked, so it is counted as paid for.
            context = QueryContext(request.query_id, request.attempt)
            return unanswered(context, Failure("worker", message, retryable=True), f"evaluator-{number}", since)

    def close(self) -> None:
        """Kills the actors; their oracle processes die with them."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._asked = [], {}


__all__ = ["EvaluatorPool"]
