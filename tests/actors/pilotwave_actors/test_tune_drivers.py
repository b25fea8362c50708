"""Studies whose drivers are processes of their own: killed, and on a real cluster of two nodes with a token."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotwave.testing.runtime_contract import state_of
from pilotwave.testing.small_study import SmallStudy
from pilotwave.testing.two_nodes import TwoNodeCluster, run_command
from pilotwave.tuning.ledger import StudyDirectory, TrialRecord, read_trials

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


class DrivenStudy:
    """A study file, driven by ``pilotwave`` in processes of their own."""

    def __init__(self, folder: Path, queries: int, delay: float, **changes: Any) -> None:
        self.small = SmallStudy(folder, queries, delay)
        self.folder = folder
        self.study_dir = folder / "s"
        (folder / "study.yaml").write_text(yaml.safe_dump(self.small.fields(**changes), sort_keys=False))

    def trials(self) -> dict[int, TrialRecord]:
        return read_trials(StudyDirectory(self.study_dir).ledger_file)

    def settled(self) -> list[int]:
        return [
            len(state_of(path.parent).settled) for path in sorted(self.study_dir.glob("trials/*/*/ledger.sqlite"))
        ]

    def start(self, arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        program = str(Path(sys.executable).parent / "pilotwave")
        with (self.folder / "driver.log").open("a") as log:
            command = [program, "tune", *arguments]
            return subprocess.Popen(command, cwd=self.folder, env=dict(environment), stdout=log, stderr=log)

    def wait_until_asked(self, count: int, driver: subprocess.Popen[bytes] | None) -> None:
        deadline = time.monotonic() + 240
        while len(self.small.asked()) < count:
            log = (self.folder / "driver.log").read_text()
            assert driver is None or driver.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.05)

    def tune(self, arguments: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
        done = run_command(["tune", *arguments, "--json"], environment, self.folder, 280)
        assert done.returncode == 0, done.stderr[-3000:]
        said: dict[str, Any] = json.loads(done.stdout)
        return said


@pytest.mark.slow
def test_a_driver_that_is_killed_costs_at_most_what_was_in_flight(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, 24, 0.1, samples=3, concurrent_trials=2)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = ["study.yaml", "--study-dir", "s"]
    driver = study.start(command, environment)
    study.wait_until_asked(30, driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    said = study.tune(command, environment)
    assert said["finished"]
    assert said["queries"] == 3 * 24 == sum(study.settled())
    assert [record.status for record in study.trials().values()] == ["finished"] * 3
    assert len(study.small.asked()) - 3 * 24 <= 2  # one evaluator in each of two trials
    again = study.tune(["--resume", "s"], environment)  # nothing is left to do, and nothing is asked
    assert again["queries"] == 3 * 24
    assert again["best"] == said["best"]


@pytest.mark.slow
@pytest.mark.cluster
def test_a_study_through_the_client_runs_on_the_cluster(two_nodes: TwoNodeCluster, tmp_path: Path) -> None:
    runtime = {"kind": "ray", "evaluators": 1}
    study = DrivenStudy(tmp_path, 16, 0.02, samples=2, concurrent_trials=2, runtime=runtime)
    client = ["--address", two_nodes.client_address]
    said = study.tune(["study.yaml", "--study-dir", "s", *client], two_nodes.environment())
    assert said["finished"]
    assert said["queries"] == 32 == sum(study.settled()) == len(study.small.asked())
    assert not two_nodes.workers("head", "StudyDriver")
    wrong = two_nodes.environment(RAY_AUTH_TOKEN="wrong")
    refused = run_command(["tune", "study.yaml", "--study-dir", "t", *client], wrong, tmp_path)
    assert refused.returncode == 2
    assert "refuses the token" in refused.stderr
    assert not (tmp_path / "t").exists()


@pytest.mark.slow
@pytest.mark.cluster
def test_a_client_that_is_lost_leaves_the_study_running(two_nodes: TwoNodeCluster, tmp_path: Path) -> None:
    runtime = {"kind": "ray", "evaluators": 1}
    study = DrivenStudy(tmp_path, 32, 0.4, samples=2, concurrent_trials=2, runtime=runtime)
    client = ["--address", two_nodes.client_address]
    driver = study.start(["study.yaml", "--study-dir", "s", *client], two_nodes.environment())
    study.wait_until_asked(6, driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    study.wait_until_asked(len(study.small.asked()) + 8, None)
    said = study.tune(["--resume", "s", *client], two_nodes.environment())
    assert said["finished"]
    assert said["queries"] == 64 == len(study.small.asked())


@pytest.mark.slow
@pytest.mark.cluster
def test_a_driver_on_a_node_saves_on_ctrl_c_and_goes_on(two_nodes: TwoNodeCluster, tmp_path: Path) -> None:
    runtime = {"kind": "ray", "evaluators": 1}
    study = DrivenStudy(tmp_path, 32, 0.2, samples=2, concurrent_trials=2, runtime=runtime)
    command = ["study.yaml", "--study-dir", "s", "--address", "auto"]
    driver = study.start(command, two_nodes.environment_on_node())
    study.wait_until_asked(6, driver)
    os.kill(driver.pid, signal.SIGINT)
    assert driver.wait(120) == 130, (tmp_path / "driver.log").read_text()
    assert "pilotwave tune --resume s" in (tmp_path / "driver.log").read_text()
    said = study.tune(command, two_nodes.environment_on_node())
    assert said["queries"] == 64 == len(study.small.asked())


@pytest.mark.slow
@pytest.mark.cluster
def test_a_study_as_a_job_comes_home(two_nodes: TwoNodeCluster, tmp_path: Path) -> None:
    runtime = {"kind": "ray", "evaluators": 1, "storage": str(two_nodes.storage)}
    study = DrivenStudy(tmp_path, 16, 0.02, samples=2, concurrent_trials=2, runtime=runtime)
    submit = ["submit", "study.yaml", "--address", two_nodes.jobs_address, "--run-dir", "tuned", "--output", "s"]
    done = run_command(submit, two_nodes.environment(), tmp_path, 280)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    assert [record.status for record in study.trials().values()] == ["finished"] * 2
    assert sum(study.settled()) == 32 == len(study.small.asked())
    assert (study.study_dir / "best.yaml").exists()
    assert "trial 2 finished" in done.stdout
