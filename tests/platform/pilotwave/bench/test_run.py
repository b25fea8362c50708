"""Runs: what is counted, what is the same, and what the algorithm hears."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from pilotwave.bench.loop import POOR_BATCHES, Loop, Step
from pilotwave.bench.methods import Method
from pilotwave.bench.run import RunRequest, execute, measure_unguided
from pilotwave.bench.task import Suite
from pilotwave.protocols import Verdict
from pilotwave.types import Status


def without_seconds(record: dict[str, Any]) -> dict[str, Any]:
    timed = {"seconds", "cpu_seconds"}
    batches = [{key: value for key, value in batch.items() if key not in timed} for batch in record["batches"]]
    return {**record, "batches": batches}


def test_a_run_spends_its_queries_exactly_and_says_what_it_did(small: Suite) -> None:
    steps: list[Step] = []
    record = execute(RunRequest("small", "target", Method("fast-direct"), 0, 30), steps.append)
    assert [batch["queries"] for batch in record["batches"]] == [8, 16, 24, 30]
    # the fourth round of Fast Direct runs the sampler four times, for six samples
    assert [batch["passes"] for batch in record["batches"]] == [8, 24, 48, 72]
    assert [step.queries for step in steps] == [8, 16, 24, 30]
    bests = [batch["best"] for batch in record["batches"]]
    assert bests == sorted(bests, reverse=True)
    assert bests[-1] == min(loss for batch in record["batches"] for loss in batch["losses"])
    last = record["batches"][-1]
    assert last["mean"] == pytest.approx(np.mean(last["losses"]))
    assert set(last["quality"]) == {"log_likelihood", "nearest_distance"}
    assert 0 < last["diversity"]["spread"] < 2
    assert set(last["seconds"]) == {"ask", "generate", "judge", "tell"}
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_the_same_seed_gives_the_same_run_and_another_one_another(small: Suite) -> None:
    def run(seed: int, method: str = "fast-direct") -> dict[str, Any]:
        return without_seconds(execute(RunRequest("small", "target", Method(method), seed, 24)))

    assert run(3) == run(3)
    assert run(3)["batches"] != run(4)["batches"]
    # before anything is known all methods draw the same samples
    assert run(3)["batches"][0]["losses"] == run(3, "random")["batches"][0]["losses"]


def test_unguided_samples_have_level_zero_and_spread_one(small: Suite) -> None:
    task = small.find("target")
    reference = measure_unguided(task)
    assert reference.count == 64
    assert reference.unseen is not None
    record = execute(RunRequest("small", "target", Method("random"), 0, 400, reference=reference))
    losses = np.array([loss for batch in record["batches"] for loss in batch["losses"]])
    levels = (losses - reference.mean) / reference.spread
    assert abs(levels.mean()) < 0.35
    assert 0.7 < levels.std() < 1.4
    assert abs(record["unseen"]["level"]) < 0.6


def test_noisy_answers_are_told_and_true_ones_recorded(small: Suite) -> None:
    record = execute(RunRequest("small", "target+noise", Method("random"), 0, 400))
    plain = execute(RunRequest("small", "target", Method("random"), 0, 400))
    assert record["reference"]["mean"] == plain["reference"]["mean"]
    true = np.array([loss for batch in record["batches"] for loss in batch["losses"]])
    told = np.array([loss for batch in record["batches"] for loss in batch["told"]])
    assert true.tolist() == [loss for batch in plain["batches"] for loss in batch["losses"]]
    error = (told - true) / record["reference"]["spread"]
    assert abs(error.mean()) < 0.2
    assert 0.85 < error.std() < 1.15


def test_a_fifth_of_the_questions_fails_and_is_paid_for(small: Suite) -> None:
    record = execute(RunRequest("small", "target+failures", Method("random"), 0, 400))
    told = [loss for batch in record["batches"] for loss in batch["told"]]
    assert record["batches"][-1]["queries"] == len(told) == 400
    assert 50 < told.count(None) < 110
    assert min(loss for loss in told if loss is not None) == record["batches"][-1]["best"]


class Refusing:
    name, media = "refusing", frozenset({"array"})

    def check(self, sample: object) -> Verdict:
        return Verdict("nothing passes", {})


class Recording:
    name = "recording"

    def __init__(self) -> None:
        from pilotwave.algorithms.random_search import RandomSearch

        self.inner, self.told = RandomSearch(), 0

    def ask(self, count: int):  # type: ignore[no-untyped-def]
        return self.inner.ask(count)

    def tell(self, observations) -> None:  # type: ignore[no-untyped-def]
        assert all(item.status is Status.OK for item in observations)
        self.told += len(observations)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state) -> None:  # type: ignore[no-untyped-def]
        del state


def test_a_run_with_nothing_to_ask_about_ends(small: Suite) -> None:
    import dataclasses

    task = dataclasses.replace(small.find("target"), constraints=lambda: [Refusing()])
    reference = measure_unguided(small.find("target"))
    loop = Loop(task, task.backbone("cpu"), Recording(), task.objective(), 0, reference)
    batches = loop.run(100)
    assert loop.stalled
    assert len(batches) == POOR_BATCHES
    assert batches[-1]["queries"] == 0
    assert batches[-1]["passes"] == batches[-1]["batch"] * batches[0]["passes"] + batches[0]["passes"]


def test_an_answer_that_is_known_is_not_paid_for_again(small: Suite) -> None:
    import dataclasses

    from pilotwave.samples import ArraySample

    class Coarse:
        """Only three things can come out."""

        def __getattr__(self, name: str) -> Any:
            return getattr(small.find("target").backbone("cpu"), name)

        def decode(self, latents: torch.Tensor, conditions: torch.Tensor) -> list[ArraySample]:
            kinds = (latents.flatten(1).mean(dim=1) * 10).round().clamp(-1, 1) + 0.0  # no -0.0
            return [ArraySample(np.full(12, float(kind), dtype=np.float32)) for kind in kinds]

    task = dataclasses.replace(small.find("target"), batch_size=8)
    loop = Loop(task, Coarse(), Recording(), task.objective(), 0, measure_unguided(small.find("target")))  # type: ignore[arg-type]
    batches = loop.run(50)
    assert loop.stalled
    assert sum(batch["asked"] for batch in batches) == 3
    assert len(batches) == POOR_BATCHES
    noisy = dataclasses.replace(task, noise=1.0)
    loop = Loop(noisy, Coarse(), Recording(), task.objective(), 0, measure_unguided(small.find("target")))  # type: ignore[arg-type]
    assert loop.run(9)[-1]["queries"] == 9
