"""Campaigns that share evaluators: fairly, within one rate, and whoever is killed."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave.campaign import CampaignResult
from pilotwave.config.given import GivenOracleConfig
from pilotwave.errors import InputError
from pilotwave.execution.receipts import Asker, newest_driver, read_receipts, wait_until_quiet
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.samples import ArraySample
from pilotwave.testing.actor_processes import pids_of_actor
from pilotwave.testing.faulty_oracles import RecordingOracleConfig
from pilotwave.testing.small_campaign import answers_of, campaign, state_of, wait_for
from pilotwave.types import Status
from pilotwave_actors.evaluator_crew import CrewPlan
from pilotwave_actors.evaluators_owner import SharedEvaluatorsOwner
from pilotwave_actors.generator import Generator
from pilotwave_actors.places import NO_LOGS
from pilotwave_actors.sharing import NAMESPACE, Sharer, digest_of, find_or_make

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster", "nothing_shared_is_left")]


def recording(folder: Path, **settings: Any) -> RecordingOracleConfig:
    return RecordingOracleConfig(started_file=folder / "started", finished_file=folder / "finished", **settings)


class Running:
    """Several campaigns at once, each driven by a thread of this process."""

    def __init__(self, folder: Path, oracle: RecordingOracleConfig, evaluators: list[int], **fields: Any) -> None:
        self.run_dirs = [folder / f"run-{number}" for number in range(len(evaluators))]
        self.results: dict[int, CampaignResult] = {}
        self._threads = []
        for number, count in enumerate(evaluators):
            runtime = {"kind": "ray", "share": folder.name, "evaluators": count, "mode": "synchronous"}
            job = campaign(oracle, runtime, **fields)
            thread = threading.Thread(target=self._run, args=(number, job), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _run(self, number: int, job: Any) -> None:
        self.results[number] = job.run(self.run_dirs[number])

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(200)
        assert len(self.results) == len(self._threads)
        assert all(result.outcome.finished for result in self.results.values())


def answered(run_dir: Path) -> int:
    return state_of(run_dir).answered if (run_dir / "ledger.sqlite").exists() else 0


def owner_of(tmp_path: Path, oracle: RecordingOracleConfig) -> Any:
    import ray

    return ray.get_actor(f"evaluators:{tmp_path.name}:{digest_of([oracle])}", namespace=NAMESPACE)


def test_campaigns_share_one_pool_and_one_rate(tmp_path: Path) -> None:
    import ray

    oracle = recording(tmp_path, delay=0.02, calls_per_minute=1200.0)
    running = Running(tmp_path, oracle, [1, 3], queries=16)
    wait_for(lambda: all(answered(path) for path in running.run_dirs), 120)
    seen = ray.get(owner_of(tmp_path, oracle).look.remote())
    assert seen["runs"] == [str(path / "receipts") for path in running.run_dirs]
    assert (seen["minimum"], seen["maximum"]) == (3, 3)
    assert len(pids_of_actor("Evaluator")) == 3
    named = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    assert sum(name.startswith(f"generators:{tmp_path.name}:") for name in named) == 1
    running.wait()
    asked = Counter((tmp_path / "finished").read_text().split())
    assert set(asked.values()) == {2}
    assert len(asked) == 16
    assert answers_of(running.run_dirs[0]) == answers_of(running.run_dirs[1])
    # Twelve hundred a minute are twenty a second, of both together.
    began = sorted(
        item.timings.started
        for path in running.run_dirs
        for item in state_of(path).settled.values()
        if item.timings
    )
    assert len(began) == 32
    assert began[-1] - began[0] >= 30 * 0.05 * 0.9
    assert not [*tmp_path.glob("run-*/receipts/*.json")]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "victim",
    ["Optimizer", pytest.param("SharedEvaluatorsOwner", marks=SLOW), pytest.param("Evaluator", marks=SLOW)],
)
def test_whoever_is_killed_nothing_is_lost(tmp_path: Path, victim: str) -> None:
    oracle = recording(tmp_path, delay=0.1, attempts=4, backoff_seconds=0.05)
    running = Running(tmp_path, oracle, [4, 4], queries=24)
    wait_for(lambda: all(answered(path) >= 3 for path in running.run_dirs), 120)
    os.kill(pids_of_actor(victim)[0], signal.SIGKILL)
    running.wait()
    assert answers_of(running.run_dirs[0]) == answers_of(running.run_dirs[1])
    asked = Counter((tmp_path / "finished").read_text().split())
    assert len(asked) == 24
    # An optimizer that is made again adopts what was on its way, and what only waited is asked by nobody but it.
    repeated = sum(asked.values()) - 48
    assert repeated == 0 if victim == "Optimizer" else repeated <= 4


def test_a_question_is_not_asked_for_a_driver_that_was_succeeded(tmp_path: Path) -> None:
    import ray

    oracle = recording(tmp_path, delay=0.5)
    (tmp_path / "receipts").mkdir()
    assert wait_until_quiet(tmp_path / "receipts", 0.0)
    before = sharer(tmp_path, most=1)
    owner = owner_named(f"succeeded-{tmp_path.name}", CrewPlan(oracle, {}))
    first = {f"p0000-{number:02d}": owner.evaluate.remote(before, request(number)) for number in range(3)}
    wait_for(lambda: (tmp_path / "started").exists())
    assert wait_until_quiet(tmp_path / "receipts", 20.0)
    # The one that had begun is answered, its receipt is in place; the two that waited were not asked and are not.
    (begun,) = (tmp_path / "started").read_text().split()
    assert [evaluation.query_id for evaluation in read_receipts(tmp_path / "receipts")] == [begun]
    after = sharer(tmp_path, most=1)
    assert ray.get(owner.evaluate.remote(after, request(7))).status is Status.OK
    assert ray.get(owner.evaluate.remote(before, request(8))).status is Status.CANCELLED
    statuses = {query_id: ray.get(reference).status for query_id, reference in first.items()}
    assert statuses == {**dict.fromkeys(first, Status.CANCELLED), begun: Status.OK}
    assert (tmp_path / "started").read_text().split() == [begun, "p0000-07"]
    ray.kill(owner)


def test_who_leaves_takes_what_is_asked_along(tmp_path: Path) -> None:
    import ray

    oracle = recording(tmp_path, delay=600.0)
    (tmp_path / "receipts").mkdir()
    assert wait_until_quiet(tmp_path / "receipts", 0.0)
    leaving = sharer(tmp_path, most=2)
    owner = owner_named(f"leaving-{tmp_path.name}", CrewPlan(oracle, {}))
    asked = [owner.evaluate.remote(leaving, request(number)) for number in range(3)]
    wait_for(lambda: len(ray.get(owner.look.remote())["at_work"]) == 2 and (tmp_path / "started").exists())
    ray.get(owner.leave.remote(leaving))
    assert {item.status for item in ray.get(asked)} == {Status.CANCELLED}
    assert wait_until_quiet(tmp_path / "receipts", 20.0)
    ray.kill(owner)


def test_an_owner_that_nobody_uses_ends_by_itself(tmp_path: Path) -> None:
    import ray

    name = f"unused-{tmp_path.name}"
    owner = owner_named(name, CrewPlan(recording(tmp_path), {}), 0.5)
    only = sharer(tmp_path, most=1)
    assert ray.get(owner.here.remote(only)) is None
    ray.get(owner.leave.remote(only))
    wait_for(lambda: not exists(name))


def test_a_generator_that_nobody_uses_ends_by_itself(tmp_path: Path) -> None:
    import ray

    config = campaign(recording(tmp_path), {"kind": "ray"}).config
    name = f"unused-generator-{tmp_path.name}"
    arguments = (config.backbone, (), "cpu", 1, "generator-0", NO_LOGS, 0.5)
    generator = find_or_make(Generator, name, *arguments, num_cpus=0)
    assert ray.get(generator.facts.remote()).steps == 3
    wait_for(lambda: not exists(name))


def exists(name: str) -> bool:
    import ray

    try:
        ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return False
    return True


def test_who_wants_other_evaluators_is_told_so(tmp_path: Path) -> None:
    import ray

    owner = owner_named(f"terms-{tmp_path.name}", CrewPlan(recording(tmp_path), {}))
    wanting = replace(sharer(tmp_path, most=1), terms=CrewPlan(recording(tmp_path), {"GPU": 0.5}, 2).terms)
    refused = ray.get(owner.here.remote(wanting))
    assert isinstance(refused, InputError)
    assert re.search(
        r"have evaluator_resources \{CPU: 1\} and evaluator_concurrency 1, this campaign wants evaluator_resources "
        r"\{CPU: 1, GPU: 0\.5\} and evaluator_concurrency 2",
        str(refused),
    )
    with pytest.raises(InputError, match="this campaign wants"):
        ray.get(owner.identity.remote(wanting))
    assert ray.get(owner.look.remote())["runs"] == []


def test_objects_cannot_be_shared(tmp_path: Path) -> None:
    given = GivenOracleConfig.of(recording(tmp_path).build())
    with pytest.raises(InputError, match=r"given as a Python object cannot be shared; .*kind: python"):
        campaign(given, {"kind": "ray", "share": "s"}, queries=8).run(tmp_path / "run")


def owner_named(name: str, plan: CrewPlan, *arguments: Any) -> Any:
    return find_or_make(SharedEvaluatorsOwner, name, plan, *arguments, num_cpus=0)


def sharer(folder: Path, *, most: int) -> Sharer:
    asker = Asker(folder / "receipts", newest_driver(folder / "receipts"))
    terms = CrewPlan(recording(folder), {}).terms
    return Sharer(asker, time.time(), most=most, fewest=1, idle_seconds=60.0, terms=terms)


def request(number: int) -> EvaluationRequest:
    sample = ArraySample(np.array([float(number)], dtype=np.float32))
    return EvaluationRequest(f"p0000-{number:02d}", sample, 1)
