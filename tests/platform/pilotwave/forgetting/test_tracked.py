"""Forgetting in MLflow: the values that records took part in, in tables and in bytes; artifacts; a server."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.ledger import Event, EventKind, Ledger
from pilotwave.archive.records import evaluation_to_json
from pilotwave.errors import InfrastructureError
from pilotwave.forgetting.byte_search import files_under, files_with_bytes
from pilotwave.forgetting.forget_run import finish_promised_forgetting, forget, plan_forgetting
from pilotwave.forgetting.metrics import changes_without
from pilotwave.forgetting.selection import ForgetRequest
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.killed_child import killed_before_touch, touches
from pilotwave.testing.runtime_contract import campaign, state_of
from pilotwave.testing.steered_run import wait_for
from pilotwave.tracking import mlflow_forgetting
from pilotwave.tracking.mlflow_database import prepare_database
from pilotwave.tracking.mlflow_forgetting import MetricRow, tracked_run
from pilotwave.tracking.mlflow_run import open_client
from pilotwave.tracking.outbox import Outbox
from pilotwave.types import Evaluation, Status

PATIENCE = 120.0
BATCHES, BATCH = 3, 6


def run_tracked(run_dir: Path, **tracking: Any) -> Path:
    oracle = FaultyOracleConfig(isolation="thread")
    runtime = {"kind": "inline", "mode": "synchronous", "evaluators": 2}
    section = {"kind": "mlflow", "patience": PATIENCE, "system_metrics": False, **tracking}
    job = campaign(oracle, runtime, queries=BATCHES * BATCH, batch_size=BATCH, tracking=section)
    outcome = (job.resume if (run_dir / "ledger.sqlite").exists() else job.run)(run_dir).outcome
    assert "incomplete" not in outcome.tracking
    return run_dir


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished campaign with its database and artifacts, to be copied."""
    folder = tmp_path_factory.mktemp("tracked")
    prepare_database(folder / "mlflow.db")
    return run_tracked(folder / "run")


@pytest.fixture
def run_dir(tracked: Path, tmp_path: Path) -> Path:
    """A copy of everything; MLflow's own paths are made to point to it."""
    folder = tmp_path / "project"
    shutil.copytree(tracked.parent, folder)
    _move_artifacts(folder / "mlflow.db", tracked.parent, folder)
    handle = folder / "run" / "mlflow.json"
    handle.write_text(handle.read_text().replace(str(tracked.parent), str(folder)))
    return folder / "run"


def _move_artifacts(database: Path, before: Path, after: Path) -> None:
    with sqlite3.connect(database) as raw:
        places = [("experiments", "artifact_location"), ("runs", "artifact_uri")]
        for table, column in [*places, ("logged_models", "artifact_location")]:
            raw.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(before), str(after)))


def rows_of(run_dir: Path) -> dict[int, dict[str, float]]:
    found = tracked_run(run_dir)
    assert found is not None
    rows: dict[int, dict[str, float]] = {}
    for row in found.rows():
        rows.setdefault(row.step, {})[row.key] = row.value
    return rows


def artifacts_of(run_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in _stored(run_dir) if "models" not in path.parts}


def models_of(run_dir: Path) -> list[Path]:
    """The files of logged models."""
    return [path for path in _stored(run_dir) if "models" in path.parts]


def _stored(run_dir: Path) -> list[Path]:
    return [path for path in (run_dir.parent / "mlartifacts").rglob("*") if path.is_file()]


def expected(run_dir: Path, gone: set[str]) -> dict[int, dict[str, float]]:
    """What is known of each batch without some queries, worked out from the ledger alone."""
    state = state_of(run_dir)
    found, seen = {}, []
    for number, proposal in sorted(state.proposals.items()):
        ids = [query_id for query_id in proposal.query_ids if query_id not in gone]
        values = [state.settled[query_id].value for query_id in ids]
        seen += values
        batch = (
            {}
            if not values
            else {
                "batch_mean": statistics.fmean(values),
                "batch_best": min(values),
                "batch_standard_deviation": statistics.pstdev(values),
            }
        )
        best = {"best": min(seen)} if seen else {}
        found[(number + 1) * BATCH] = {"answered": float(len(seen)), **best, **batch}
    return found


def best_of(run_dir: Path) -> str:
    settled = state_of(run_dir).settled
    return min(settled, key=lambda query_id: settled[query_id].value or math.inf)


def test_metrics_and_artifacts_are_those_of_a_run_without_them(run_dir: Path) -> None:
    before = rows_of(run_dir)
    best = best_of(run_dir)
    gone = {best, "p0000-01", *(f"p0001-{slot:02d}" for slot in range(BATCH))}
    wanted = expected(run_dir, gone)
    values = [state_of(run_dir).settled[query_id].value for query_id in gone]
    lost = [old for step in before for key, old in before[step].items() if wanted[step].get(key, old) != old]
    assert len(lost) >= 6
    database = run_dir.parent / "mlflow.db"
    plan = plan_forgetting(run_dir, ForgetRequest(tuple(gone)))
    listed = [(place.kind, place.what) for place in plan.places if place.kind in ("metrics", "artifact")]
    assert listed[0][1].endswith("values to change")
    assert len(listed) == 1 + len(artifacts_of(run_dir)) == 4
    done = forget(run_dir, ForgetRequest(tuple(gone)))
    after = rows_of(run_dir)
    for step, row in after.items():
        for key in ("answered", "best", "batch_mean", "batch_best", "batch_standard_deviation"):
            assert row.get(key) == wanted[step].get(key), (step, key)
        for key in ("queries", "generation_seconds", "sampler_passes"):
            assert row[key] == before[step][key]
        assert 0.0 <= row["evaluator_utilisation"] <= 1.0
    results = {path.name: path.read_bytes() for path in (run_dir / "results").iterdir()}
    assert artifacts_of(run_dir) == results
    patterns = [struct.pack(">d", value) for value in values if value is not None]
    unshared = {
        struct.pack(">d", old) for old in lost if old not in {v for row in after.values() for v in row.values()}
    }
    assert files_with_bytes([database, *files_under(run_dir.parent)], [*patterns, *unshared]) == []
    names = [name.encode() for name in gone]
    assert files_with_bytes(files_under(run_dir.parent), names) == []
    changed = done.receipt.files
    assert changed["../mlflow.db"][0] != changed["../mlflow.db"][1]
    assert any(name.startswith("../mlartifacts/") and name.endswith("evaluations.csv") for name in changed)
    assert not done.receipt.collect_garbage


def test_mlflow_reads_what_is_left(run_dir: Path) -> None:
    best = best_of(run_dir)
    wanted = expected(run_dir, {best})
    forget(run_dir, ForgetRequest((best,)))
    handle = json.loads((run_dir / "mlflow.json").read_text())
    run = open_client(handle["tracking_uri"]).get_run(handle["run_id"])
    last = wanted[BATCHES * BATCH]
    assert {key: run.data.metrics[key] for key in last} == last
    assert run.info.status == "FINISHED"
    assert list(files_under(run_dir.parent))
    assert not (run_dir.parent / "mlflow.db-journal").exists()


def test_another_run_in_the_same_database_is_left_alone(run_dir: Path) -> None:
    handle = json.loads((run_dir / "mlflow.json").read_text())
    with sqlite3.connect(run_dir.parent / "mlflow.db") as raw:
        for table in ("runs", "metrics", "latest_metrics"):
            columns = [row[1] for row in raw.execute(f"PRAGMA table_info({table})")]
            names = ", ".join("'another'" if name == "run_uuid" else f'"{name}"' for name in columns)
            raw.execute(f"INSERT INTO {table} SELECT {names} FROM {table} WHERE run_uuid = ?", (handle["run_id"],))

    def others() -> list[Any]:
        with sqlite3.connect(run_dir.parent / "mlflow.db") as raw:
            return raw.execute("SELECT * FROM metrics WHERE run_uuid = 'another' ORDER BY 1, 2, 3, 5").fetchall()

    before = others()
    assert before
    forget(run_dir, ForgetRequest((best_of(run_dir),)))
    assert others() == before


def test_values_on_their_way_are_changed_too(run_dir: Path) -> None:
    rows = rows_of(run_dir)
    first = Outbox(run_dir / "mlflow-outbox.jsonl")
    first.append({"metrics": rows[BATCH], "step": BATCH, "time": 1_760_000_000_000})
    first.append({"artifact": str(run_dir / "results" / "evaluations.csv")})
    first.append({"metrics": {"loss": 1.0}, "step": 0, "time": 5})
    gone = {"p0000-01", "p0000-04"}
    wanted = expected(run_dir, gone)[BATCH]
    forget(run_dir, ForgetRequest(tuple(gone)))
    entries = Outbox(run_dir / "mlflow-outbox.jsonl").first(9)
    assert {key: entries[0]["metrics"][key] for key in wanted} == wanted
    assert entries[1:] == [
        {"artifact": str(run_dir / "results" / "evaluations.csv")},
        {"metrics": {"loss": 1.0}, "step": 0, "time": 5},
    ]


def test_a_database_in_use_keeps_the_promise(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_forgetting, "_BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(run_dir.parent / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    best = best_of(run_dir)
    wanted = expected(run_dir, {best})
    with pytest.raises(InfrastructureError, match=r"end what holds it.*will be finished by: pilotwave forget"):
        forget(run_dir, ForgetRequest((best,)))
    holder.execute("ROLLBACK")
    holder.close()
    assert best not in state_of(run_dir).settled
    forget(run_dir, ForgetRequest(("p0000-00",) if best != "p0000-00" else ("p0000-01",)))
    assert state_of(run_dir).forgotten == 2
    assert rows_of(run_dir)[BATCHES * BATCH]["best"] >= wanted[BATCHES * BATCH]["best"]


def test_a_database_that_is_gone_holds_nothing(run_dir: Path) -> None:
    (run_dir.parent / "mlflow.db").unlink()
    done = forget(run_dir, ForgetRequest(("p0000-00",)))
    assert done.receipt.records == 1
    assert not (run_dir.parent / "mlflow.db").exists()


def test_kills_while_mlflow_is_written(run_dir: Path, tmp_path: Path) -> None:
    best = best_of(run_dir)
    wanted = expected(run_dir, {best})
    count = _copied(run_dir, tmp_path / "counted")
    number = touches(lambda: forget(count, ForgetRequest((best,))), count.parent)
    for place, moment in enumerate(range(number - 13, number, 3)):
        copied = _copied(run_dir, tmp_path / str(place))
        assert killed_before_touch(
            moment,
            lambda copied=copied: forget(copied, ForgetRequest((best,))),  # type: ignore[misc]
            copied.parent,
        )
        finish_promised_forgetting(copied)
        for step, row in rows_of(copied).items():
            assert {key: row[key] for key in wanted[step]} == wanted[step]
        assert artifacts_of(copied)["evaluations.csv"] == (copied / "results" / "evaluations.csv").read_bytes()
        assert files_with_bytes(files_under(copied.parent), [best.encode()]) == []
        shutil.rmtree(copied.parent)


def _copied(run_dir: Path, folder: Path) -> Path:
    shutil.copytree(run_dir.parent, folder)
    _move_artifacts(folder / "mlflow.db", run_dir.parent, folder)
    handle = folder / "run" / "mlflow.json"
    handle.write_text(handle.read_text().replace(str(run_dir.parent), str(folder)))
    return folder / "run"


def test_nothing_changes_where_nothing_goes(tracked: Path) -> None:
    found = tracked_run(tracked)
    assert found is not None
    with Ledger.open(tracked / "ledger.sqlite", read_only=True) as ledger:
        events = list(ledger.events())
    rows = found.rows()
    assert changes_without(rows, events, set(), lambda value: value) == []
    foreign = [MetricRow("loss", 1, 2, 3.0), MetricRow("best", 1, 2, 3.0)]
    assert changes_without(foreign, events, {"p0000-00"}, lambda value: value) == []


def test_batches_that_overlap_in_time_are_told_apart() -> None:
    """As an asynchronous campaign logs: the second batch is complete first, and the best is of the first one."""
    names = ["p0000-00", "p0000-01", "p0001-00", "p0001-01"]
    settled = {"p0000-00": 5.0, "p0001-00": 7.0, "p0001-01": 9.0, "p0000-01": 1.0}
    events = [
        Event(1, 0.0, EventKind.STARTED, {}),
        *(
            Event(2 + i, 0.0, EventKind.GENERATED, {"proposal": i, "query_ids": part, "feasible": part})
            for i, part in enumerate((names[:2], names[2:]))
        ),
        *(
            Event(4 + i, 0.0, EventKind.SETTLED, evaluation_to_json(Evaluation(name, Status.OK, value)))
            for i, (name, value) in enumerate(settled.items())
        ),
    ]
    early = {"answered": 3.0, "failed": 0.0, "best": 5.0, "batch_mean": 8.0, "batch_best": 7.0}
    late = {"answered": 4.0, "failed": 0.0, "best": 1.0, "batch_mean": 3.0, "batch_best": 1.0}
    rows = [MetricRow(key, 4, 10, value) for key, value in early.items()]
    rows += [MetricRow(key, 4, 20, value) for key, value in late.items()]

    def changes(gone: set[str]) -> dict[tuple[str, int], float | None]:
        found = changes_without(rows, events, gone, lambda value: value)
        return {(change.key, change.timestamp): change.value for change in found}

    assert changes({"p0000-01"}) == {
        ("answered", 20): 3.0,
        ("best", 20): 5.0,
        ("batch_mean", 20): 5.0,
        ("batch_best", 20): 5.0,
    }
    assert changes({"p0001-00"}) == {
        ("answered", 10): 2.0,
        ("answered", 20): 3.0,
        ("batch_mean", 10): 9.0,
        ("batch_best", 10): 9.0,
    }
    assert changes({"p0000-00", "p0000-01"}) == {
        ("answered", 10): 2.0,
        ("best", 10): 7.0,
        ("answered", 20): 2.0,
        ("best", 20): 7.0,
        ("batch_mean", 20): None,
        ("batch_best", 20): None,
    }


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server on this machine."""
    folder = tmp_path / "server"
    prepare_database(folder / "mlflow.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return bool(urllib.request.urlopen(f"{uri}/health", timeout=1).read())
        except OSError:
            return False

    try:
        assert wait_for(answers, 120), (folder / "log").read_text()[-2000:]
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_on_a_server_the_run_is_logged_again_and_the_old_one_deleted(server: str, tmp_path: Path) -> None:
    run_dir = run_tracked(tmp_path / "runs" / "run", tracking_uri=server)
    client = open_client(server)
    handle = json.loads((run_dir / "mlflow.json").read_text())
    old = client.get_run(handle["run_id"])
    extra = tmp_path / "extra.txt"
    extra.write_text("of somebody else")
    client.log_artifact(handle["run_id"], str(extra), "notes")
    best = best_of(run_dir)
    wanted = expected(run_dir, {best})
    traces = [*_traces(run_dir, best), best.encode()]
    stored = tmp_path / "server" / "artifacts"
    assert files_with_bytes(files_under(stored), traces)
    assert len(client.search_logged_models([handle["experiment_id"]])) == 1
    done = forget(run_dir, ForgetRequest((best,)))
    assert done.receipt.collect_garbage
    assert len(client.search_logged_models([handle["experiment_id"]])) == 0
    models = [path for path in files_under(stored) if "models" in path.parts]
    assert models == []
    assert files_with_bytes(files_under(tmp_path / "server"), traces[:-1]) == []
    assert [note for note in done.notes if "mlflow gc" in note]
    again = json.loads((run_dir / "mlflow.json").read_text())
    assert again["run_id"] != handle["run_id"]
    new = client.get_run(again["run_id"])
    assert new.data.params == old.data.params
    assert (new.info.status, new.info.run_name, new.info.start_time) == ("FINISHED", "run", old.info.start_time)
    assert {step: {key: row[key] for key in wanted[step]} for step, row in rows_of(run_dir).items()} == wanted
    assert client.get_run(handle["run_id"]).info.lifecycle_stage == "deleted"
    active = client.search_runs([handle["experiment_id"]])
    assert [run.info.run_id for run in active] == [again["run_id"]]
    table = client.download_artifacts(again["run_id"], "evaluations.csv", str(tmp_path))
    assert best not in Path(table).read_text()
    note = client.download_artifacts(again["run_id"], "notes/extra.txt", str(tmp_path))
    assert Path(note).read_text() == "of somebody else"


def test_a_server_that_is_silent_stops_it_before_anything_is_promised(run_dir: Path) -> None:
    handle = run_dir / "mlflow.json"
    handle.write_text(json.dumps({**json.loads(handle.read_text()), "tracking_uri": "http://127.0.0.1:9"}))
    before = (run_dir / "ledger.sqlite").read_bytes()
    with pytest.raises(InfrastructureError, match="start the server, then repeat"):
        forget(run_dir, ForgetRequest(("p0000-00",)))
    assert (run_dir / "ledger.sqlite").read_bytes() == before
    assert not (run_dir / "forgotten" / "promised.json").exists()


def _traces(run_dir: Path, query_id: str) -> list[bytes]:
    """Bytes that only this candidate's tensors have."""
    with Ledger.open(run_dir / "ledger.sqlite", read_only=True) as ledger:
        candidate = ledger.candidate(query_id)
    return [tensor.numpy().tobytes() for tensor in (candidate.latent, *candidate.noise_sequence) if tensor.any()]


def test_what_was_learned_from_them_goes_with_its_bytes(run_dir: Path) -> None:
    gone = ("p0000-01", best_of(run_dir))
    needles = [trace for query_id in gone for trace in _traces(run_dir, query_id)]
    learned = [*models_of(run_dir), *files_under(run_dir / "guidance")]
    held = {path.name for path in files_with_bytes(learned, needles)}
    assert held == {"algorithm.safetensors"}
    assert (
        len(files_with_bytes(learned, [name.encode() for name in gone])) == 2
    )  # ids in algorithm.json, both times
    waiting = Outbox(run_dir / "mlflow-outbox.jsonl")
    waiting.append({"model": str(run_dir / "guidance"), "step": 18})
    waiting.append({"tags": {"archive.digest": "x"}})
    unfinished = run_dir / ".guidance.1.tmp"  # left by a kill
    shutil.copytree(run_dir / "guidance", unfinished)
    listed = [place.path for place in plan_forgetting(run_dir, ForgetRequest(gone)).places if place.kind == "model"]
    assert len(listed) == len(list(files_under(run_dir / "guidance"))) + 1
    assert ": m-" in listed[-1]
    done = forget(run_dir, ForgetRequest(gone))
    assert models_of(run_dir) == []
    assert not (run_dir / "guidance").exists()
    assert not unfinished.exists()
    assert files_with_bytes(files_under(run_dir.parent), [*needles, *(name.encode() for name in gone)]) == []
    assert Outbox(run_dir / "mlflow-outbox.jsonl").first(9) == [{"tags": {"archive.digest": "x"}}]
    pairs = [pair for name, pair in done.receipt.files.items() if name.endswith("algorithm.safetensors")]
    assert len(pairs) == 2
    assert all(before is not None and after is None for before, after in pairs)
    client = open_client(f"sqlite:///{run_dir.parent / 'mlflow.db'}")
    handle = json.loads((run_dir / "mlflow.json").read_text())
    assert list(client.search_logged_models([handle["experiment_id"]])) == []
    assert "pilotwave.model" not in client.get_run(handle["run_id"]).data.tags
    with sqlite3.connect(run_dir.parent / "mlflow.db") as raw:
        for table in ("logged_models", "logged_model_tags", "inputs"):
            assert raw.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_resuming_logs_one_that_never_saw_them(run_dir: Path) -> None:
    gone = "p0001-02"
    needles = _traces(run_dir, gone)
    forget(run_dir, ForgetRequest((gone,)))
    run_tracked(run_dir)
    assert len(models_of(run_dir)) == len(list(files_under(run_dir / "guidance"))) == 8
    assert files_with_bytes(files_under(run_dir.parent), [*needles, gone.encode()]) == []


def test_kills_while_what_was_learned_is_deleted(run_dir: Path, tmp_path: Path) -> None:
    gone = "p0001-02"
    needles = _traces(run_dir, gone)
    count = _copied(run_dir, tmp_path / "counted")
    number = touches(lambda: forget(count, ForgetRequest((gone,))), count.parent)
    for moment in range(number - 33, number, 4):
        copied = _copied(run_dir, tmp_path / str(moment))
        assert killed_before_touch(
            moment,
            lambda copied=copied: forget(copied, ForgetRequest((gone,))),  # type: ignore[misc]
            copied.parent,
        )
        finish_promised_forgetting(copied)
        assert models_of(copied) == []
        assert files_with_bytes(files_under(copied.parent), [*needles, gone.encode()]) == []
        shutil.rmtree(copied.parent)
