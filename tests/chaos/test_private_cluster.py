"""A campaign on its driver's own Ray cluster, of which everything is killed that can be."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotwave.testing.chaos import Chaos, Leg
from pilotwave.testing.chaos_places import PrivateCluster
from pilotwave.testing.small_campaign import state_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture
def place() -> Iterator[PrivateCluster]:
    pytest.importorskip("ray", reason="the Ray runtime needs the extra 'ray'")
    cluster = PrivateCluster()
    yield cluster
    cluster.end()


def test_one_kill_of_each_kind_costs_at_most_what_was_in_flight(place: PrivateCluster, tmp_path: Path) -> None:
    kills = {"evaluator": 1, "generator": 1, "optimizer": 1, "oracle": 1, "driver": 1}
    report = Chaos(tmp_path, [Leg(place, 48, kills)], seconds=0.4, seed=5).run()
    assert not report.verdict.broken
    assert report.verdict.kills == kills
    assert report.resumes == report.needed == 1
    assert sum(report.verdict.repeated.values()) <= sum(report.verdict.in_flight.values())


@pytest.mark.slow
def test_a_driver_whose_raylet_dies_starts_another_cluster_and_goes_on(
    place: PrivateCluster, tmp_path: Path
) -> None:
    report = Chaos(tmp_path, [Leg(place, 40, {"raylet": 2})], seconds=0.2, seed=6).run()
    assert not report.verdict.broken
    assert report.resumes == report.needed == 0
    assert "another one is started" in (tmp_path / "driver.log").read_text()


@pytest.mark.slow
def test_a_cluster_that_dies_while_its_driver_connects_is_started_again(
    place: PrivateCluster, tmp_path: Path
) -> None:
    Chaos(tmp_path, [Leg(place, 20, {"evaluator": 1})], seed=7)  # writes the campaign
    driver = place.drive(["run", "campaign.yaml", "--run-dir", "run"], tmp_path, tmp_path / "driver.log")
    deadline = time.monotonic() + 120
    while not place.strike("raylet", driver, 0, random.Random(0)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert driver.wait(300) == 0, (tmp_path / "driver.log").read_text()[-2000:]
    assert state_of(tmp_path / "run").answered == 20
