"""A pool of evaluators that grows, shrinks and loses some, on a real cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.run_directory import RunDirectory
from pilotwave.execution.job import Progress
from pilotwave.testing.actor_processes import pids_of_actor
from pilotwave.testing.control_contract import commanded, send
from pilotwave.testing.faults_contract import FaultsContract
from pilotwave.testing.faulty_oracles import FaultyOracleConfig, RecordingOracleConfig
from pilotwave.testing.runtime_contract import RuntimeContract, processes_gone
from pilotwave.testing.small_campaign import campaign, state_of, wait_for
from pilotwave_actors.sharing import NAMESPACE, digest_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
ELASTIC = {"kind": "ray", "evaluators_min": 1, "evaluators_idle_seconds": 0.5}


def recording(folder: Path, **settings: Any) -> RecordingOracleConfig:
    return RecordingOracleConfig(started_file=folder / "started", finished_file=folder / "finished", **settings)


@pytest.mark.slow
def test_it_grows_with_the_backlog_shrinks_when_idle_and_loses_nothing(tmp_path: Path) -> None:
    """Paused in the middle; while it is small, its idle evaluator is killed, which costs no question anything."""

    def orders(run: RunDirectory) -> None:
        wait_for(lambda: len(pids_of_actor("Evaluator")) == 3, 120)
        send(run, "pause")
        wait_for(lambda: not state_of(run.path).spending.held)
        wait_for(lambda: len(pids_of_actor("Evaluator")) == 1)
        (left,) = pids_of_actor("Evaluator")
        os.kill(left, signal.SIGKILL)
        wait_for(lambda: pids_of_actor("Evaluator") not in ([], [left]), 120)
        send(run, "resume")

    oracle = recording(tmp_path, delay=0.7, attempts=1)
    job = campaign(oracle, {**ELASTIC, "evaluators": 3}, queries=32, batch_size=8)
    result = commanded(job, tmp_path / "run", orders)
    assert (result.outcome.finished, result.outcome.spent) == (True, 32)
    state = state_of(result.run_dir)
    assert (state.answered, state.failed, state.attempted) == (32, 0, 0)
    asked = (tmp_path / "finished").read_text().split()
    assert len(asked) == len(set(asked)) == 32


def test_one_actor_asks_several_questions_at_once(tmp_path: Path) -> None:
    seen: list[Progress] = []
    oracle = recording(tmp_path, delay=0.5)
    runtime = {"kind": "ray", "evaluators": 5, "evaluator_concurrency": 3, "mode": "synchronous"}
    job = campaign(oracle, runtime, queries=20, batch_size=10)
    result = job.run(tmp_path / "run", observe=seen.append)
    assert max(progress.in_flight for progress in seen) == 5
    assert {progress.evaluators for progress in seen} <= {0, 3, 5}
    workers = {item.worker for item in state_of(result.run_dir).settled.values()}
    assert workers <= {f"evaluator-{number}" for number in range(6)}
    assert len(workers) >= 5
    assert all(0 <= progress.utilisation <= 1 for progress in seen)


def test_an_evaluator_imports_no_torch() -> None:
    """64 of them have 12 GiB less."""
    code = "import sys; import pilotwave_actors.evaluator; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_shared_is_left")
class TestSharedElasticRuntime(RuntimeContract, FaultsContract):
    """The whole contract with evaluators that are shared, elastic, and ask two questions at once."""

    def runtime(self, **settings: Any) -> dict[str, Any]:
        shared = {"share": "contract", "evaluators_min": 1, "evaluator_concurrency": 2}
        return {"kind": "ray", **shared, **settings}

    def test_no_oracle_process_is_left_behind(self, tmp_path: Path) -> None:
        """They belong to the pool, and end with it."""
        import ray

        oracle = FaultyOracleConfig(fault="orphan", every=7, attempts=5, pid_file=tmp_path / "pids")
        campaign(oracle, self.runtime(evaluators=2), queries=16).run(tmp_path / "run")
        ray.kill(ray.get_actor(f"evaluators:contract:{digest_of([oracle])}", namespace=NAMESPACE))
        assert processes_gone(tmp_path / "pids")
