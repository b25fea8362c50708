"""What a campaign writes into its log, and what ``pilotwave logs`` reads there."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.project import run_id_of
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.campaign import Campaign
from pilotwave.config.campaign import CampaignConfig
from pilotwave.execution.coordinator import Coordinator
from pilotwave.execution.job import CampaignJob
from pilotwave.execution.log_capture import WorkerLogs, asking
from pilotwave.execution.structured_log import CampaignLog
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.report.log_lines import FIELDS, LEVELS, Line, line_of, moment_of
from pilotwave.report.run_log import RunLog, Wanted
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.small_campaign import campaign, wait_for
from pilotwave.testing.virtual_workers import Attempt, VirtualWorkers
from pilotwave.types import Failure

EVERYTHING = Wanted(level="debug")


def config(level: str = "info", **fields: Any) -> CampaignConfig:
    runtime = {"kind": "inline", "evaluators": 2, "log_level": level}
    return campaign(FaultyOracleConfig(attempts=3, backoff_seconds=0.1), runtime, **fields).config


def drive(
    folder: Path,
    chosen: CampaignConfig,
    oracle: Callable[[EvaluationRequest], Attempt] = lambda request: Attempt(seconds=30.0),
) -> RunDirectory:
    run = RunDirectory(folder)
    if not run.exists():
        run.create(chosen)
    workers = VirtualWorkers(chosen, oracle)
    job = CampaignJob(chosen, run.path, workers.now)

    def place_of(worker: str, died: bool) -> dict[str, str]:
        return {"actor": f"actor of {worker}", "node": "n1"}

    log = CampaignLog(place_of, lambda: {"actor": "optimizer"})
    Coordinator(job, workers, lambda progress: None, threading.Event(), workers.clock, telemetry=[log]).run()
    return run


def lines_of(run: RunDirectory) -> list[Line]:
    return [json.loads(text) for text in (run.logs / "campaign.jsonl").read_text().splitlines()]


def failing_first(request: EvaluationRequest) -> Attempt:
    if request.attempt == 1 and request.query_id == "p0000-03":
        return Attempt(failure=Failure("network", "the line is broken, password=hunter2", retryable=True))
    return Attempt(seconds=2.0)


def test_at_debug_it_holds_every_event_of_the_ledger_and_all_ids(tmp_path: Path) -> None:
    run = drive(tmp_path / "run", config("debug"), failing_first)
    lines = lines_of(run)
    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        events, run_id = list(ledger.events()), run_id_of(ledger)
    kinds = {kind.value for kind in EventKind}
    assert [line["event"] for line in lines if line["event"] in kinds] == [event.kind.value for event in events]
    assert {line["campaign"] for line in lines} == {"contract"}
    begun = next(index for index, line in enumerate(lines) if line["event"] == "started")
    assert {line["run"] for line in lines[begun:]} == {run_id}
    assert all(set(line) <= {*FIELDS, "logger"} for line in lines)
    assert all(line["level"] in LEVELS and moment_of(line["time"]) > 0 for line in lines)
    failed = next(line for line in lines if line["event"] == "attempted")
    wanted = {
        "level": "warning",
        "query": "p0000-03",
        "proposal": 0,
        "attempt": 1,
        "worker": "virtual",
        "actor": "actor of virtual",
        "node": "n1",
        "status": "failed",
        "stage": "network",
        "seconds": 1.0,
        "cost": 1.0,
        "message": "network: the line is broken, password=***; will be tried again",
    }
    assert {name: failed[name] for name in wanted} == wanted


@pytest.mark.parametrize(("level", "often"), [("info", 0), ("warning", 0), ("debug", 25)])
def test_the_level_says_what_is_kept(tmp_path: Path, level: str, often: int) -> None:
    run = drive(tmp_path / "run", config(level), failing_first)
    lines = lines_of(run)
    assert sum(line["event"] == "reserved" for line in lines) == often
    assert sum(line["event"] == "attempted" for line in lines) == 1
    if level == "warning":
        assert {line["level"] for line in lines} == {"warning"}


def test_without_a_log_nothing_is_written_and_all_is_told_from_the_ledger(tmp_path: Path) -> None:
    run = drive(tmp_path / "run", config("none"), failing_first)
    assert not run.logs.exists()
    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        told = [line_of(event)["event"] for event in ledger.events()]
    found = RunLog(run.path).last(EVERYTHING, None)
    assert [line["event"] for line in found] == told
    assert [line["message"] for line in found if line["event"] == "attempted"] == [
        "network: the line is broken, password=***; will be tried again"
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_ends_the_log_and_not_the_campaign(tmp_path: Path) -> None:
    logs = tmp_path / "run" / "logs"
    RunDirectory(tmp_path / "run").create(config())
    logs.mkdir()
    (logs / "campaign.jsonl").symlink_to("/dev/full")
    drive(tmp_path / "run", config(), failing_first)
    (logs / "campaign.jsonl").unlink()  # to read it would never end
    found = RunLog(tmp_path / "run").last(Wanted(events=frozenset({"settled"})), None)
    assert len(found) == 24, "all of it is told from the ledger"
    assert not logging.getLogger("pilotwave").handlers


def test_a_resumed_run_goes_on_in_the_same_log(tmp_path: Path) -> None:
    chosen = config(queries=16)
    run = drive(tmp_path / "run", chosen)
    more = chosen.model_copy(update={"budget": chosen.budget.model_copy(update={"queries": 24})})
    drive(run.path, more)
    lines = lines_of(run)
    assert [line["message"].split(",")[0] for line in lines if line["event"] == "started"] == [
        "a driver began the campaign",
        "a driver took the campaign up again",
    ]
    assert len({line["run"] for line in lines if "run" in line}) == 1
    assert sum(line["event"] == "settled" for line in lines) == 24


def test_what_is_older_than_the_log_comes_from_the_ledger(tmp_path: Path) -> None:
    chosen = config("none", queries=16)
    run = drive(tmp_path / "run", chosen)
    drive(run.path, config("info", queries=24))
    found = RunLog(run.path).last(Wanted(events=frozenset({"settled"})), None)
    assert len(found) == 24
    assert len({line["query"] for line in found}) == 24
    assert [line["time"] for line in found] == sorted(line["time"] for line in found)


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Wanted("info", query="p0000-03"), 2),
        (Wanted("debug", query="p0000-03"), 4),
        (Wanted("info", query="p0000-03", events=frozenset({"settled"})), 1),
        (Wanted("warning"), 1),
        (Wanted("debug", proposal=1, events=frozenset({"settled"})), 8),
        (Wanted("debug", worker="nobody"), 0),
    ],
)
def test_lines_can_be_asked_for(tmp_path: Path, wanted: Wanted, count: int) -> None:
    run = drive(tmp_path / "run", config("debug"), failing_first)
    assert len(RunLog(run.path).last(wanted, None)) == count


def test_a_follower_sees_each_line_once_also_when_a_file_is_put_aside(tmp_path: Path) -> None:
    run = drive(tmp_path / "run", config())
    log = RunLog(run.path)
    log.last(EVERYTHING, 5)
    assert log.new(EVERYTHING) == []
    path = run.logs / "campaign.jsonl"

    def say(number: int) -> str:
        return json.dumps({"time": f"2999-01-01T00:00:0{number}.000000Z", "level": "info", "event": "note"}) + "\n"

    with path.open("a") as file:
        file.write(say(0))
    path.rename(run.logs / "campaign.1.jsonl")
    path.write_text(say(1) + '{"time": "2999')
    (run.logs / "evaluator-0.jsonl").write_text(say(2))
    assert [line["time"][18] for line in log.new(EVERYTHING)] == ["0", "1", "2"]
    assert log.new(EVERYTHING) == []


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Path]:
    logs = tmp_path / "run" / "logs"
    logs.mkdir(parents=True)
    (logs / "about.json").write_text(json.dumps({"campaign": "c", "run": "c-1", "level": "info"}))
    undo = WorkerLogs("evaluator-3", logs, {"actor": "a3", "node": "n1"}).install()
    yield logs
    undo()


def test_a_worker_writes_a_file_of_its_own_with_the_ids_of_what_it_does(tmp_path: Path, worker: Path) -> None:
    log = logging.getLogger("pilotwave.execution.oracle_host")
    log.debug("not kept")
    assert list(worker.glob("*.jsonl")) == []
    other = tmp_path / "other" / "logs"
    other.mkdir(parents=True)
    (other / "about.json").write_text(json.dumps({"campaign": "d", "run": "d-1", "level": "error"}))
    with asking("evaluator-3", "p0002-01", 2, worker.parent / "receipts"):
        log.warning("slow, token=hunter2")
    with asking("evaluator-3", "p0009-01", 1, other.parent / "receipts"):
        log.warning("another campaign, which keeps errors only")
        try:
            raise ValueError("no such basis set")
        except ValueError:
            log.exception("it broke")
    with asking("evaluator-3", "p0009-02", 1, tmp_path / "unseen" / "receipts"):
        log.error("of a run directory that this node does not see")
    (line,) = [json.loads(text) for text in (worker / "evaluator-3.jsonl").read_text().splitlines()]
    wanted = {
        "level": "warning",
        "event": "log",
        "message": "slow, token=***",
        "campaign": "c",
        "run": "c-1",
        "proposal": 2,
        "query": "p0002-01",
        "attempt": 2,
        "worker": "evaluator-3",
        "actor": "a3",
        "node": "n1",
    }
    assert {name: line[name] for name in wanted} == wanted
    (line,) = [json.loads(text) for text in (other / "evaluator-3.jsonl").read_text().splitlines()]
    assert (line["level"], line["message"], line["run"]) == ("error", "it broke", "d-1")
    assert line["output"][-1] == "ValueError: no such basis set"


def shouting(sample: Any, context: Any) -> float:
    print("SCF cycle 250: no convergence")
    if context.query_id.endswith("-02"):
        raise ValueError("it does not converge")
    return float(sample.array.sum())


def test_what_a_failing_oracle_printed_is_there_with_its_query(tmp_path: Path) -> None:
    chosen = {
        "name": "shouting",
        "backbone": {"kind": "analytic", "dim": 6, "steps": 3},
        "oracle": {"kind": "python", "function": f"{__file__}:shouting", "version": "1"},
        "algorithm": {"kind": "random"},
        "budget": {"queries": 8, "batch_size": 8},
        "runtime": {"kind": "inline", "evaluators": 2},
        "failures": {"maximum_rate": 1.0},
    }
    Campaign.from_dict(chosen).run(tmp_path / "run")
    run = RunLog(tmp_path / "run")
    wait_for(lambda: not run.is_at_work())
    said = run.last(Wanted(events=frozenset({"oracle-output"})), None)
    assert [(line["query"], line["attempt"]) for line in said] == [("p0000-02", 1)]
    assert said[0]["message"] == "the oracle wrote: SCF cycle 250: no convergence"
    assert said[0]["worker"].startswith("evaluator-")
    assert not logging.getLogger("pilotwave").handlers
