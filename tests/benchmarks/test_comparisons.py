"""The recorded comparisons: what they name exists, and their verdicts say what the figures say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pilotwave.bench.methods import parse_method
from pilotwave.bench.suites import load_suite

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import comparisons


@pytest.mark.parametrize("name", sorted(comparisons.COMPARISONS))
def test_what_a_comparison_names_exists(name: str) -> None:
    comparison = comparisons.COMPARISONS[name]
    suite = load_suite(comparison.suite)
    for task in comparison.tasks:
        suite.find(task)
    labels = [parse_method(method) for method in comparison.methods]
    for method in labels:
        method.config()
    assert len({method.name for method in labels}) == len(labels)


def cell(ratio: float = 1.0, censored: bool = False, **figures: float) -> dict[str, Any]:
    estimate = {"value": ratio, "interval": [ratio, ratio], "censored": censored}
    return {
        "ratios": {"192": estimate, "paper": estimate},
        "levels": {"192": {"value": -ratio, "interval": [-ratio, -ratio], "censored": False}},
        "passes_per_query": figures.get("passes", 3.8),
        "diversity": {"spread": {"value": figures.get("diversity", 0.3), "unguided": 0.6}},
        "quality": {"log_likelihood": {"value": figures.get("quality", 0.0), "unguided": 0.1}},
        "queries": [32.0, 64.0, 96.0, 128.0],
        "curve": [0.0, -ratio, -ratio, -ratio],
    }


def figures_of(*ours: dict[str, Any]) -> dict[str, Any]:
    middle = sorted(ours, key=lambda each: each["ratios"]["192"]["value"])[len(ours) // 2]
    tasks = {f"task-{number}": {"fast-direct": cell(), "trust-direct": each} for number, each in enumerate(ours)}
    return {"tasks": tasks, "medians": {"trust-direct": middle["ratios"]}}


def verdicts(*ours: dict[str, Any]) -> list[bool]:
    return ["**not met**" not in line for line in comparisons.aims(figures_of(*ours))]


def test_verdicts_say_what_the_figures_say() -> None:
    assert verdicts(cell(2.0), cell(0.9), cell(3.0)) == [True] * 5
    assert verdicts(cell(1.9), cell(0.9), cell(3.0)) == [False, True, True, True, True]
    assert verdicts(cell(2.0), cell(0.89), cell(3.0)) == [True, False, True, True, True]
    assert verdicts(cell(2.0), cell(1.0, censored=True), cell(3.0)) == [True, False, True, True, True]
    assert verdicts(cell(2.0, passes=4.1), cell(2.0), cell(3.0)) == [True, True, False, True, True]
    assert verdicts(*[cell(2.0, diversity=0.14)] * 3) == [True, True, True, False, True]
    assert verdicts(*[cell(2.0, quality=-0.01)] * 3) == [True, True, True, True, False]


def test_the_table_of_levels_leaves_out_what_was_not_run() -> None:
    figures = figures_of(cell(2.0), cell(3.0))
    del figures["tasks"]["task-0"]["fast-direct"]
    lines = comparisons.levels_by_task(figures, ["fast-direct", "trust-direct"]).splitlines()
    assert lines[2] == "| `task-0` |  | -2.00 (-2.00 to -2.00) |"
    assert lines[3] == "| `task-1` | -1.00 (-1.00 to -1.00) | -3.00 (-3.00 to -3.00) |"


def test_leads_count_from_the_other_s_best() -> None:
    figures = figures_of(cell(2.0), cell(3.0))
    for row in figures["tasks"].values():
        row["ddpo"] = {**cell(), "curve": [0.0, -0.5, -1.0, -1.5]}
    assert "`fast-direct`: <1.0 over `ddpo`" in comparisons.leads(figures, ["fast-direct", "trust-direct", "ddpo"])
    assert "`trust-direct`: 2.0 over `ddpo`" in comparisons.leads(figures, ["fast-direct", "trust-direct", "ddpo"])
