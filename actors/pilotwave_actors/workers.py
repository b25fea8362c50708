"""Ray actors behind the loop's worker contract: one generator, a pool of evaluators, none waited for.

Actors restart by themselves; whatever they were doing when they died is handed out again by the loop, from
its ledger (``max_task_retries=0``), so nothing happens twice behind its back. May import ray and the core.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from pilotwave.archive.run_directory import RunDirectory
from pilotwave.errors import InfrastructureError, PilotwaveError
from pilotwave.execution.job import CampaignJob
from pilotwave.execution.question import unanswered
from pilotwave.execution.receipts import read_receipt
from pilotwave.execution.workers import (
    EvaluationRequest,
    GenerationFailed,
    GenerationRequest,
    WorkerEvent,
    WorkerFacts,
)
from pilotwave.protocols import QueryContext
from pilotwave.types import Evaluation, Failure
from pilotwave_actors.evaluator import Evaluator
from pilotwave_actors.generator import Generator


class RayWorkers:
    """Fulfils :class:`pilotwave.execution.workers.Workers` with actors owned by the calling process."""

    def __init__(self, job: CampaignJob, *, generator_gpus: float, evaluator_resources: dict[str, float]) -> None:
        runtime = job.config.runtime
        self.evaluators = runtime.evaluators
        self._config = job.config
        self._receipts = RunDirectory(job.run_dir).receipts
        self._generator_gpus = generator_gpus
        self._evaluator_resources = evaluator_resources
        self._generator: Any = None
        self._pool: list[Any] = []
        self._idle: deque[int] = deque()
        self._asked: dict[Any, tuple[int, EvaluationRequest, float]] = {}
        self._generating: dict[Any, GenerationRequest] = {}

    def start(self) -> WorkerFacts:
        """Creates the actors, all at once, and waits until each is ready."""
        runtime = self._config.runtime
        options = {"max_restarts": -1, "max_task_retries": 0}
        self._generator = (
            ray.remote(Generator)
            .options(num_cpus=runtime.generator_threads, num_gpus=self._generator_gpus, **options)
            .remote(self._config.backbone, self._config.constraints, runtime.device, runtime.generator_threads)
        )
        resources = dict(self._evaluator_resources)
        evaluator = ray.remote(Evaluator).options(
            num_cpus=resources.pop("CPU", 1.0), num_gpus=resources.pop("GPU", 0.0), resources=resources, **options
        )
        self._pool = [
            evaluator.remote(self._config.oracle, self._receipts, f"evaluator-{number}")
            for number in range(self.evaluators)
        ]
        identities = [actor.start.remote() for actor in self._pool]
        facts = _get(self._generator.facts.remote(), "the generator")
        oracles = [_get(identity, f"evaluator {number}") for number, identity in enumerate(identities)]
        self._idle.extend(range(self.evaluators))
        return WorkerFacts.of(facts, oracles[0])

    def preflight(self) -> None:
        """Asks the first evaluator the known question."""
        _get(self._pool[0].preflight.remote(), "the preflight")

    def generate(self, request: GenerationRequest) -> None:
        """Hands a proposal to the generator."""
        self._generating[self._generator.generate.remote(request)] = request

    def evaluate(self, request: EvaluationRequest) -> None:
        """Hands a question to an idle evaluator."""
        number = self._idle.popleft()
        reference = self._pool[number].evaluate.remote(request)
        self._asked[reference] = (number, request, time.time())

    def wait(self, timeout: float) -> list[WorkerEvent]:
        """Returns what has ended."""
        references = [*self._asked, *self._generating]
        if not references:
            time.sleep(timeout)
            return []
        ended, rest = ray.wait(references, num_returns=1, timeout=timeout, fetch_local=False)
        if ended and rest:  # and whatever else has ended meanwhile
            more, _ = ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)
            ended += more
        return [self._event(reference) for reference in ended]

    def close(self) -> None:
        """Kills the actors; their oracle processes die with them."""
        for actor in (*self._pool, *([self._generator] if self._generator is not None else [])):
            ray.kill(actor)
        self._pool, self._generator = [], None
        self._asked, self._generating = {}, {}

    def _event(self, reference: Any) -> WorkerEvent:
        if reference in self._asked:
            number, question, since = self._asked.pop(reference)
            self._idle.append(number)
            return self._evaluation(reference, question, since, f"evaluator-{number}")
        request = self._generating.pop(reference)
        try:
            result: WorkerEvent = ray.get(reference)
            return result
        except RayActorError as error:
            return GenerationFailed(request.proposal.number, _first_line(error), retryable=True)
        except RayTaskError as error:
            return GenerationFailed(request.proposal.number, _cause(error), retryable=False)

    def _evaluation(self, reference: Any, request: EvaluationRequest, since: float, worker: str) -> Evaluation:
        try:
            evaluation: Evaluation = ray.get(reference)
            return evaluation
        except (RayActorError, RayTaskError) as error:
            # The actor died, but its oracle may have answered: then the receipt is there, and paid for.
            receipt = read_receipt(self._receipts, request.query_id, request.attempt)
            if receipt is not None:
                return receipt
            message = _cause(error) if isinstance(error, RayTaskError) else _first_line(error)
            # Perhaps it was asked, so it is counted as paid for.
            context = QueryContext(request.query_id, request.attempt)
            return unanswered(context, Failure("worker", message, retryable=True), worker, since)


def _get(reference: Any, what: str) -> Any:
    """Fetches a result; an error of ours comes out as it went in."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, PilotwaveError):
            raise error.cause from None
        raise InfrastructureError(f"{what} could not be started: {_cause(error)}") from error
    except RayActorError as error:
        raise InfrastructureError(f"{what} died while it was starting: {_first_line(error)}") from error


def _cause(error: RayTaskError) -> str:
    return f"{type(error.cause).__name__}: {error.cause}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


__all__ = ["RayWorkers"]
