"""The loop of a run: propose, generate, judge, tell, batch after batch until the queries are spent.

It is a campaign's in synchronous mode, without its ledger: invalid samples, vetoed ones and known answers are drawn
again and cost no query. May import torch, :mod:`pilotwave.execution` and :mod:`pilotwave.bench.task`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pilotwave.bench.task import Measure, Objective, Task
from pilotwave.execution.generation import generate_candidates
from pilotwave.execution.workers import GenerationRequest, GenerationResult
from pilotwave.protocols import Algorithm, Backbone, Constraint, Plan
from pilotwave.types import Candidate, Draw, GeneratedBatch, Observation, Proposal, Status

REDRAWS = 8
"""As in a campaign, see :class:`pilotwave.config.campaign.Generation`."""
POOR_BATCHES, POOR_SHARE = 4, 0.25
"""A run ends early when of what so many batches in a row wanted less than this share could be asked about: its
method has collapsed onto what is known or left what is valid, and would go on drawing for hours."""
UNSEEN_DRAWS = 64

Record = dict[str, Any]
Observe = Callable[["Step"], None]


@dataclass(frozen=True)
class Reference:
    """What a task's model does unguided.

    Attributes:
        mean: Of the losses.
        spread: Their standard deviation, above 0.
        count: How many there were.
        quality: Means over batches, see :class:`pilotwave.bench.task.Measured`.
        diversity: Likewise.
        unseen: Mean and spread on the unseen conditions, if the task has any.
    """

    mean: float
    spread: float
    count: int
    quality: dict[str, float] = field(default_factory=dict)
    diversity: dict[str, float] = field(default_factory=dict)
    unseen: tuple[float, float] | None = None

    def to_json(self) -> Record:
        """Returns it as JSON-compatible values."""
        return {**dataclasses.asdict(self), "unseen": None if self.unseen is None else list(self.unseen)}


@dataclass(frozen=True)
class Step:
    """How far a run is.

    Attributes:
        queries: Spent.
        level: Mean true loss of the last batch, in standard deviations of unguided losses from their mean.
    """

    queries: int
    level: float | None


class Loop:
    """A run in progress.

    Attributes:
        stalled: Whether it ended early because hardly anything could be asked about any more.
    """

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        algorithm: Algorithm,
        objective: Objective,
        seed: int,
        reference: Reference,
    ) -> None:
        self.task, self.backbone, self.algorithm, self.objective = task, backbone, algorithm, objective
        self.seed, self.reference, self.stalled = seed, reference, False
        self._constraints: Sequence[Constraint] = task.constraints()
        self._measure: Measure = task.measure()
        self._known: set[str] = set()
        self._best: float | None = None

    def run(self, queries: int, observe: Observe | None = None) -> list[Record]:
        """Spends the queries and returns the records of the batches."""
        spent, passes = 0, 0
        batches: list[Record] = []
        while spent < queries and not self.stalled:
            record = self._batch(min(self.task.batch_size, queries - spent))
            spent, passes = spent + record["asked"], passes + record["drawn_passes"]
            record |= {"queries": spent, "passes": passes}
            batches.append(record)
            late = batches[-POOR_BATCHES:]
            found, wanted = (sum(batch[key] for batch in late) for key in ("asked", "wanted"))
            self.stalled = len(late) == POOR_BATCHES and found < POOR_SHARE * wanted
            if observe is not None:
                mean = record["mean"]
                level = None if mean is None else (mean - self.reference.mean) / self.reference.spread
                observe(Step(spent, level))
        return batches

    def judged(self, backbone: Backbone, plan: Plan, count: int) -> npt.NDArray[np.float64]:
        """Returns the losses of samples that nobody learns from; invalid ones are left out."""
        losses: list[float | None] = []
        for start in range(0, count, self.task.batch_size):
            slots = range(start, min(count, start + self.task.batch_size))
            draws = [Draw.of(self.seed, 1_000_000, slot) for slot in slots]
            batch = plan.generate(backbone, draws)
            decoded = backbone.decode(batch.latents, batch.conditions)
            kept = [place for place, sample in enumerate(decoded) if hasattr(sample, "media")]
            samples: Any = [decoded[place] for place in kept]
            losses += self.objective.judge(samples, batch.latents[kept], batch.conditions[kept])
        return np.array([loss for loss in losses if loss is not None], dtype=np.float64)

    def unseen(self, device: str) -> Record | None:
        """Returns how samples on conditions that the run never saw fare, with no further query."""
        assert self.task.unseen is not None
        losses = self.judged(self.task.unseen(device), self.algorithm.ask(UNSEEN_DRAWS).plan, UNSEEN_DRAWS)
        if self.reference.unseen is None or not len(losses):
            return None
        mean, spread = self.reference.unseen
        return {"mean": float(losses.mean()), "level": float((losses.mean() - mean) / spread), "count": len(losses)}

    def _batch(self, count: int) -> Record:
        clock = Clock()
        with clock.of("ask"):
            proposal = self.algorithm.ask(count)
        metered = MeteredPlan(proposal.plan)
        with clock.of("generate"):
            request = GenerationRequest(
                Proposal(proposal.number, proposal.count, metered), self.seed, REDRAWS, self._repeatable()
            )
            result = generate_candidates(self.backbone, self._constraints, request)
        chosen = set(result.feasible)
        asked = [candidate for candidate in result.candidates if candidate.query_id in chosen]
        with clock.of("judge"):
            losses = self._judge(asked)
        told = self._answers(asked, losses)
        with clock.of("tell"):
            self.algorithm.tell(
                [
                    Observation(candidate, Status.FAILED if loss is None else Status.OK, loss)
                    for candidate, loss in zip(asked, told, strict=True)
                ]
            )
        return self._record(result, count, asked, losses, told, metered.passes, clock)

    def _repeatable(self) -> frozenset[str]:
        """Identities whose answer is known; where answers are noisy, asking again tells something new."""
        return frozenset() if self.task.noise else frozenset(self._known)

    def _judge(self, asked: Sequence[Candidate]) -> list[float | None]:
        if not asked:
            return []
        samples = [candidate.sample for candidate in asked if candidate.sample is not None]
        self._known.update(sample.identity() for sample in samples)
        latents = torch.stack([candidate.latent for candidate in asked])
        conditions = torch.stack([candidate.condition for candidate in asked])
        return self.objective.judge(samples, latents, conditions)

    def _answers(self, asked: Sequence[Candidate], losses: Sequence[float | None]) -> list[float | None]:
        """What the algorithm is told: the losses with the task's noise and failures."""
        told: list[float | None] = []
        for candidate, loss in zip(asked, losses, strict=True):
            text = f"bench/{self.seed}/{candidate.query_id}".encode()
            random = np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))
            fails, error = random.random() < self.task.failures, random.standard_normal()
            noise = self.task.noise * self.reference.spread * error
            told.append(None if loss is None or fails else loss + float(noise))
        return told

    def _record(
        self,
        result: GenerationResult,
        wanted: int,
        asked: Sequence[Candidate],
        losses: Sequence[float | None],
        told: Sequence[float | None],
        passes: int,
        clock: Clock,
    ) -> Record:
        """Returns what is kept of a batch.

        ``losses`` are true ones, ``told`` what the algorithm heard; ``mean`` and ``best`` (so far, among the
        answered) are true. ``queries`` and ``passes`` (runs of the sampler for one sample, redraws included) are
        added up from the start of the run.
        """
        known = [loss for loss in losses if loss is not None]
        answered = [
            loss for loss, heard in zip(losses, told, strict=True) if loss is not None and heard is not None
        ]
        self._best = min([*answered, *([] if self._best is None else [self._best])], default=None)
        measured = self._measure(result.candidates, asked)
        return {
            "batch": result.proposal,
            "wanted": wanted,
            "asked": len(asked),
            "drawn": len(result.candidates),
            "drawn_passes": passes,
            "losses": list(losses),
            "told": list(told),
            "mean": float(np.mean(known)) if known else None,
            "best": self._best,
            "quality": dict(measured.quality),
            "diversity": dict(measured.diversity),
            "seconds": clock.seconds,
            "cpu_seconds": clock.cpu_seconds,
        }


@dataclass
class MeteredPlan:
    """A plan that counts how often the sampler runs for it.

    Attributes:
        plan: What it does.
        passes: Samples times passes, so far.
    """

    plan: Plan
    passes: int = 0

    def generate(self, backbone: Backbone, draws: Sequence[Draw]) -> GeneratedBatch:
        batch = self.plan.generate(backbone, draws)
        self.passes += batch.passes * len(draws)
        return batch


class Clock:
    """Adds up the seconds of a batch's parts, on the clock and of this process.

    Attributes:
        seconds: On the clock, by part.
        cpu_seconds: Of this process, by part; an oracle in a process of its own is not in it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Counts what happens inside to a part."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - wall
        self.cpu_seconds[part] = self.cpu_seconds.get(part, 0.0) + time.process_time() - cpu


__all__ = ["Clock", "Loop", "MeteredPlan", "Observe", "Record", "Reference", "Step"]
