"""The hands of the loop: somebody generates, some others evaluate, all without being waited for.

The loop (:mod:`pilotwave.execution.coordinator`) knows only this contract; the inline runtime fulfils it with
threads, the Ray runtime with actors. May import :mod:`pilotwave.types`.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Protocol

from pilotwave.execution.question import OracleIdentity
from pilotwave.protocols import Invariants
from pilotwave.samples import Sample
from pilotwave.types import Candidate, Evaluation, Proposal


class ModelFacts(Protocol):
    """What the loop must know of a model; a backbone has it, and so has what a remote one says of itself."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one latent."""
        ...

    @property
    def steps(self) -> int:
        """K."""
        ...

    @property
    def media(self) -> str:
        """Of its samples."""
        ...

    @property
    def conditions_are_free(self) -> bool:
        """Whether an algorithm may choose its samples' conditions."""
        ...

    @property
    def invariants(self) -> Invariants:
        """What surrogates compare its samples by."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of weights, sampler and steps."""
        ...


@dataclass(frozen=True)
class WorkerFacts:
    """What is known once the model is loaded and the oracle is up.

    Attributes:
        latent_shape: Of the backbone.
        steps: K of the backbone.
        media: Of the backbone's samples.
        conditions_are_free: Of the backbone.
        invariants: Of the backbone.
        backbone: Its fingerprint; a run is resumed only with the same one.
        oracle: Its name.
        oracle_version: Its version.
        unit: Of its values.
        deterministic: Whether a known answer need not be asked for again.
    """

    latent_shape: tuple[int, ...]
    steps: int
    media: str
    conditions_are_free: bool
    invariants: Invariants
    backbone: str
    oracle: str
    oracle_version: str
    unit: str
    deterministic: bool

    @classmethod
    def of(cls, model: ModelFacts, oracle: OracleIdentity) -> WorkerFacts:
        """Puts together what the model and the oracle say of themselves."""
        return cls(
            latent_shape=tuple(model.latent_shape),
            steps=model.steps,
            media=model.media,
            conditions_are_free=model.conditions_are_free,
            invariants=model.invariants,
            backbone=model.fingerprint,
            oracle=oracle.name,
            oracle_version=oracle.version,
            unit=oracle.unit,
            deterministic=oracle.deterministic,
        )


@dataclass(frozen=True)
class GenerationRequest:
    """Make this proposal's candidates.

    Attributes:
        proposal: With its plan.
        campaign_seed: Seeds the draws.
        redraws: How often more are drawn while feasible candidates are missing.
        known: Identities of samples that need not be asked about again; from the loop a
            :class:`pilotwave.execution.known.Known`, of which a generator elsewhere need only be sent the news.
        together: How many samples fit into memory at once, or None if any number did so far.
    """

    proposal: Proposal
    campaign_seed: int
    redraws: int
    known: Container[str]
    together: int | None = None


@dataclass(frozen=True)
class GenerationResult:
    """What came of it.

    Attributes:
        proposal: Its number.
        candidates: All that were judged.
        feasible: The query ids that an oracle may be asked about, in the order they were drawn.
        passes: Sampler runs per sample in the plan.
        started: Seconds since the epoch.
        finished: Likewise.
        worker: Who made them, e.g. ``"generator-1"``, or empty where there is but one.
        together: As in the request, or fewer if fewer were found to fit.
    """

    proposal: int
    candidates: tuple[Candidate, ...]
    feasible: tuple[str, ...]
    passes: int
    started: float
    finished: float
    worker: str = ""
    together: int | None = None


@dataclass(frozen=True)
class GenerationFailed:
    """The model itself failed.

    Attributes:
        proposal: Its number.
        message: One line.
        retryable: True if the worker was lost, False if the model raised.
        out_of_memory: True if the worker was ended because memory ran short.
    """

    proposal: int
    message: str
    retryable: bool
    out_of_memory: bool = False


@dataclass(frozen=True)
class EvaluationRequest:
    """Ask the oracle about this sample.

    Attributes:
        query_id: The idempotency key.
        sample: What to judge.
        attempt: 1 for the first.
        time_limit: Wall-clock seconds, or None for what the oracle's configuration says.
    """

    query_id: str
    sample: Sample
    attempt: int
    time_limit: float | None = None


WorkerEvent = GenerationResult | GenerationFailed | Evaluation


class Workers(Protocol):
    """Generators and a pool of evaluators.

    Attributes:
        evaluators: How many evaluations can be in flight now; changes where a pool grows and shrinks.
        generators: How many proposals can be made at once.
    """

    generators: int

    @property
    def evaluators(self) -> int: ...

    def start(self) -> WorkerFacts:
        """Loads the model and starts the oracle workers; returns when the model and an oracle are ready.

        Raises:
            PilotwaveError: The model or the oracle cannot be loaded.
        """
        ...

    def preflight(self) -> None:
        """Asks the oracle its known question.

        Raises:
            PreflightError: It answered otherwise or not at all.
        """
        ...

    def generate(self, request: GenerationRequest) -> None:
        """Hands over a proposal; returns at once. At most ``generators`` may be in the making."""
        ...

    def evaluate(self, request: EvaluationRequest) -> None:
        """Hands over a question; returns at once. At most ``evaluators`` may be in flight."""
        ...

    def backlog(self, waiting: int) -> None:
        """Is told in every turn how many more questions would be asked if there were more evaluators.

        Raises:
            PilotwaveError: There is no evaluator any more, and none will come.
        """
        ...

    def wait(self, timeout: float) -> Sequence[WorkerEvent]:
        """Returns what has ended since the last call, waiting up to ``timeout`` seconds for the first."""
        ...

    def close(self) -> None:
        """Ends everything, killing what does not end by itself."""
        ...


__all__ = [
    "EvaluationRequest",
    "GenerationFailed",
    "GenerationRequest",
    "GenerationResult",
    "ModelFacts",
    "WorkerEvent",
    "WorkerFacts",
    "Workers",
]
