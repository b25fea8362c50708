"""A real `mlflow server`, on sqlite and on PostgreSQL: killed in the middle, and all is there afterwards."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.project import ProjectArchive
from pilotwave.campaign import open_guidance
from pilotwave.errors import BreakerError
from pilotwave.execution.job import Progress
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.mlflow_server import MlflowServer, postgres_cluster, postgres_programs
from pilotwave.testing.runtime_contract import campaign, state_of
from pilotwave.testing.steered_run import wait_for
from pilotwave.tracking.mlflow_run import open_client
from pilotwave.tracking.outbox import Outbox

BATCH, BATCHES = 6, 8
PATIENCE = 150.0


def needs_postgres() -> None:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed: pip install psycopg2-binary")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("sqlite", marks=pytest.mark.slow),
        pytest.param("postgresql", marks=pytest.mark.postgres),
    ],
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, made_database: Any
) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        shutil.copyfile(made_database.path, folder / "mlflow.db")
        yield from served(MlflowServer(folder, f"sqlite:///{folder / 'mlflow.db'}"))
        return
    needs_postgres()
    with postgres_cluster() as address:
        yield from served(MlflowServer(folder, address))


def served(server: MlflowServer) -> Iterator[MlflowServer]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


def job(server: MlflowServer, oracle: FaultyOracleConfig, **fields: Any) -> Any:
    section = {"kind": "mlflow", "tracking_uri": server.uri, "patience": PATIENCE, "system_metrics": False}
    tracking = {**section, **fields.pop("tracking", {})}
    runtime = {"kind": "inline", "mode": "synchronous", "evaluators": 2}
    settings = {"queries": BATCHES * BATCH, "batch_size": BATCH, "algorithm": {"kind": "trust-direct"}, **fields}
    return campaign(oracle, runtime, tracking=tracking, **settings)


def run_of(run_dir: Path) -> Any:
    handle = json.loads((run_dir / "mlflow.json").read_text())
    return open_client(handle["tracking_uri"]).get_run(handle["run_id"])


class Outage:
    """Kills the server once it has the first batch, and starts it again when the campaign is much further."""

    def __init__(self, server: MlflowServer, run_dir: Path) -> None:
        self.server, self.run_dir = server, run_dir
        self.killed = self.started_again = False
        self.waiting = 0

    def __call__(self, progress: Progress) -> None:
        if not self.killed and progress.spent >= 2 * BATCH:
            assert wait_for(self._has_metrics, 120)
            self.server.kill()
            self.killed = True
        elif self.killed and not self.started_again and progress.spent >= 6 * BATCH:
            assert wait_for(lambda: len(Outbox(self.run_dir / "mlflow-outbox.jsonl")) > 0)
            self.waiting = len(Outbox(self.run_dir / "mlflow-outbox.jsonl"))
            time.sleep(1.5)  # a minute, for tests: some tries fail meanwhile
            self.server.launch()
            self.started_again = True

    def _has_metrics(self) -> bool:
        handle = self.run_dir / "mlflow.json"
        if not handle.exists() or json.loads(handle.read_text())["run_id"] is None:
            return False
        return "best" in run_of(self.run_dir).data.metrics


def test_a_server_that_is_away_for_a_while_loses_nothing(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "12345")
    run_dir = tmp_path / "run"
    outage = Outage(server, run_dir)
    tracking = {"system_metrics": True, "system_metrics_interval": 0.3}
    made = job(
        server,
        FaultyOracleConfig(isolation="thread", delay=0.1),
        tracking=tracking,
        archive={"path": tmp_path / "archive"},
    ).run(run_dir, observe=outage)
    assert outage.started_again
    assert outage.waiting >= 1
    assert f"open {server.uri}/#/experiments/" in made.outcome.tracking
    server.wait()
    assert not (run_dir / "mlflow-outbox.jsonl").exists()
    run, client = run_of(run_dir), open_client(server.uri)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.info.run_id != "0" * 32
    state = state_of(run_dir)
    best, expected = None, {}
    for number, proposal in sorted(state.proposals.items()):
        values = [state.settled[query_id].value for query_id in proposal.query_ids]
        best = min(values if best is None else [best, *values])
        expected[(number + 1) * BATCH] = (best, sum(values) / len(values))
    for name, place in (("best", 0), ("batch_mean", 1)):
        history = {item.step: item.value for item in client.get_metric_history(run.info.run_id, name)}
        assert history.keys() == expected.keys()
        assert history == pytest.approx({step: pair[place] for step, pair in expected.items()}, rel=1e-12)
    load = client.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    assert len(load) >= 2
    assert all(0 <= item.value <= 100 for item in load)
    assert run.data.params["algorithm.kind"] == "trust-direct"
    with ProjectArchive.open(tmp_path / "archive", read_only=True) as archive:
        assert run.data.tags["archive.digest"] == archive.digest()
        assert run.data.tags["archive.records"] == str(BATCHES * BATCH)
    assert run.data.tags["archive"] == str(tmp_path / "archive")
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"evaluations.csv", "learning_curve.csv", "learning_curve.png"}
    check_model(server, run_dir, run, tmp_path, monkeypatch)


def arrays(sample: Any) -> Any:
    return sample.array.tolist()


def check_model(
    server: MlflowServer, run_dir: Path, run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow and `pilotwave generate` load what was learned, without the run directory."""
    import mlflow

    wanted = open_guidance(run_dir).generate(5, seed=2)
    gone = run_dir.rename(folder / "gone")
    monkeypatch.delenv("MLFLOW_RUN_ID")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server.uri)
    try:
        model = mlflow.pyfunc.load_model(run.data.tags["pilotwave.model"])
        table = model.predict({"n": 5, "seed": 2})
        same = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/guidance").predict({"n": 5, "seed": 2})
        copied = mlflow.artifacts.download_artifacts(
            run.data.tags["pilotwave.model"], dst_path=str(folder / "model")
        )
    finally:
        mlflow.set_tracking_uri(before)
        gone.rename(run_dir)
    assert list(table["label"]) == [item.label for item in wanted]
    assert list(table["predicted"]) == [item.predicted for item in wanted]
    assert table["array"].tolist() == [arrays(item.sample) for item in wanted]
    assert list(same["label"]) == list(table["label"])
    assert [item.label for item in open_guidance(copied).generate(5, seed=2)] == list(table["label"])
    assert model.metadata.run_id == run.info.run_id
    assert model.metadata.model_id == run.outputs.model_outputs[0].model_id


def test_runs_end_as_their_campaigns_do_and_go_on_as_the_same_run(
    server: MlflowServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    interrupt = threading.Event()

    def stop(progress: Progress) -> None:
        if progress.spent >= BATCH:
            interrupt.set()

    slow = FaultyOracleConfig(isolation="thread", delay=0.05)
    outcome = job(server, slow, queries=4 * BATCH).run(run_dir, observe=stop, interrupt=interrupt).outcome
    assert not outcome.finished
    first = run_of(run_dir)
    assert first.info.status == "KILLED"
    failing = FaultyOracleConfig(isolation="thread", fault="raise", every=2, attempts=1)
    with pytest.raises(BreakerError):
        job(server, failing, failures={"maximum_rate": 0.2}).run(tmp_path / "failing")
    assert run_of(tmp_path / "failing").info.status == "FAILED"
    assert job(server, slow, queries=8 * BATCH).resume(run_dir).outcome.finished
    last = run_of(run_dir)
    assert (last.info.status, last.info.run_id) == ("FINISHED", first.info.run_id)
    assert last.data.tags["changed.budget.queries"] == str(8 * BATCH)
    assert capfd.readouterr().out == ""  # --json is for programs
    models = [item.model_id for item in last.outputs.model_outputs]
    assert len(models) == 2  # after the interruption, and at the end
    found = open_client(server.uri).search_logged_models([last.info.experiment_id], "name = 'guidance'")
    newest = max((item for item in found if item.model_id in models), key=queries_of)
    assert queries_of(newest) == 8 * BATCH
    assert last.data.tags["pilotwave.model"] == f"models:/{newest.model_id}"


def queries_of(model: Any) -> int:
    return int(model.tags["pilotwave.queries"])
