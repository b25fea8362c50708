"""An elastic pool on a cluster whose nodes come when evaluators need them and go when they do not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotwave.archive.run_directory import RunDirectory
from pilotwave.testing.autoscaling_cluster import AutoscalingCluster
from pilotwave.testing.control_contract import send
from pilotwave.testing.small_campaign import state_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

DRIVER = """
import json, sys
from pathlib import Path
from pilotwave.testing.faulty_oracles import RecordingOracleConfig
from pilotwave.testing.small_campaign import campaign

folder, runtime = Path(sys.argv[1]), json.loads(sys.argv[2])
files = {"started_file": folder / "started", "finished_file": folder / "finished"}
oracle = RecordingOracleConfig(**files, delay=2.0, attempts=1)
campaign(oracle, runtime, queries=60, batch_size=8).run(folder / "run")
"""
SEATS = """
import ray
ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
print(int(ray.cluster_resources().get("seat", 0)))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[AutoscalingCluster]:
    pytest.importorskip("ray", reason="the Ray runtime needs the extra 'ray'")
    made = AutoscalingCluster(most=3)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def seats(cluster: AutoscalingCluster) -> int:
    """Asks the cluster how many nodes with a seat it has."""
    environment = cluster.environment_on_node(RAY_AUTH_MODE="token", RAY_ADDRESS=cluster.address)
    asked = subprocess.run(
        [sys.executable, "-c", SEATS], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return int(asked.stdout.split()[-1]) if asked.returncode == 0 else -1


def test_nodes_come_with_the_backlog_and_go_when_it_is_done(cluster: AutoscalingCluster) -> None:
    folder = cluster.storage / "campaign"
    folder.mkdir()
    runtime = {
        "kind": "ray",
        "address": cluster.address,
        "evaluators": 3,
        "evaluators_min": 1,
        "evaluators_idle_seconds": 2.0,
        "evaluator_resources": {"CPU": 1, "seat": 1},
    }
    assert seats(cluster) == 0
    log = (folder / "driver.log").open("wb")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), json.dumps(runtime)],
        env=cluster.environment_on_node(RAY_AUTH_MODE="token"),
        stdout=log,
        stderr=log,
    )
    try:
        cluster.wait_until(lambda: seats(cluster) == 3, "three nodes")
        run = RunDirectory(folder / "run")
        cluster.wait_until(lambda: state_of(run.path).answered >= 3, "answers")
        send(run, "pause")
        cluster.wait_until(lambda: seats(cluster) == 1, "two nodes to go")
        send(run, "resume")
        assert driver.wait(300) == 0, (folder / "driver.log").read_text()[-3000:]
    finally:
        driver.kill()
        log.close()
    state = state_of(run.path)
    assert (state.spent, state.answered, state.attempted) == (60, 60, 0)
    asked = (folder / "finished").read_text().split()
    assert len(asked) == len(set(asked)) == 60
    cluster.wait_until(lambda: seats(cluster) == 0, "all nodes to go")


def test_a_resource_that_only_comes_with_a_node_is_waited_for(cluster: AutoscalingCluster) -> None:
    """A fixed pool that is too large for the nodes that can come works with those that did."""
    folder = cluster.storage / "wide"
    folder.mkdir()
    runtime = {
        "kind": "ray",
        "address": cluster.address,
        "evaluators": 5,
        "evaluator_resources": {"CPU": 1, "seat": 1},
    }
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER.replace("delay=2.0", "delay=0.1"), str(folder), json.dumps(runtime)],
        env=cluster.environment_on_node(RAY_AUTH_MODE="token"),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert driver.returncode == 0, driver.stderr[-3000:]
    assert state_of(Path(folder / "run")).answered == 60
