"""The inline runtime: everything in this process, with the same semantics as on a cluster.

Each generator is a thread with a copy of the model of its own, so a backbone need not bear two threads at once
(many samplers keep a state), and copies spread over the machine's GPUs; each evaluator is a thread that waits for
its oracle's process. For laptops, debugging and tests. May import the core.
"""

from __future__ import annotations

import copy
import dataclasses
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field

from pilotwave.archive.origin import refuse_copy
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.config.campaign import CampaignConfig
from pilotwave.config.components import RuntimeConfig
from pilotwave.errors import PilotwaveError
from pilotwave.execution.coordinator import Coordinator
from pilotwave.execution.generation import generate_candidates
from pilotwave.execution.inline_evaluators import InlineEvaluators
from pilotwave.execution.job import CampaignJob, Interrupt, Observer, Outcome
from pilotwave.execution.log_capture import doing
from pilotwave.execution.metrics import CampaignMetrics
from pilotwave.execution.metrics_endpoint import MetricsEndpoint
from pilotwave.execution.structured_log import CampaignLog
from pilotwave.execution.telemetry import Telemetry
from pilotwave.execution.workers import (
    EvaluationRequest,
    GenerationFailed,
    GenerationRequest,
    WorkerEvent,
    WorkerFacts,
)
from pilotwave.protocols import Backbone, Constraint


class InlineRuntimeConfig(RuntimeConfig):
    """Runs a campaign in this process.

    Attributes:
        metrics_port: Where Prometheus may ask for metrics, or None.
        metrics_host: Of this machine.
    """

    summary: ClassVar[str] = "Everything in this process: threads for the model and the oracle workers."

    kind: Literal["inline"] = "inline"
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Offer metrics to Prometheus at this port; none by default."
    )
    metrics_host: str = Field(
        "127.0.0.1", description="The address of this machine that metrics_port is at; 0.0.0.0 for all."
    )

    def build(self) -> InlineRuntime:
        return InlineRuntime(self)


class InlineRuntime:
    """See :class:`pilotwave.execution.job.Runtime`."""

    name = "inline"

    def __init__(self, config: InlineRuntimeConfig) -> None:
        self._config = config

    def execute(self, job: CampaignJob, observe: Observer, interrupt: Interrupt) -> Outcome:
        """Runs the job in this thread."""
        refuse_copy(job.run_dir)
        with self._telemetry() as telemetry:
            return Coordinator(job, InlineWorkers(job), observe, interrupt, telemetry=telemetry).run()

    @contextmanager
    def _telemetry(self) -> Iterator[list[Telemetry]]:
        if self._config.metrics_port is None:
            yield [CampaignLog()]
            return
        endpoint = MetricsEndpoint(self._config.metrics_host, self._config.metrics_port)
        try:
            yield [CampaignLog(), CampaignMetrics(endpoint.of)]
        finally:
            endpoint.shut()


@dataclass(frozen=True)
class Model:
    """One copy of the model with its own constraints: neither has to bear two threads."""

    name: str
    backbone: Backbone
    constraints: tuple[Constraint, ...]


def devices_of(device: str, copies: int) -> list[str]:
    """Returns where each copy of a model goes: over all GPUs in turn, unless one was named."""
    gpus = torch.cuda.device_count()
    if copies == 1 or device not in ("auto", "cuda") or gpus < 2:
        return [device] * copies
    return [f"cuda:{copy % gpus}" for copy in range(copies)]


class InlineWorkers:
    """Threads that fulfil :class:`pilotwave.execution.workers.Workers`."""

    def __init__(self, job: CampaignJob) -> None:
        config = job.config
        self.generators = config.runtime.generators_in_use
        self._config: CampaignConfig = config
        self._events: queue.SimpleQueue[WorkerEvent] = queue.SimpleQueue()
        self._logs = RunDirectory(job.run_dir).logs
        self._models: queue.SimpleQueue[Model] = queue.SimpleQueue()
        self._evaluators = InlineEvaluators(
            config.oracle, config.runtime, RunDirectory(job.run_dir).receipts, self._events.put
        )
        self._closed = threading.Event()

    def start(self) -> WorkerFacts:
        """Loads the model while the oracle processes start."""
        config = self._config.runtime
        torch.set_num_threads(config.generator_threads)
        self._evaluators.launch()
        loaded = self._load(devices_of(config.device, self.generators))
        for model in loaded:
            self._models.put(model)
        return WorkerFacts.of(loaded[0].backbone, self._evaluators.ready())

    @property
    def evaluators(self) -> int:
        """How many questions can be in flight now."""
        return self._evaluators.up

    def preflight(self) -> None:
        """Asks an evaluator the known question."""
        self._evaluators.preflight()

    def generate(self, request: GenerationRequest) -> None:
        """Hands a proposal to a thread with an idle model."""
        # A daemon thread: an interrupted driver must not wait for a model in the middle of a batch.
        threading.Thread(target=self._generate, args=(request,), daemon=True).start()

    def evaluate(self, request: EvaluationRequest) -> None:
        """Hands a question to an idle evaluator's thread."""
        self._evaluators.evaluate(request)

    def backlog(self, waiting: int) -> None:
        """Lets the pool grow or shrink."""
        self._evaluators.backlog(waiting)

    def wait(self, timeout: float) -> list[WorkerEvent]:
        """Returns what has ended."""
        events: list[WorkerEvent] = []
        deadline = time.monotonic() + timeout
        while not events or not self._events.empty():
            try:
                events.append(self._events.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
        return events

    def close(self) -> None:
        """Kills the oracle processes; a generation in progress is left to end by itself."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._evaluators.close()

    def _load(self, devices: Sequence[str]) -> list[Model]:
        models: list[Model] = []
        for number, device in enumerate(devices):
            name = f"generator-{number}" if len(devices) > 1 else "generator"
            backbone = self._config.backbone.build(device)
            if any(backbone is model.backbone for model in models):  # one that was given as a Python object
                backbone = copy.deepcopy(backbone)
            constraints = tuple(constraint.build() for constraint in self._config.constraints)
            models.append(Model(name, backbone, constraints))
        return models

    def _generate(self, request: GenerationRequest) -> None:
        event: WorkerEvent
        model = self._models.get()
        try:
            with doing(self._logs, worker=model.name, proposal=request.proposal.number):
                made = generate_candidates(model.backbone, model.constraints, request)
            event = dataclasses.replace(made, worker=model.name) if self.generators > 1 else made
        except Exception as error:  # the model may be the user's: whatever it raises becomes one line
            said = str(error) if isinstance(error, PilotwaveError) else f"{type(error).__name__}: {error}"
            event = GenerationFailed(request.proposal.number, said, retryable=False)
        finally:
            self._models.put(model)
        self._events.put(event)


__all__ = ["InlineRuntime", "InlineRuntimeConfig", "InlineWorkers"]
