"""The generator actor from the optimizer's side: made once, handed proposals, never waited for.

The actor restarts by itself; a proposal that died with it is handed over again by the loop, from its ledger
(``max_task_retries=0``). May import ray and the core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from pilotwave.config.campaign import CampaignConfig
from pilotwave.execution.workers import GenerationFailed, GenerationRequest, GenerationResult
from pilotwave_actors.generator import BackboneFacts, Generator
from pilotwave_actors.waiting import cause_of, fetch, first_line

NAME = "generator-0"


class GeneratorPool:
    """The generating half of :class:`pilotwave_actors.workers.RayWorkers`.

    Args:
        config: Of the campaign.
        gpus: What the generator occupies of GPUs.
        logs: The folder of the run's logs.
    """

    def __init__(self, config: CampaignConfig, gpus: float, logs: Path) -> None:
        self._logs = logs
        self._config = config
        self._gpus = gpus
        self._actor: Any = None
        self._generating: dict[Any, GenerationRequest] = {}

    def launch(self) -> None:
        """Creates the actor; does not wait for it."""
        runtime = self._config.runtime
        self._actor = (
            ray.remote(Generator)
            .options(num_cpus=runtime.generator_threads, num_gpus=self._gpus, max_restarts=-1, max_task_retries=0)
            .remote(
                self._config.backbone,
                self._config.constraints,
                runtime.device,
                runtime.generator_threads,
                NAME,
                self._logs,
            )
        )

    def ready(self) -> BackboneFacts:
        """Waits until the model is loaded.

        Raises:
            PilotwaveError: It cannot be.
        """
        facts: BackboneFacts = fetch(self._actor.facts.remote(), "the generator", self._actor.facts.remote)
        return facts

    def generate(self, request: GenerationRequest) -> None:
        """Hands over a proposal."""
        self._generating[self._actor.generate.remote(request)] = request

    def actors(self) -> dict[str, Any]:
        """Returns the actors by the names that their results bear."""
        return {} if self._actor is None else {NAME: self._actor}

    @property
    def references(self) -> list[Any]:
        """What is waited for."""
        return list(self._generating)

    def event(self, reference: Any) -> GenerationResult | GenerationFailed | None:
        """Returns what a reference that has ended brought, or nothing if it is none of these."""
        request = self._generating.pop(reference, None)
        if request is None:
            return None
        try:
            result: GenerationResult = ray.get(reference)
            return result
        except RayActorError as error:
            return GenerationFailed(request.proposal.number, first_line(error), retryable=True)
        except RayTaskError as error:
            return GenerationFailed(request.proposal.number, cause_of(error), retryable=False)

    def close(self) -> None:
        """Kills the actor."""
        if self._actor is not None:
            ray.kill(self._actor)
        self._actor, self._generating = None, {}


__all__ = ["GeneratorPool"]
