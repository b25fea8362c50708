"""Metrics follow from what happens, and equal what the ledger says in the end."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.config.campaign import CampaignConfig
from pilotwave.errors import InputError
from pilotwave.execution.control import Command
from pilotwave.execution.coordinator import Coordinator
from pilotwave.execution.job import CampaignJob
from pilotwave.execution.metrics import METRICS, MOST_VALUES, CampaignMetrics
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.small_campaign import campaign, state_of
from pilotwave.testing.virtual_workers import Attempt, VirtualWorkers
from pilotwave.types import Failure

KINDS = {metric.name: metric for metric in METRICS}
Key = tuple[str, str]


class KeptMeter:
    """Keeps what it is told, and minds that names, kinds and labels are those declared."""

    def __init__(self, common: Mapping[str, str]) -> None:
        self.common = dict(common)
        self.counters: dict[Key, float] = defaultdict(float)
        self.gauges: dict[Key, list[float]] = defaultdict(list)
        self.histograms: dict[Key, list[float]] = defaultdict(list)
        self.closed = False

    def add(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        assert amount > 0
        self.counters[self._key(name, "counter", labels)] += amount

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self.gauges[self._key(name, "gauge", labels)].append(value)

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self.histograms[self._key(name, "histogram", labels)].append(value)

    def close(self) -> None:
        self.closed = True

    def _key(self, name: str, kind: str, labels: Mapping[str, str]) -> Key:
        assert (KINDS[name].kind, KINDS[name].labels) == (kind, tuple(labels))
        return name, next(iter(labels.values()), "")


def config(**budget: Any) -> CampaignConfig:
    chosen = campaign(FaultyOracleConfig(attempts=2), {"kind": "inline", "evaluators": 2}).config
    update = {
        "budget": chosen.budget.model_copy(update=budget),
        "failures": chosen.failures.model_copy(update={"maximum_rate": 1.0}),
    }
    return chosen.model_copy(update=update)


def drive(folder: Path, chosen: CampaignConfig, oracle: Any, *orders: tuple[float, str, str | None]) -> KeptMeter:
    run = RunDirectory(folder)
    if not run.exists():
        run.create(chosen)
    workers = VirtualWorkers(chosen, oracle)
    for seconds, verb, argument in orders:
        moment = workers.now + seconds
        workers.at(moment, lambda verb=verb, argument=argument: Command.of(verb, argument).send(run))  # type: ignore[misc]
    meters: list[KeptMeter] = []

    def open_meter(common: Mapping[str, str]) -> KeptMeter:
        meters.append(KeptMeter(common))
        return meters[0]

    job = CampaignJob(chosen, run.path, workers.now)
    Coordinator(
        job,
        workers,
        lambda progress: None,
        threading.Event(),
        workers.clock,
        telemetry=[CampaignMetrics(open_meter)],
    ).run()
    return meters[0]


def troubled(request: EvaluationRequest) -> Attempt:
    slot = request.query_id[-1]
    if slot == "1" and request.attempt == 1:
        return Attempt(seconds=3.0, cost=0.5, failure=Failure("network", "broken", retryable=True))
    if slot == "2":
        return Attempt(seconds=1.0, cost=2.0, failure=Failure("scf", "no convergence"))
    return Attempt(seconds=30.0, cost=2.0)


def test_they_equal_the_ledger(tmp_path: Path) -> None:
    meter = drive(tmp_path / "run", config(cost=500.0, wall_hours=9.0), troubled, (20.0, "add-queries", "8"))
    state = state_of(tmp_path / "run")
    with Ledger.open(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger:
        kinds = (EventKind.ATTEMPTED, EventKind.SETTLED)
        attempts = [event.evaluation() for event in ledger.events() if event.kind in kinds]
    assert meter.common == {"campaign": "contract", "oracle": "faulty"}
    assert meter.closed
    ended = Counter(item.status.value for item in state.settled.values())
    assert len(state.settled) == 32
    expected = {
        **{("queries_total", status): count for status, count in ended.items()},
        **{("attempts_total", status): n for status, n in Counter(item.status.value for item in attempts).items()},
        ("retries_total", "network"): 4,
        ("failures_total", "network"): 4,
        ("failures_total", "scf"): 4,
        ("cost_total", ""): state.spending.ended,
        ("proposals_total", ""): len(state.proposals),
        ("candidates_total", ""): sum(item.drawn for item in state.proposals.values()),
        ("commands_total", "add-queries"): 1,
        ("evaluator_busy_seconds_total", ""): sum(item.timings.seconds for item in attempts if item.timings),
    }
    assert {key: meter.counters[key] for key in expected} == pytest.approx(expected)
    assert sorted(meter.histograms["evaluation_seconds", "failed"]) == [1.0] * 4 + [3.0] * 4
    assert len(meter.histograms["generation_seconds", ""]) == len(state.proposals)
    last = {key: values[-1] for key, values in meter.gauges.items()}
    values = [item.value for item in state.settled.values() if item.value is not None]
    gauges = {
        ("spent_queries", ""): 32.0,
        ("budget_queries", ""): 32.0,
        ("spent_cost", ""): state.spending.ended,
        ("budget_cost", ""): 500.0,
        ("budget_seconds", ""): 9 * 3600.0,
        ("best_value", ""): min(values),
        ("running", ""): 0.0,
        ("evaluators", ""): 2.0,
        ("evaluators_busy", ""): 0.0,
        ("paused", ""): 0.0,
    }
    assert {key: last[key] for key in gauges} == pytest.approx(gauges)
    assert 1.0 in meter.gauges["running", ""]


def test_of_stages_that_an_oracle_makes_up_only_some_have_a_label_of_their_own(tmp_path: Path) -> None:
    def inventive(request: EvaluationRequest) -> Attempt:
        return Attempt(failure=Failure(f"stage of {request.query_id}", "each time another"))

    meter = drive(tmp_path / "run", config(queries=48), inventive)
    stages = {stage: count for (name, stage), count in meter.counters.items() if name == "failures_total"}
    assert len(stages) == MOST_VALUES + 1
    assert stages["other"] == 48 - MOST_VALUES


def test_names_have_units_and_one_label_at_most() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        if metric.kind == "histogram":
            assert metric.name.endswith("_seconds")
        assert len(metric.labels) <= 1
        assert metric.help.endswith(".")
    assert len(KINDS) == len(METRICS)


def read(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(url, timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_campaign_in_this_process_offers_the_same_at_a_port(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client", reason="the endpoint needs prometheus_client, which Ray brings")
    from pilotwave.execution.metrics_endpoint import MetricsEndpoint

    endpoint = MetricsEndpoint("127.0.0.1", 0)
    try:
        run = RunDirectory(tmp_path / "run")
        run.create(config())
        workers = VirtualWorkers(config(), troubled)
        job = CampaignJob(config(), run.path, workers.now)
        telemetry = [CampaignMetrics(endpoint.of)]
        Coordinator(
            job, workers, lambda progress: None, threading.Event(), workers.clock, telemetry=telemetry
        ).run()
        found = read(f"http://127.0.0.1:{endpoint.port}/metrics")
    finally:
        endpoint.shut()
    same = (("campaign", "contract"), ("oracle", "faulty"))
    assert found["pilotwave_spent_queries", same] == 24
    assert found["pilotwave_queries_total", (*same, ("status", "ok"))] == 21
    assert found["pilotwave_attempts_total", (*same, ("status", "failed"))] == 6
    assert found["pilotwave_evaluation_seconds_sum", (*same, ("status", "ok"))] == 21 * 30.0
    short = (same[0], ("le", "1.0"), same[1], ("status", "failed"))
    assert found["pilotwave_evaluation_seconds_bucket", short] == 3


def test_a_port_that_is_taken_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client", reason="the endpoint needs prometheus_client, which Ray brings")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        runtime = {"kind": "inline", "evaluators": 2, "metrics_port": port}
        with pytest.raises(InputError, match=f"runtime.metrics_port: 127.0.0.1:{port} cannot be listened on"):
            campaign(FaultyOracleConfig(), runtime).run(tmp_path / "run")
    assert not (tmp_path / "run" / "ledger.sqlite").exists(), "nothing was asked, so nothing is left"
