"""The dashboard speaks of metrics that there are, by labels that they have, and of all of them."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from pilotwave.execution.metrics import COMMON, METRICS, PREFIX

FILE = Path(__file__).parents[4] / "deploy" / "grafana" / "pilotwave.json"
NAMED = f'__name__=~"(ray_)?{PREFIX}'
"""On Ray names begin with ray_, in one process they do not: a panel takes either."""
KNOWN = {metric.name: metric for metric in METRICS}
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
EXPRESSIONS = [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
]


def named_in(expression: str) -> list[tuple[str, set[str]]]:
    """Returns the metrics of an expression with the labels that each may be asked by."""
    found = []
    for name in re.findall(re.escape(NAMED) + r"(\w+)\"", expression):
        plain = name.removesuffix("_bucket")
        assert plain in KNOWN, f"there is no metric {plain}"
        assert (plain != name) == (KNOWN[plain].kind == "histogram"), f"{name} is a {KNOWN[plain].kind}"
        found.append((plain, {*COMMON, *KNOWN[plain].labels, *(["le"] if plain != name else [])}))
    return found


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_expressions_name_metrics_and_labels_that_there_are(title: str, expression: str) -> None:
    del title
    named = named_in(expression)
    assert named
    assert expression.count("pilotwave_") == len(named)
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    matched = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)) - {"__name__"}
    for _, labels in named:
        assert grouped | matched <= labels
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)


def test_counters_are_shown_as_rates_and_gauges_are_not() -> None:
    for _, expression in EXPRESSIONS:
        for name, _ in named_in(expression):
            rated = re.search(r"(rate|increase)\(\{" + re.escape(NAMED) + name + r"(_bucket)?\"", expression)
            assert bool(rated) == (KNOWN[name].kind != "gauge"), f"{name} in {expression}"


def test_everything_that_is_measured_is_shown() -> None:
    shown = {name for _, expression in EXPRESSIONS for name, _ in named_in(expression)}
    assert set(KNOWN) - shown == {"commands_total"}


def test_panels_lie_beside_each_other_and_read_the_chosen_prometheus() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    sources = [target["datasource"]["uid"] for panel in panels for target in panel.get("targets", [])]
    assert set(sources) == {"${datasource}"}
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps([expression for _, expression in EXPRESSIONS])))
    assert used - {"__rate_interval"} <= variables
