"""Ray actors behind the loop's worker contract: who generates and who evaluates, none waited for.

May import ray and the core.
"""

from __future__ import annotations

import time
from typing import Any

import ray

from pilotwave.archive.run_directory import RunDirectory
from pilotwave.execution.job import CampaignJob
from pilotwave.execution.sizing import PoolSizing
from pilotwave.execution.workers import EvaluationRequest, GenerationRequest, WorkerEvent, WorkerFacts
from pilotwave_actors.evaluator_crew import CrewPlan
from pilotwave_actors.evaluator_pool import EvaluatorPool, Evaluators
from pilotwave_actors.generator_pool import GeneratorPool
from pilotwave_actors.runtime import RayRuntimeConfig


class RayWorkers:
    """Fulfils :class:`pilotwave.execution.workers.Workers` with actors owned by the calling process."""

    def __init__(self, job: CampaignJob, *, generator_gpus: float, evaluator_resources: dict[str, float]) -> None:
        self._generators = GeneratorPool(job.config, generator_gpus, RunDirectory(job.run_dir).logs)
        self._evaluators = _evaluators(job, evaluator_resources)
        self.generators = self._generators.count

    @property
    def evaluators(self) -> int:
        """How many questions can be in flight now."""
        return self._evaluators.up

    def start(self) -> WorkerFacts:
        """Has the actors made, all at once, and waits until the model and the first oracle are ready."""
        self._generators.launch()
        self._evaluators.launch()
        return WorkerFacts.of(self._generators.ready(), self._evaluators.ready())

    def preflight(self) -> None:
        """Asks an evaluator the known question."""
        self._evaluators.preflight()

    def generate(self, request: GenerationRequest) -> None:
        """Hands a proposal to a generator."""
        self._generators.generate(request)

    def evaluate(self, request: EvaluationRequest) -> None:
        """Hands a question to an idle evaluator."""
        self._evaluators.evaluate(request)

    def backlog(self, waiting: int) -> None:
        """Lets the pool grow or shrink."""
        self._evaluators.backlog(waiting)

    def wait(self, timeout: float) -> list[WorkerEvent]:
        """Returns what has ended."""
        references = [*self._evaluators.references, *self._generators.references]
        if not references:
            time.sleep(timeout)
            return []
        ended, rest = ray.wait(references, num_returns=1, timeout=timeout, fetch_local=False)
        if ended and rest:  # and whatever else has ended meanwhile
            more, _ = ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)
            ended += more
        events = (self._evaluators.event(one) or self._generators.event(one) for one in ended)
        return [event for event in events if event is not None]

    def actors(self) -> dict[str, Any]:
        """Returns the actors by the names that evaluations and candidates bear."""
        return {**self._evaluators.actors(), **self._generators.actors()}

    def close(self) -> None:
        """Kills the actors; their oracle processes die with them."""
        self._evaluators.close()
        self._generators.close()


def _evaluators(job: CampaignJob, resources: dict[str, float]) -> Evaluators:
    """Returns evaluators of the campaign's own, or its part in shared ones; nothing is made yet."""
    runtime, receipts = job.config.runtime, RunDirectory(job.run_dir).receipts
    assert isinstance(runtime, RayRuntimeConfig)
    most, fewest = runtime.evaluators, runtime.fewest_evaluators
    concurrency, idle_seconds = runtime.evaluator_concurrency, runtime.evaluators_idle_seconds
    if runtime.share is None:
        plan = CrewPlan(job.config.oracle, resources, concurrency, receipts)
        return EvaluatorPool(plan, PoolSizing(fewest, most, idle_seconds, concurrency))
    from pilotwave_actors.shared_evaluators import SharedEvaluators

    return SharedEvaluators(CrewPlan(job.config.oracle, resources, concurrency), runtime.share, receipts, runtime)


__all__ = ["RayWorkers"]
