"""What a campaign on a real cluster says of itself: metrics at the node, and a log with the lines of all actors."""

from __future__ import annotations

import json
import logging
import re
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.campaign import Campaign
from pilotwave.execution.metrics import METRICS, PREFIX
from pilotwave.report.run_log import RunLog, Wanted
from pilotwave.testing.small_campaign import state_of, wait_for
from pilotwave.types import Status

pytestmark = pytest.mark.ray

Samples = dict[str, dict[str, float]]


def moody(sample: Any, context: Any) -> float:
    """Fails at first on every fourth question, for good on one, and logs and prints as oracles do."""
    logging.getLogger("pilotwave_oracles.moody").warning("asked about %s", context.query_id)
    if context.query_id.endswith("-05"):
        raise ValueError("it does not converge")
    if context.query_id.endswith(("-00", "-04")) and context.attempt == 1:
        print("the licence server does not answer")
        raise OSError("no licence")
    return float(sample.array.sum())


@pytest.fixture(scope="module")
def finished(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    del ray_cluster
    run_dir = tmp_path_factory.mktemp("telemetry") / "run"
    Campaign.from_dict(
        {
            "name": "watched",
            "backbone": {"kind": "analytic", "dim": 6, "steps": 3},
            "oracle": {
                "kind": "python",
                "function": f"{__file__}:moody",
                "version": "1",
                "isolation": "thread",
                "attempts": 2,
                "backoff_seconds": 0.0,
            },
            "algorithm": {"kind": "random"},
            "budget": {"queries": 24, "batch_size": 8, "cost": 100},
            "runtime": {"kind": "ray", "evaluators": 2},
            "failures": {"maximum_rate": 1.0},
        }
    ).run(run_dir)
    return run_dir


@pytest.fixture(scope="module")
def scraped(finished: Path) -> Samples:
    """What Prometheus would read at the node, once Ray has brought there what the campaign said last."""
    del finished
    import ray
    from prometheus_client.parser import text_string_to_metric_families

    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    found: Samples = {}

    def came() -> bool:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        found.clear()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.labels.get("campaign") == "watched":
                    key = next(
                        (sample.labels[name] for name in ("status", "stage", "le") if name in sample.labels), ""
                    )
                    into = found.setdefault(sample.name.removeprefix("ray_" + PREFIX), {})
                    into[key] = into.get(key, 0.0) + sample.value
        return "queries_total" in found

    wait_for(came)
    return found


def test_the_numbers_equal_those_of_the_ledger(finished: Path, scraped: Samples) -> None:
    state = state_of(finished)
    with Ledger.open(finished / "ledger.sqlite", read_only=True) as ledger:
        events = list(ledger.events())
    attempts = [event.evaluation() for event in events if event.kind in (EventKind.ATTEMPTED, EventKind.SETTLED)]
    ended = Counter(item.status.value for item in state.settled.values())
    assert set(ended) == {Status.OK, Status.FAILED}
    assert scraped["queries_total"] == dict(ended)
    assert scraped["attempts_total"] == dict(Counter(item.status.value for item in attempts))
    assert scraped["retries_total"] == {"callable": state.attempted}
    assert state.attempted == 6
    assert scraped["failures_total"] == {"callable": sum(item.failure is not None for item in attempts)}
    assert scraped["cost_total"] == {"": pytest.approx(state.spending.ended)}
    assert scraped["proposals_total"] == {"": len(state.proposals)}
    assert scraped["candidates_total"] == {"": sum(item.drawn for item in state.proposals.values())}
    seconds = sum(item.timings.seconds for item in attempts if item.timings is not None)
    assert scraped["evaluator_busy_seconds_total"] == {"": pytest.approx(seconds)}
    assert scraped["evaluation_seconds_count"] == scraped["attempts_total"]
    assert scraped["platform_seconds_total"][""] > 0


def test_every_name_and_kind_is_as_declared(scraped: Samples) -> None:
    kinds = {metric.name: metric.kind for metric in METRICS}
    seen = set()
    for name in scraped:
        plain = name if name in kinds else re.sub("_(bucket|count|sum)$", "", name)
        seen.add(plain)
        assert (plain != name) == (kinds[plain] == "histogram")
    unlabelled = {metric.name for metric in METRICS if metric.kind == "counter" and not metric.labels}
    without_trouble = {"saved_cost_total", "redraws_total", "generation_failures_total", "warnings_total"}
    assert unlabelled - seen <= without_trouble


def test_the_log_names_actors_and_nodes(finished: Path) -> None:
    import ray

    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    lines = RunLog(finished).last(Wanted("info"), None)
    of_queries = [line for line in lines if line["event"] in ("settled", "attempted")]
    assert {line["worker"] for line in of_queries} == {"evaluator-0", "evaluator-1"}
    assert len({line["actor"] for line in of_queries}) == 2
    assert {line["node"] for line in of_queries} == {node["NodeID"]}
    generated = [line for line in lines if line["event"] == "generated"]
    assert {line["worker"] for line in generated} == {"generator-0"}
    (started,) = [line for line in lines if line["event"] == "started"]
    assert started["actor"] not in {line["actor"] for line in of_queries}


def test_what_an_actor_logs_reaches_the_run(finished: Path) -> None:
    texts = [text for path in finished.glob("logs/evaluator-*.jsonl") for text in path.read_text().splitlines()]
    lines = [json.loads(text) for text in texts]
    said = [line for line in lines if line["event"] == "log"]
    with Ledger.open(finished / "ledger.sqlite", read_only=True) as ledger:
        reserved = [event.record for event in ledger.events() if event.kind is EventKind.RESERVED]
    asked = {(record["query_id"], record["attempt"]) for record in reserved}
    assert {(line["query"], line["attempt"]) for line in said} == asked
    for line in said:
        assert line["message"] == f"asked about {line['query']}"
        assert line["worker"].startswith("evaluator-")
        assert {"actor", "node", "campaign", "run", "host", "pid"} <= set(line)
