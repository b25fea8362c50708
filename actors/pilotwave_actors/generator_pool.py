"""The generator actors from the optimizer's side: made once, handed proposals, never waited for.

Actors restart by themselves; a proposal that died with one is handed over again by the loop, from its ledger
(``max_task_retries=0``), and the others go on. One that was lost is asked now and then whether it is back, and gets
no proposal before it is. May import ray and the core.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from pilotwave.config.campaign import CampaignConfig
from pilotwave.errors import InfrastructureError, PilotwaveError
from pilotwave.execution.known import Known
from pilotwave.execution.workers import GenerationFailed, GenerationRequest, GenerationResult
from pilotwave_actors.generator import BackboneFacts, Generator
from pilotwave_actors.places import NO_LOGS
from pilotwave_actors.sharing import LINGER_SECONDS, digest_of, find_or_make
from pilotwave_actors.waiting import cause_of, fetch, first_line

LOST = (RayActorError, OutOfMemoryError)
"""What a call raises whose actor, or whose worker process, is gone."""
LOW_ON_MEMORY = "running low on memory"
"""What Ray says of an actor that it has ended because its node's memory ran short."""
CALL_SECONDS = 1.0
"""A lost generator is called so often: calls to one that is being made again fail at once."""
PATIENCE_SECONDS = 600.0
"""So long may all generators be lost before a proposal fails."""


@dataclass
class Host:
    """One generator.

    Attributes:
        name: Borne by its results.
        actor: Its handle.
        knows: How many of the campaign's known samples it was told of.
        call_at: When it is called next, if it is lost; by the monotonic clock.
    """

    name: str
    actor: Any
    knows: int = 0
    call_at: float = 0.0


class GeneratorPool:
    """The generating half of :class:`pilotwave_actors.workers.RayWorkers`.

    Args:
        config: Of the campaign.
        gpus: What each generator occupies of GPUs.
        logs: The folder of the run's logs.

    Attributes:
        count: How many there are.
    """

    def __init__(self, config: CampaignConfig, gpus: float, logs: Path) -> None:
        self.count = config.runtime.generators_in_use
        self._config = config
        self._gpus = gpus
        self._logs = logs
        self._hosts: list[Host] = []
        self._idle: deque[Host] = deque()
        self._lost: list[Host] = []
        self._waiting: deque[GenerationRequest] = deque()
        self._generating: dict[Any, tuple[Host, GenerationRequest]] = {}
        self._called: dict[Any, Host] = {}
        self._heard = time.monotonic()
        # What is given as an object is not compared with others; evaluators may be shared all the same.
        shared = config.backbone.kind != "given"
        self._share: str | None = getattr(config.runtime, "share", None) if shared else None
        self._next_beat = 0.0

    def launch(self) -> None:
        """Creates the actors, all at once; does not wait for them."""
        self._hosts = [Host(name, self._make(name)) for name in (f"generator-{n}" for n in range(self.count))]

    def _make(self, name: str) -> Any:
        """Makes an actor, or finds one that campaigns share."""
        runtime = self._config.runtime
        options = {
            "num_cpus": runtime.generator_threads,
            "num_gpus": self._gpus,
            "resources": dict(getattr(runtime, "generator_resources", {})),
            "max_restarts": -1,
            "max_task_retries": 0,
        }
        arguments = (self._config.backbone, self._config.constraints, runtime.device, runtime.generator_threads)
        if self._share is None:
            return ray.remote(Generator).options(**options).remote(*arguments, name, self._logs)
        choices = [self._config.backbone, *self._config.constraints]
        digest = digest_of(choices, runtime.device, runtime.generator_threads, self._gpus, options["resources"])
        full_name = f"generators:{self._share}:{digest}:{name}"
        return find_or_make(Generator, full_name, *arguments, name, NO_LOGS, LINGER_SECONDS, **options)

    def ready(self) -> BackboneFacts:
        """Waits until every model is loaded.

        Raises:
            PilotwaveError: One cannot be, or is another one than the first.
        """
        loading = [(host, host.actor.facts.remote()) for host in self._hosts]
        facts: list[BackboneFacts] = [
            fetch(reference, host.name, host.actor.facts.remote) for host, reference in loading
        ]
        for host, other in zip(self._hosts, facts, strict=True):
            if other.fingerprint != facts[0].fingerprint:
                raise InfrastructureError(
                    f"expected the same model everywhere, got {facts[0].fingerprint} by {self._hosts[0].name} and "
                    f"{other.fingerprint} by {host.name}; put the same checkpoint on every node"
                )
        self._idle.extend(self._hosts)
        return facts[0]

    def generate(self, request: GenerationRequest) -> None:
        """Hands over a proposal, to one that works already where there is a choice; it waits while all are lost."""
        self._waiting.append(request)
        self._hand_out()

    def actors(self) -> dict[str, Any]:
        """Returns the actors by the names that their results bear."""
        return {host.name: host.actor for host in self._hosts}

    @property
    def references(self) -> list[Any]:
        """What is waited for."""
        self._call_the_lost()
        self._say_here()
        return [*self._generating, *self._called]

    def event(self, reference: Any) -> GenerationResult | GenerationFailed | None:
        """Returns what a reference that has ended brought; nothing if it is none of these, or brought no news."""
        if reference in self._called:
            return self._answered(reference)
        if reference not in self._generating:
            return None
        host, request = self._generating.pop(reference)
        number = request.proposal.number
        try:
            result: GenerationResult | int = ray.get(reference)
        except LOST as error:
            host.knows, host.call_at = 0, time.monotonic()
            self._lost.append(host)
            short = isinstance(error, OutOfMemoryError) or LOW_ON_MEMORY in str(error)
            return GenerationFailed(
                number, f"{host.name}: {first_line(error)}", retryable=True, out_of_memory=short
            )
        except RayTaskError as error:
            self._is_idle(host)
            said = str(error.cause) if isinstance(error.cause, PilotwaveError) else cause_of(error)
            return GenerationFailed(number, said, retryable=False)
        if isinstance(result, int):  # it was made again since, and lacks what it was told before
            host.knows = result
            self._give(host, request)
            return None
        if isinstance(request.known, Known):
            host.knows = len(request.known)
        self._is_idle(host)
        return result

    def close(self) -> None:
        """Kills the actors."""
        for host in self._hosts:
            if self._share is None:
                ray.kill(host.actor)
        self._hosts, self._generating, self._called, self._lost = [], {}, {}, []
        self._idle.clear()
        self._waiting.clear()

    def _is_idle(self, host: Host) -> None:
        self._heard = time.monotonic()
        self._idle.append(host)
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._idle:
            # The one that worked last: those that are not needed stay undisturbed.
            self._give(self._idle.pop(), self._waiting.popleft())

    def _give(self, host: Host, request: GenerationRequest) -> None:
        """Sends of the known samples only those that a generator was not told of."""
        known = request.known
        news = known.news(host.knows) if isinstance(known, Known) else None
        sent = request if news is None else replace(request, known=frozenset())
        self._generating[host.actor.generate.remote(sent, news, self._logs)] = (host, request)

    def _call_the_lost(self) -> None:
        now = time.monotonic()
        for host in [host for host in self._lost if host.call_at <= now]:
            self._lost.remove(host)
            if self._share is not None:  # it may have ended by itself
                host.actor = self._make(host.name)
            self._called[host.actor.facts.remote()] = host

    def _say_here(self) -> None:
        """Keeps generators that are shared while this campaign may need them."""
        now = time.monotonic()
        if self._share is not None and now >= self._next_beat:
            self._next_beat = now + LINGER_SECONDS / 6
            for host in self._idle:
                host.actor.here.remote()

    def _answered(self, reference: Any) -> GenerationFailed | None:
        """Takes one back that was lost, or calls it again later; fails a proposal that waits for too long."""
        host = self._called.pop(reference)
        try:
            ray.get(reference)
        except (*LOST, RayTaskError) as error:
            host.call_at = time.monotonic() + CALL_SECONDS
            self._lost.append(host)
            waits = self._waiting and not self._generating and not self._idle
            if waits and time.monotonic() - self._heard > PATIENCE_SECONDS:
                message = cause_of(error) if isinstance(error, RayTaskError) else first_line(error)
                number = self._waiting.popleft().proposal.number
                return GenerationFailed(
                    number,
                    f"no generator came back within {PATIENCE_SECONDS:.0f} s; {host.name}: {message}",
                    retryable=False,
                )
            return None
        self._is_idle(host)
        return None


__all__ = ["GeneratorPool"]
