"""The generator actor: loads the backbone once and runs plans next to it.

It has no state that matters: a proposal is made again, identically, by handing it over again. May import ray
and the core; torch and the model are imported in the actor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave.config.components import BackboneConfig, ConstraintConfig
from pilotwave.execution.known import KnownElsewhere, News
from pilotwave.execution.log_capture import doing
from pilotwave_actors.places import keep_log

if TYPE_CHECKING:
    from pilotwave.execution.workers import GenerationRequest, GenerationResult
    from pilotwave.protocols import Backbone, Constraint, Invariants


@dataclass(frozen=True)
class BackboneFacts:
    """What the optimizer must know of the model; see :class:`pilotwave.protocols.Backbone`."""

    latent_shape: tuple[int, ...]
    steps: int
    media: str
    conditions_are_free: bool
    invariants: Invariants
    fingerprint: str


class Generator:
    """The model's host; made an actor by :mod:`pilotwave_actors.generator_pool`.

    The model is built at the first call: a restarted actor is ready again without being told, and what is
    wrong with a checkpoint comes back as the caller's error (a failing constructor would be retried for ever).

    Args:
        config: Of the model.
        constraints: Checked next to it.
        device: Where it runs.
        threads: How many it may use.
        name: Borne by its results.
        logs: The folder of the run's logs.
        linger_seconds: One that campaigns share ends when none has used it for so long; None: others end it.
    """

    def __init__(
        self,
        config: BackboneConfig,
        constraints: tuple[ConstraintConfig, ...],
        device: str,
        threads: int,
        name: str,
        logs: Path,
        linger_seconds: float | None = None,
    ) -> None:
        keep_log(name, logs)
        self._name = name
        self._logs = logs
        self._used = time.monotonic()
        self._busy = False
        if linger_seconds is not None:
            import ray

            itself = ray.get_runtime_context().current_actor
            threading.Thread(target=self._end_when_unused, args=(itself, linger_seconds), daemon=True).start()
        self._config = config
        self._constraint_configs = constraints
        self._device = device
        self._threads = threads
        self._elsewhere = KnownElsewhere()
        self._built: tuple[Backbone, list[Constraint]] | None = None

    def here(self) -> None:
        """Is told that a campaign that shares this generator still may need it."""
        self._used = time.monotonic()

    def facts(self) -> BackboneFacts:
        """Builds the model and returns what the optimizer must know."""
        with self._at_work():
            return self._facts()

    def _facts(self) -> BackboneFacts:
        backbone, _ = self._build()
        return BackboneFacts(
            tuple(backbone.latent_shape),
            backbone.steps,
            backbone.media,
            backbone.conditions_are_free,
            backbone.invariants,
            backbone.fingerprint,
        )

    def generate(
        self, request: GenerationRequest, news: News | None = None, logs: Path | None = None
    ) -> GenerationResult | int:
        """Makes a proposal's candidates.

        Args:
            request: With all known samples, unless there are news.
            news: Of the known samples those that this generator was not told of.
            logs: The folder of the run's logs, if this generator works for several.

        Returns:
            What came of it; or how many known samples it does know, if something before the news is missing.
        """
        from pilotwave.execution.generation import generate_candidates

        if news is not None:
            known = self._elsewhere.after(news)
            if isinstance(known, int):
                return known
            request = replace(request, known=known)
        logs = self._logs if logs is None else logs
        with self._at_work(), doing(logs, worker=self._name, proposal=request.proposal.number):
            backbone, constraints = self._build()
            return replace(generate_candidates(backbone, constraints, request), worker=self._name)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        self._busy = True
        try:
            yield
        finally:
            self._busy, self._used = False, time.monotonic()

    def _end_when_unused(self, itself: Any, linger_seconds: float) -> None:
        """Ends this actor when no campaign has used it for so long."""
        import ray

        while self._busy or time.monotonic() - self._used < linger_seconds:
            time.sleep(min(1.0, linger_seconds / 4))
        ray.kill(itself)

    def _build(self) -> tuple[Backbone, list[Constraint]]:
        if self._built is None:
            import torch

            torch.set_num_threads(self._threads)
            backbone = self._config.build(self._device)
            self._built = backbone, [constraint.build() for constraint in self._constraint_configs]
        return self._built


__all__ = ["BackboneFacts", "Generator"]
