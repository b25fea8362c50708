"""One run of the comparison: a task, a method and a seed.

Everything random comes from the seed, so a run is the same wherever it runs; of its record only the seconds differ.
May import numpy, :mod:`pilotwave.algorithms.random_search` and the modules beside it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pilotwave.bench.loop import Loop, Observe, Record, Reference
from pilotwave.bench.methods import Method, digest
from pilotwave.bench.suites import load_suite
from pilotwave.bench.task import Objective, Task
from pilotwave.bench.threads import one_thread
from pilotwave.config.components import AlgorithmSetting

FORMAT = 1
"""Of a run's record; raised when its meaning changes."""
UNGUIDED_SEED = 1_000_003
"""Of the samples that say what a model does by itself; no run has it."""


@dataclass(frozen=True)
class RunRequest:
    """A run to do; small, picklable, and all that decides its result.

    Attributes:
        suite: Of the task.
        task: Its name.
        method: Who proposes.
        seed: Of everything random.
        queries: To spend.
        device: Of the model.
        reference: Of the task, if it is known already; it is measured otherwise.
    """

    suite: str
    task: str
    method: Method
    seed: int
    queries: int
    device: str = "cpu"
    reference: Reference | None = None

    def identity(self) -> str:
        """Returns 10 hexadecimal digits that change with anything that decides the result."""
        settings = dict(self.method.settings)
        return digest([FORMAT, self.suite, self.task, self.method.kind, settings, self.seed, self.queries])

    @property
    def key(self) -> tuple[str, str, int]:
        """Task, method and seed: what tells it from the other runs of a comparison."""
        return self.task, self.method.name, self.seed

    def in_words(self) -> str:
        """Returns e.g. ``"digits-class, fast-direct, seed 3"``."""
        return f"{self.task}, {self.method.name}, seed {self.seed}"


@one_thread()
def execute(request: RunRequest, observe: Observe | None = None) -> Record:
    """Does a run and returns its record, JSON-compatible; see :func:`_batch_record` for a batch's.

    Raises:
        InputError: There is no such suite, task or method, or a setting is wrong.
    """
    task = load_suite(request.suite).find(request.task)
    config = request.method.config()
    backbone = task.backbone(request.device)
    reference = request.reference or measure_unguided(task, request.device)
    setting = AlgorithmSetting(
        tuple(backbone.latent_shape),
        backbone.steps,
        backbone.media,
        task.batch_size,
        request.seed,
        backbone.conditions_are_free,
        backbone.invariants,
        build_backbone=lambda: task.backbone(request.device),
    )
    with closing(task.objective()) as objective:
        loop = Loop(task, backbone, config.build(setting), objective, request.seed, reference)
        batches = loop.run(request.queries, observe)
        unseen = loop.unseen(request.device) if task.unseen is not None else None
    return {
        "format": FORMAT,
        "identity": request.identity(),
        "suite": task.suite,
        "task": task.name,
        "method": request.method.name,
        "kind": request.method.kind,
        "settings": dict(request.method.settings),
        "seed": request.seed,
        "queries": request.queries,
        "backbone": backbone.fingerprint,
        "reference": reference.to_json(),
        "stalled": loop.stalled,
        "batches": batches,
        "unseen": unseen,
    }


@one_thread()
def measure_unguided(task: Task, device: str = "cpu") -> Reference:
    """Draws and judges unguided samples, as a run of ``random`` would."""
    from pilotwave.algorithms.random_search import RandomPlan, RandomSearch

    plain = dataclasses.replace(task, noise=0.0, failures=0.0)
    backbone = plain.backbone(device)
    with closing(plain.objective()) as objective:
        loop = Loop(plain, backbone, RandomSearch(), objective, UNGUIDED_SEED, Reference(0.0, 1.0, 0))
        batches = loop.run(plain.unguided)
        unseen = None
        if plain.unseen is not None:
            other = plain.unseen(device)
            losses = loop.judged(other, RandomPlan(), plain.unguided)
            unseen = (float(losses.mean()), _spread(losses))
    losses = np.array([loss for batch in batches for loss in batch["losses"] if loss is not None])
    return Reference(
        float(losses.mean()),
        _spread(losses),
        len(losses),
        mean_of(batch["quality"] for batch in batches),
        mean_of(batch["diversity"] for batch in batches),
        unseen,
    )


def mean_of(measures: Iterator[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of each name over the batches that have it."""
    pairs = sorted(itertools.chain.from_iterable(measure.items() for measure in measures))
    groups = itertools.groupby(pairs, key=lambda pair: pair[0])
    return {name: float(np.mean([value for _, value in group])) for name, group in groups}


@contextmanager
def closing(objective: Objective) -> Iterator[Objective]:
    """Closes an objective whatever happens."""
    try:
        yield objective
    finally:
        objective.close()


def _spread(losses: npt.NDArray[np.float64]) -> float:
    """The standard deviation; 1 where all losses are equal, so that levels stay finite."""
    return float(losses.std()) or 1.0


__all__ = ["RunRequest", "closing", "execute", "mean_of", "measure_unguided"]
