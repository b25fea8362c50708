"""The contracts between the parts: backbone, plan, algorithm, surrogate, constraint, oracle, tracker.

May import :mod:`pilotwave.types` and :mod:`pilotwave.samples`; torch for annotations only. Every implementation,
ours and a plug-in's, passes the contract's suite in :mod:`pilotwave.testing`. The runtime's contract lives in
:mod:`pilotwave.execution` beside the loop that uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pilotwave.samples import Invalid, Sample
from pilotwave.types import Answer, Draw, GeneratedBatch, Observation, Proposal

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class StepState:
    """What a step hook sees.

    Attributes:
        index: The step, 0 <= index < steps.
        steps: K.
        noisy: x_t, float32 of shape (batch, *latent_shape).
        noise_level: sigma_t of x_t = signal_t * x_0 + sigma_t * noise.
        signal_level: signal_t (1 for EDM-style models).
        clean_weight: How much of the predicted clean latent goes into the next noisy one.
        noise_weight: How much of the injected noise does; 0 at a noiseless step. Noise that is shifted by
            clean_weight / noise_weight * delta does to the next latent what shifting the prediction by delta does.
    """

    index: int
    steps: int
    noisy: Tensor
    noise_level: float
    signal_level: float
    clean_weight: float
    noise_weight: float


StepHook = Callable[[StepState, "Tensor"], "Tensor"]
"""``hook(state, predicted_clean) -> predicted_clean``, both of shape (batch, *latent_shape)."""

NoiseHook = Callable[[StepState, "Tensor", "Tensor"], "Tensor"]
"""``noise_hook(state, predicted_clean, noise) -> noise``, all of shape (batch, *latent_shape).

Called at every step that injects noise, with the noise that it is about to inject; what it returns is injected
instead. Guidance that is written as edited noise can be kept: the edited sequence gives the same latents again.
"""


Invariants = Callable[["Tensor", "Tensor"], "Tensor"]
"""``invariants(latents, conditions) -> numbers``, of shape (batch, numbers): differentiable, small to send."""


def flattened(latents: Tensor, conditions: Tensor) -> Tensor:
    """Returns latents as they are, (batch, dim): the :data:`Invariants` of a model without symmetries."""
    return latents.flatten(1)


@runtime_checkable
class Backbone(Protocol):
    """A diffusion or flow model with its sampler and decoder: noise in, samples out, deterministic.

    Attributes:
        name: Short, for people.
        fingerprint: Changes if and only if the same noise could give another sample (weights, sampler, steps).
        steps: K, the number of sampler steps.
        latent_shape: The shape of one latent.
        condition_size: How many integers condition one sample (0 for none).
        conditions_are_free: Whether an algorithm may choose conditions itself (a number of atoms), or has to take
            those that are drawn (a class or a prompt, which the user wants as it is).
        media: The kind of sample it decodes to, see :class:`pilotwave.samples.Sample`.
        invariants: Describes latents by numbers that no symmetry of the model changes; surrogates compare samples
            by these. :func:`flattened` where the model has no symmetry, distances and classes for molecules.
        device: Where it runs, e.g. ``"cpu"``, ``"cuda:0"``. Results are on the CPU in float32 all the same.
    """

    name: str
    fingerprint: str
    steps: int
    latent_shape: tuple[int, ...]
    condition_size: int
    conditions_are_free: bool
    media: str
    invariants: Invariants
    device: str

    def draw_noise(self, draws: Sequence[Draw]) -> Tensor:
        """Draws the noise sequences, each from its own seed alone.

        Returns:
            float32 of shape (steps + 1, batch, *latent_shape): index 0 gives the initial latent, index k the
            noise injected after step k. Components that the sampler does not use are zero.
        """
        ...

    def draw_conditions(self, draws: Sequence[Draw]) -> Tensor:
        """Draws the conditions (class, number of atoms), each from its own seed and the configuration.

        Returns:
            int64 of shape (batch, condition_size).
        """
        ...

    def sample(
        self,
        noise_sequence: Tensor,
        conditions: Tensor,
        hook: StepHook | None = None,
        noise_hook: NoiseHook | None = None,
    ) -> Tensor:
        """Runs the sampler: G(noise sequence; condition).

        Args:
            noise_sequence: (steps + 1, batch, *latent_shape).
            conditions: (batch, condition_size).
            hook: Called at every step with the predicted clean latent, may return a shifted one.
            noise_hook: Called after it at every step that injects noise, may return other noise.

        Returns:
            The finished latents x_K, float32 of shape (batch, *latent_shape).
        """
        ...

    def decode(self, latents: Tensor, conditions: Tensor) -> list[Sample | Invalid]:
        """Decodes finished latents of shape (batch, *latent_shape); one sample or reason for each."""
        ...

    def align(self, moving: Tensor, fixed: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Moves each latent by a symmetry of the model so that it lies as near as can be to another one.

        Args:
            moving: (batch, *latent_shape).
            fixed: (batch, *latent_shape).
            conditions: (batch, condition_size) of ``fixed``, or None.

        Returns:
            (batch, *latent_shape): ``moving`` itself where the model has no symmetry; rotated onto ``fixed``
            (Kabsch) for molecules, which have no fixed frame.
        """
        ...


@runtime_checkable
class AdaptableBackbone(Backbone, Protocol):
    """A backbone whose predictions come from a network that an algorithm may train an adapter for."""

    @property
    def denoiser(self) -> nn.Module:
        """The network, on :attr:`device`. It is shared: whoever adapts it adapts a copy."""
        ...

    def predict_clean(
        self, noisy: Tensor, step_index: int, conditions: Tensor, denoiser: nn.Module | None = None
    ) -> Tensor:
        """Predicts the clean latents as :meth:`sample` does at a step; differentiable in the network's parameters.

        Args:
            noisy: x_t before the step, on :attr:`device`, shape (batch, *latent_shape).
            step_index: 0 <= step_index < steps.
            conditions: (batch, condition_size).
            denoiser: A network with the interface of :attr:`denoiser` to be asked in its place.

        Returns:
            On :attr:`device`, shape (batch, *latent_shape).
        """
        ...


@runtime_checkable
class Plan(Protocol):
    """What an algorithm wants done next to the model: it carries all it needs and is small to send.

    Batches may be made in parts; a plan whose samples depend on each other's draws has ``couples_draws = True``.
    """

    def generate(self, backbone: Backbone, draws: Sequence[Draw]) -> GeneratedBatch:
        """Makes one sample per draw; a deterministic function of the plan, the backbone and the draws."""
        ...


@runtime_checkable
class Algorithm(Protocol):
    """Decides what to ask next. Ask and tell are by id: any order, partial, and telling twice changes nothing.

    Determinism: the same calls in the same order give the same proposals, also after
    ``load_state_dict(state_dict())`` into a new instance.
    """

    name: str

    def ask(self, count: int) -> Proposal:
        """Returns the next proposal.

        Raises:
            ValueError: ``count`` is below 1.
        """
        ...

    def tell(self, observations: Sequence[Observation]) -> None:
        """Learns from answers. Ids already told are ignored; observations without a loss are allowed.

        Candidates of proposal -1 come from earlier campaigns: learn from them as from one's own, or, where that
        makes no sense, go on as if they had not been told.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state: a flat dict of tensors and JSON-compatible values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned.

        Raises:
            ValueError: The state is of another algorithm or shape.
        """
        ...


@runtime_checkable
class PredictingAlgorithm(Algorithm, Protocol):
    """An algorithm that can say what it expects of a sample that nobody has judged."""

    def predict(self, backbone: Backbone, latents: Tensor, conditions: Tensor) -> Tensor | None:
        """Returns the losses that it expects, in the unit of those that it was told.

        Args:
            backbone: The model.
            latents: Finished ones, finite, of shape (batch, *latent_shape).
            conditions: (batch, condition_size).

        Returns:
            float64 of shape (batch,), NaN where it expects nothing; None while it knows too little, or always.
        """
        ...


@runtime_checkable
class Surrogate(Protocol):
    """A cheap differentiable model of the oracle on flattened latents, ``dim`` numbers each."""

    def append(self, points: Tensor, values: Tensor) -> None:
        """Adds answers: points (n, dim), values (n,)."""
        ...

    def mean(self, points: Tensor) -> Tensor:
        """Returns the posterior mean at points (batch, dim), shape (batch,)."""
        ...

    def mean_gradient(self, points: Tensor) -> Tensor:
        """Returns the gradient of the posterior mean at points (batch, dim), shape (batch, dim)."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What a constraint says of a sample.

    Attributes:
        reason: Why the oracle must not be asked, or None if the sample passes.
        properties: What was measured, by name, kept with the candidate.
    """

    reason: str | None
    properties: Mapping[str, float]


@runtime_checkable
class Constraint(Protocol):
    """A cheap check that a sample passes before an expensive oracle is asked; runs next to the model."""

    name: str
    media: frozenset[str]

    def check(self, sample: Sample) -> Verdict:
        """Judges one sample; never raises for a sample of an accepted media."""
        ...


@dataclass(frozen=True)
class QueryContext:
    """What an oracle may know besides the sample.

    Attributes:
        query_id: The idempotency key: the same id is the same question, however often it is sent.
        attempt: 1 for the first.
    """

    query_id: str
    attempt: int = 1


@dataclass(frozen=True)
class KnownAnswer:
    """A question whose answer is known, asked before the first paid query.

    Attributes:
        sample: The known candidate.
        value: The known value, or None if only success and finiteness are checked.
        tolerance: How far from it the answer may lie, absolute, in the oracle's unit.
    """

    sample: Sample
    value: float | None = None
    tolerance: float = 0.0


@runtime_checkable
class Oracle(Protocol):
    """The expensive judge, a black box. Built where it runs, asked one sample at a time.

    Attributes:
        name: e.g. ``"xtb:polarizability"``.
        version: Changes whenever the same sample could get another value (the tool's own version included).
        unit: e.g. ``"bohr^3"``; ``""`` if it has none.
        media: The kinds of sample that it accepts.
        deterministic: Whether the same sample always gets the same value, so that an answer can be reused.
    """

    name: str
    version: str
    unit: str
    media: frozenset[str]
    deterministic: bool

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Answers one question.

        Raises:
            OracleFailure: This sample could not be evaluated; stage and reason are in it.
        """
        ...

    def known_answer(self) -> KnownAnswer | None:
        """Returns the preflight question, or None if the oracle has none that is free."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Writes a campaign down for people, e.g. to MLflow. It fails open: an error is said, never raised."""

    def start(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Opens the run, or opens it again on resume."""
        ...

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Buffers metrics; returns at once."""
        ...

    def artifact(self, path: str) -> None:
        """Attaches a file."""
        ...

    def finish(self, status: str) -> None:
        """Writes what is buffered and closes the run: ``"finished"``, ``"failed"`` or ``"killed"``."""
        ...

    def describe(self) -> str:
        """Returns one line for the user: where the run is and how to open it."""
        ...


@runtime_checkable
class ModelTracker(Tracker, Protocol):
    """A tracker that also keeps what was learned, and tags that are only known at the end."""

    def model(self, folder: str, step: int) -> None:
        """Attaches a folder of learned guidance, as it was after so many queries."""

    def tag(self, tags: Mapping[str, str]) -> None:
        """Adds tags to the run."""


__all__ = [
    "AdaptableBackbone",
    "Algorithm",
    "Backbone",
    "Constraint",
    "Invariants",
    "KnownAnswer",
    "ModelTracker",
    "NoiseHook",
    "Oracle",
    "Plan",
    "PredictingAlgorithm",
    "QueryContext",
    "StepHook",
    "StepState",
    "Surrogate",
    "Tracker",
    "Verdict",
    "flattened",
]
