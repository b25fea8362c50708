"""Real Ray clusters for the tests of the actors: a private one in this process, and one of two nodes beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pilotwave.testing.two_nodes import TwoNodeCluster
from pilotwave_actors.cluster import CHILDREN_LIVE_ON


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One private cluster for all; each campaign has a namespace of its own."""
    ray = pytest.importorskip("ray", reason="the Ray runtime needs the extra 'ray'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ.setdefault(*CHILDREN_LIVE_ON)
    ray.init(address="local", num_cpus=6, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def nothing_shared_is_left(ray_cluster: None) -> Iterator[None]:
    """Ends what campaigns of a test shared, which would stay for a minute."""
    yield
    import ray

    for name in ray.util.list_named_actors(all_namespaces=True):
        if name["name"].startswith(("evaluators:", "generators:")):
            ray.kill(ray.get_actor(**name))


@pytest.fixture(scope="session")
def two_nodes() -> Iterator[TwoNodeCluster]:
    """A head and a second node with token authentication; drivers are processes of their own."""
    pytest.importorskip("ray", reason="the Ray runtime needs the extra 'ray'")
    cluster = TwoNodeCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
