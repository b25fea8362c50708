"""Small campaigns driven step by step, without processes: real models, algorithms, ledgers and checkpoints.

For tests that need a run directory whose latents, noise and answers are real, of any kind of sample, in a second.
May import the core.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.backbones.analytic import AnalyticBackbone, synthetic_clusters
from pilotwave.config.campaign import CampaignConfig
from pilotwave.config.components import AlgorithmSetting
from pilotwave.execution.generation import generate_candidates
from pilotwave.execution.memory import CampaignMemory
from pilotwave.execution.workers import GenerationRequest
from pilotwave.protocols import Algorithm
from pilotwave.samples import Sample
from pilotwave.testing.faulty_oracles import FaultyOracleConfig, score
from pilotwave.testing.runtime_contract import campaign
from pilotwave.types import Candidate, Evaluation, Observation, Status, Timings

STEPS, DIM, SIDE = 3, 6, 6
START = 1_760_000_000.0
"""When the first question was asked, seconds since the epoch; one follows another every minute."""


@dataclass(frozen=True)
class SteeredRun:
    """A campaign that was driven.

    Attributes:
        path: Its directory.
        config: The campaign.
        backbone: The model.
    """

    path: Path
    config: CampaignConfig
    backbone: AnalyticBackbone

    def fresh_algorithm(self) -> Algorithm:
        """Returns an algorithm that was told nothing."""
        return self.config.algorithm.build(_setting(self.backbone, self.config))

    def restored(self) -> Algorithm:
        """Returns the algorithm as a resumed campaign has it."""
        algorithm = self.fresh_algorithm()
        memory = CampaignMemory(RunDirectory(self.path), self.config.objective)
        try:
            memory.restore(algorithm)
        finally:
            memory.close()
        return algorithm

    def told_without(self, gone: Sequence[str]) -> Algorithm:
        """Returns a fresh algorithm that is asked and told what the ledger says, without some answers."""
        algorithm = self.fresh_algorithm()
        settled: dict[str, Evaluation] = {}
        with Ledger.open(self.path / "ledger.sqlite", read_only=True) as ledger:
            for event in ledger.events():
                if event.kind is EventKind.ASKED:
                    algorithm.ask(event.record["count"])
                elif event.kind is EventKind.SETTLED:
                    settled[event.record["query_id"]] = event.evaluation()
                elif event.kind is EventKind.TOLD:
                    ids = [query_id for query_id in event.record["query_ids"] if query_id not in gone]
                    observations = [
                        self._observation(item, settled[item.query_id]) for item in ledger.candidates(ids)
                    ]
                    if observations:
                        algorithm.tell(observations)
        return algorithm

    def candidates(self, query_ids: Sequence[str]) -> list[Candidate]:
        """Returns candidates from the ledger."""
        with Ledger.open(self.path / "ledger.sqlite", read_only=True) as ledger:
            return ledger.candidates(query_ids)

    def _observation(self, candidate: Candidate, evaluation: Evaluation) -> Observation:
        loss = None if evaluation.value is None else self.config.objective.loss(evaluation.value)
        return Observation(candidate, evaluation.status, loss)


def steer(
    run_dir: Path,
    *,
    algorithm: Mapping[str, Any] | None = None,
    media: str = "array",
    batches: int = 4,
    batch_size: int = 6,
    samples: Sequence[Sample] = (),
    judge: Callable[[Sample, int], float | None] | None = None,
    worker: Callable[[int], str] | None = None,
    **fields: Any,
) -> SteeredRun:
    """Drives a campaign.

    Args:
        run_dir: New.
        algorithm: Section of a campaign file; trust-direct by default.
        media: ``"array"`` or ``"image"``.
        batches: How many.
        batch_size: Of a proposal.
        samples: Stand in for what is decoded, in order, e.g. molecules.
        judge: From the sample and the number of the query, from 0, to its value, or None for a failure.
        worker: From the number of the query to who answered.
        fields: Further sections of the campaign.
    """
    queries = batches * batch_size
    chosen = {"algorithm": dict(algorithm or {"kind": "trust-direct"}), **fields}
    config = campaign(
        FaultyOracleConfig(),
        {"kind": "inline", "mode": "synchronous"},
        queries=queries,
        batch_size=batch_size,
        **chosen,
    ).config
    backbone = _backbone(media)
    run = RunDirectory(run_dir)
    run.create(config)
    chooser = config.algorithm.build(_setting(backbone, config))
    memory = CampaignMemory(run, config.objective)
    try:
        facts = {"backbone": backbone.fingerprint, "oracle": "faulty", "oracle_version": "1", "unit": ""}
        started = {"facts": facts, "host": "h", "pid": 1, "resumed": False, "queries": queries}
        memory.append(EventKind.STARTED, started)
        for number in range(batches):
            proposal = chooser.ask(batch_size)
            memory.append(EventKind.ASKED, {"proposal": proposal.number, "count": batch_size})
            request = GenerationRequest(proposal, config.seed, 4, memory.known.now())
            made = generate_candidates(backbone, [], request)
            if samples:
                made = dataclasses.replace(made, candidates=_with_samples(made.candidates, samples))
            memory.generated(made)
            for place, query_id in enumerate(made.feasible):
                _answer(memory, query_id, number * batch_size + place, judge, worker)
            memory.tell(chooser, made.feasible)
            memory.checkpoint(chooser, is_last=True)
        memory.append(EventKind.STOPPED, {"reason": "finished"})
    finally:
        memory.close()
    return SteeredRun(run.path, config, backbone)


def _answer(
    memory: CampaignMemory,
    query_id: str,
    number: int,
    judge: Callable[[Sample, int], float | None] | None,
    worker: Callable[[int], str] | None,
) -> None:
    sample = memory.candidates[query_id].sample
    assert sample is not None
    value = score(sample) if judge is None else judge(sample, number)
    memory.reserve(query_id, 1)
    memory.settle(
        Evaluation(
            query_id,
            Status.FAILED if value is None else Status.OK,
            value,
            cost=1.0,
            timings=Timings(START + 60 * number, START + 60 * number + 30),
            worker=f"evaluator-{number % 2}" if worker is None else worker(number),
        )
    )


def _with_samples(candidates: Sequence[Candidate], samples: Sequence[Sample]) -> tuple[Candidate, ...]:
    return tuple(
        dataclasses.replace(item, sample=samples[(item.proposal * len(candidates) + place) % len(samples)])
        for place, item in enumerate(candidates)
    )


def _backbone(media: str) -> AnalyticBackbone:
    points = synthetic_clusters(DIM if media == "array" else SIDE * SIDE, 8, 4, 0)
    if media == "array":
        return AnalyticBackbone.fit(points, 8, 4, STEPS)
    images = np.clip(0.5 + 0.2 * points.reshape(-1, SIDE, SIDE), 0.0, 1.0)
    return AnalyticBackbone.fit(images, 8, 4, STEPS, decode="image")


def _setting(backbone: AnalyticBackbone, config: CampaignConfig) -> AlgorithmSetting:
    return AlgorithmSetting(
        backbone.latent_shape,
        backbone.steps,
        backbone.media,
        config.budget.batch_size,
        config.seed,
        conditions_are_free=backbone.conditions_are_free,
        invariants=backbone.invariants,
        build_backbone=lambda: backbone,
    )


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Waits until something is so; says whether it came to be."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return condition()


__all__ = ["START", "SteeredRun", "steer", "wait_for"]
