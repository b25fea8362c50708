"""How tests are spread over two workers (`pytest -n 2 --dist loadgroup`, as `make test` does).

Tests of one file stay together and in order, so what a file shares is made once; everything that starts a Ray
cluster or a server is one group, so that never more of them run than two cores carry.
"""

from __future__ import annotations

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Read when numerical libraries are imported: two workers with two threads each would wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

TOGETHER = ("ray", "cluster", "postgres")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        heavy = any(item.get_closest_marker(name) for name in TOGETHER)
        item.add_marker(pytest.mark.xdist_group("clusters" if heavy else str(item.path)))
