"""A small suite of two tasks that take milliseconds, so that everything around them can be tested."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator

import pytest
import torch

from pilotwave.backbones.analytic import AnalyticBackbone, synthetic_clusters
from pilotwave.bench import suites
from pilotwave.bench.measures import measure_by_mixture
from pilotwave.bench.objectives import distance_to, mean_value, of_arrays
from pilotwave.bench.task import Suite, Task


@functools.cache
def small_model(device: str = "cpu") -> AnalyticBackbone:
    return AnalyticBackbone.fit(synthetic_clusters(12, 3, 2, seed=1, count=200), components=3, rank=2, steps=4)


def small_task(name: str, objective) -> Task:  # type: ignore[no-untyped-def]
    points = torch.from_numpy(synthetic_clusters(12, 3, 2, seed=1, count=200))
    return Task(
        name,
        "small",
        name,
        "array",
        "clusters",
        backbone=small_model,
        objective=objective,
        measure=lambda: measure_by_mixture(small_model().mixture, (points - points.mean()) / points.std()),
        batch_size=8,
        unguided=64,
        unseen=small_model,
    )


def small_suite() -> Suite:
    target = synthetic_clusters(12, 3, 2, seed=1, count=201)[-1].astype("float64")
    tasks = (small_task("target", of_arrays(distance_to(target))), small_task("bright", of_arrays(mean_value(-1))))
    held_out = (small_task("dark", of_arrays(mean_value(1))),)
    return Suite("small", (*tasks, *tasks[0].disturbed()), held_out)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Suite]:
    """The suite ``small``, found by its name like the others."""
    module = types.ModuleType("pilotwave.bench.suites.small")
    module.SUITE = small_suite()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(suites, "SUITES", (*suites.SUITES, "small"))
    yield module.SUITE  # type: ignore[misc]
    suites.load_suite.cache_clear()
