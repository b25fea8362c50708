"""A campaign's side of evaluators that several campaigns share. May import ray and the core."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilotwave.config.components import RuntimeConfig
from pilotwave.execution.question import OracleIdentity
from pilotwave.execution.receipts import Asker, newest_driver
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.types import Evaluation
from pilotwave_actors.evaluator_crew import CrewPlan
from pilotwave_actors.evaluator_pool import answer_of
from pilotwave_actors.evaluators_owner import SharedEvaluatorsOwner
from pilotwave_actors.sharing import Connection, Sharer, digest_of, find_or_make


class SharedEvaluators:
    """A campaign's side; see :class:`pilotwave_actors.evaluator_pool.Evaluators`.

    Args:
        plan: What every evaluator is like.
        share: The name under which campaigns share.
        receipts: Of this campaign's run.
        runtime: Of this campaign.
    """

    def __init__(self, plan: CrewPlan, share: str, receipts: Path, runtime: RuntimeConfig) -> None:
        self._plan = plan
        self._name = f"evaluators:{share}:{digest_of([plan.oracle])}"
        self._receipts = receipts
        self._runtime = runtime
        self._sharer: Sharer
        self._line: Connection | None = None
        self._asked: dict[Any, tuple[EvaluationRequest, float]] = {}

    @property
    def up(self) -> int:
        """How many questions can be handed over now; the owner lets them wait for their turn."""
        return self._runtime.evaluators if self._line is not None and self._line.present else 0

    def launch(self) -> None:
        """Finds the owner or has it made; from now on this is the newest driver of its run."""
        runtime = self._runtime
        self._sharer = Sharer(
            Asker(self._receipts, newest_driver(self._receipts)),
            time.time(),
            most=runtime.evaluators,
            fewest=runtime.fewest_evaluators,
            idle_seconds=runtime.evaluators_idle_seconds,
            terms=self._plan.terms,
        )
        self._line = Connection(self._sharer, self._find)

    def ready(self) -> OracleIdentity:
        """Waits until an oracle is up."""
        identity: OracleIdentity = self._connection.call("identity", "the shared evaluators")
        return identity

    def preflight(self) -> None:
        """Has the known question asked."""
        self._connection.call("preflight", "the preflight")

    def evaluate(self, request: EvaluationRequest) -> None:
        """Hands a question to the owner."""
        self._asked[self._connection.owner.evaluate.remote(self._sharer, request)] = (request, time.time())

    def backlog(self, waiting: int) -> None:
        """Is of no interest: the owner sees what waits there."""
        if self._connection.failure is not None:
            raise self._connection.failure

    def actors(self) -> Mapping[str, Any]:
        """Knows none: they are the owner's."""
        return {}

    @property
    def references(self) -> list[Any]:
        """Answers."""
        return list(self._asked)

    def event(self, reference: Any) -> Evaluation | None:
        """Returns an answer."""
        asked = self._asked.pop(reference, None)
        if asked is None:
            return None
        request, since = asked
        evaluation, gone = answer_of(reference, request, self._receipts, "pool", since)
        if gone:
            self._connection.present = False  # until it answers again, nothing more is handed over
        return evaluation

    def close(self) -> None:
        """Leaves; what is still asked on this campaign's behalf is ended."""
        if self._line is not None:
            self._line.close()
        self._line, self._asked = None, {}

    def _find(self) -> Any:
        # Every question that waits is a call in progress.
        options = {"num_cpus": 0, "max_concurrency": 100_000}
        return find_or_make(SharedEvaluatorsOwner, self._name, self._plan, **options)

    @property
    def _connection(self) -> Connection:
        assert self._line is not None, "not launched"
        return self._line


__all__ = ["SharedEvaluators"]
