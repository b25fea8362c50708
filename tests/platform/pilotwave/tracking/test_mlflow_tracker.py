from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotwave.protocols import Tracker
from pilotwave.testing.tracker_contract import TrackerContract
from pilotwave.tracking.environment import environment_tags, git_tags
from pilotwave.tracking.mlflow_database import prepare_database
from pilotwave.tracking.mlflow_tracker import MlflowTracker, MlflowTrackingConfig

PATIENCE = 120.0
"""Seconds; importing MLflow on a busy machine takes a while, and nothing here waits for it to be fast."""

Place = Callable[[Path], Path]


def tracker_of(run_dir: Path, **options: Any) -> MlflowTracker:
    config = MlflowTrackingConfig(kind="mlflow", **{"patience": PATIENCE, "system_metrics": False, **options})
    tracker = config.build(run_dir)
    assert isinstance(tracker, MlflowTracker)
    return tracker


def all_runs(database: Path) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{database}", registry_uri=f"sqlite:///{database}")
    experiments = [item.experiment_id for item in client.search_experiments()]
    return list(client.search_runs(experiments))


def history(database: Path, run_id: str, name: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{database}", registry_uri=f"sqlite:///{database}")
    return sorted((item.step, item.value) for item in client.get_metric_history(run_id, name))


@pytest.fixture
def run_dir(tmp_path: Path, place_database: Place) -> Path:
    path = tmp_path / "runs" / "demo"
    place_database(path)
    return path


@pytest.fixture
def database(run_dir: Path) -> Path:
    return run_dir.parent / "mlflow.db"


class TestMlflowTracker(TrackerContract):
    @pytest.fixture(autouse=True)
    def _database(self, place_database: Place) -> None:
        self.place = place_database

    def make(self, run_dir: Path) -> Tracker:
        self.place(run_dir)
        return tracker_of(run_dir)

    def make_broken(self, run_dir: Path) -> Tracker:
        # Nobody listens on the discard port.
        return tracker_of(run_dir, tracking_uri="http://127.0.0.1:9", patience=3)


def test_a_campaign_can_be_read_back(run_dir: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)  # a stray of another tool
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracker = tracker_of(run_dir)
    tracker.start("polarizable", {"budget": {"queries": 32}, "seed": 0}, {"run_dir": str(run_dir)})
    for step in (16, 32):
        tracker.log({"best": 2.0 * step, "batch_mean": float(step)}, step=step)
    sdf = run_dir / "best.sdf"
    sdf.write_text("$$$$\n")
    tracker.artifact(str(sdf))
    tracker.finish("finished")
    (run,) = all_runs(database)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "demo"
    assert run.info.end_time is not None
    assert run.data.params == {"budget.queries": "32", "seed": "0"}
    assert run.data.metrics == {"best": 64.0, "batch_mean": 32.0}
    assert history(database, run.info.run_id, "best") == [(16, 32.0), (32, 64.0)]
    assert run.data.tags["run_dir"] == str(run_dir)
    assert run.data.tags["python"] == sys.version.split()[0]
    assert run.data.tags["package.torch"]
    artifacts = list((run_dir.parent / "mlartifacts").rglob("best.sdf"))
    assert [path.read_text() for path in artifacts] == ["$$$$\n"]
    assert tracker.describe() == (
        f"MLflow run {run.info.run_id}; open with: mlflow ui --backend-store-uri sqlite:///{database}"
    )
    assert sorted(path.name for path in run_dir.iterdir()) == ["best.sdf", "mlflow.json"]


def test_a_resumed_campaign_continues_its_run(run_dir: Path, database: Path) -> None:
    for queries, status in ((16, "killed"), (32, "finished")):
        tracker = tracker_of(run_dir)
        tracker.start("polarizable", {"budget": {"queries": queries}, "seed": 0}, {})
        tracker.log({"best": float(queries)}, step=queries)
        tracker.finish(status)
        (run,) = all_runs(database)
        assert run.info.status == status.upper()
    assert history(database, run.info.run_id, "best") == [(16, 16.0), (32, 32.0)]
    assert run.data.params["budget.queries"] == "16"
    assert run.data.tags["changed.budget.queries"] == "32"


def test_a_run_that_was_made_but_not_noted_is_found_again(run_dir: Path, database: Path) -> None:
    first = tracker_of(run_dir)
    first.start("polarizable", {}, {})
    first.finish("killed")
    handle = json.loads((run_dir / "mlflow.json").read_text())
    (run_dir / "mlflow.json").write_text(json.dumps({**handle, "run_id": None}))
    second = tracker_of(run_dir)
    second.start("polarizable", {}, {})
    second.finish("finished")
    (run,) = all_runs(database)
    assert run.info.run_id == handle["run_id"]


def test_a_locked_database_is_waited_for(run_dir: Path, database: Path) -> None:
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    tracker = tracker_of(run_dir)
    tracker.start("polarizable", {}, {})
    tracker.log({"best": 1.0}, step=1)
    assert "locked" in tracker.describe()
    holder.execute("ROLLBACK")
    holder.close()
    tracker.finish("finished")
    assert "incomplete" not in tracker.describe()
    (run,) = all_runs(database)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"best": 1.0})


def test_what_a_lost_database_missed_is_written_on_resume(run_dir: Path, database: Path) -> None:
    hidden = database.with_suffix(".away")
    database.rename(hidden)
    database.mkdir()  # something that is no database is in its place
    first = tracker_of(run_dir, patience=2)
    first.start("polarizable", {}, {})
    first.log({"best": 1.0}, step=1)
    first.finish("finished")
    assert "nothing was written" in first.describe()
    database.rmdir()
    hidden.rename(database)
    second = tracker_of(run_dir)
    second.start("polarizable", {}, {})
    second.log({"best": 2.0}, step=2)
    second.finish("finished")
    (run,) = all_runs(database)
    assert history(database, run.info.run_id, "best") == [(1, 1.0), (2, 2.0)]


def test_trouble_is_said_once(run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="pilotwave.tracking"):
        tracker = tracker_of(run_dir, tracking_uri="http://127.0.0.1:9", patience=3)
        tracker.start("polarizable", {}, {})
        for step in range(20):
            tracker.log({"best": 1.0}, step=step)
        tracker.finish("finished")
    said = [record.getMessage() for record in caplog.records if record.name == "pilotwave.tracking"]
    assert len(said) == 1
    assert "the campaign goes on" in said[0]
    assert tracker.describe().startswith("MLflow: nothing was written to http://127.0.0.1:9; incomplete: ")


def test_a_missing_artifact_is_said_and_costs_nothing_else(run_dir: Path, database: Path) -> None:
    tracker = tracker_of(run_dir)
    tracker.start("polarizable", {}, {})
    tracker.artifact(str(run_dir / "gone.png"))
    tracker.log({"best": 1.0}, step=1)
    tracker.finish("finished")
    assert "gone.png" in tracker.describe()
    (run,) = all_runs(database)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"best": 1.0})


def test_a_run_directory_that_is_gone(tmp_path: Path, place_database: Place) -> None:
    place_database(tmp_path / "runs" / "other")
    tracker = tracker_of(tmp_path / "runs" / "gone")
    tracker.start("polarizable", {}, {})
    tracker.log({"best": 1.0}, step=1)
    tracker.finish("finished")
    (run,) = all_runs(tmp_path / "runs" / "mlflow.db")
    assert run.data.metrics == {"best": 1.0}


def test_two_campaigns_share_one_database(run_dir: Path, database: Path) -> None:
    trackers = [tracker_of(run_dir.parent / name) for name in ("a", "b")]
    for tracker in trackers:
        tracker.start("polarizable", {}, {})
    for step in range(20):
        for tracker in trackers:
            tracker.log({"best": float(step)}, step=step)
    for tracker in trackers:
        tracker.finish("finished")
    runs = all_runs(database)
    assert {run.info.run_name for run in runs} == {"a", "b"}
    for run in runs:
        assert history(database, run.info.run_id, "best") == [(i, float(i)) for i in range(20)]


CAMPAIGN = """
import sys, time
from pathlib import Path
from pilotwave.tracking.mlflow_tracker import MlflowTrackingConfig
tracker = MlflowTrackingConfig(kind="mlflow", patience=120, system_metrics=False).build(Path(sys.argv[1]))
tracker.start("polarizable", {}, {})
for step in range(int(sys.argv[2]), int(sys.argv[2]) + 5):
    tracker.log({"best": float(step)}, step=step)
if sys.argv[3] == "error":
    tracker.describe()
    raise SystemExit(1)
if sys.argv[3] == "hang":
    print("logged", flush=True)
    time.sleep(600)
tracker.finish("finished")
"""


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def campaign(children: list[subprocess.Popen[str]], run_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CAMPAIGN, str(run_dir), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children.append(child)
    return child


def test_a_campaign_that_ends_with_an_error_is_not_left_running(
    run_dir: Path, database: Path, children: list[subprocess.Popen[str]]
) -> None:
    assert campaign(children, run_dir, "0", "error").wait() == 1
    (run,) = all_runs(database)
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"best": 4.0}


def test_a_killed_campaign_loses_no_metric(
    run_dir: Path, database: Path, children: list[subprocess.Popen[str]]
) -> None:
    child = campaign(children, run_dir, "0", "hang")
    assert child.stdout is not None
    assert child.stdout.readline() == "logged\n"  # MLflow is still being imported
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert campaign(children, run_dir, "5", "finish").wait() == 0
    (run,) = all_runs(database)
    assert run.info.status == "FINISHED"
    assert history(database, run.info.run_id, "best") == [(i, float(i)) for i in range(10)]


def test_logging_does_not_import_mlflow_in_the_callers_way(run_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pilotwave.tracking.mlflow_tracker import MlflowTrackingConfig\n"
        f"MlflowTrackingConfig(kind='mlflow').build(Path({str(run_dir)!r}))\n"
        "assert 'mlflow' not in sys.modules and 'sqlalchemy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_database_appears_whole_and_is_made_once(made_database: Any) -> None:
    path = made_database.path
    assert made_database.sizes <= {path.stat().st_size}
    assert [item.name for item in path.parent.iterdir()] == ["mlflow.db"]
    inode = path.stat().st_ino
    prepare_database(path)
    assert path.stat().st_ino == inode


def test_git_revision(tmp_path: Path) -> None:
    assert git_tags(tmp_path / "not there") == {}
    assert git_tags(tmp_path) == {}

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    assert git_tags(tmp_path) == {}  # no commit yet
    (tmp_path / "campaign.yaml").write_text("name: x\n")
    git("add", ".")
    git("commit", "-m", "first")
    assert git_tags(tmp_path) == {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git.changed": "no"}
    (tmp_path / "campaign.yaml").write_text("name: y\n")
    assert environment_tags(tmp_path)["git.changed"] == "yes"


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "./mlruns", "sqlite://", ""])
def test_addresses_that_mlflow_refuses_are_refused_before_anything_runs(uri: str) -> None:
    with pytest.raises(ValueError, match="tracking_uri"):
        MlflowTrackingConfig(kind="mlflow", tracking_uri=uri)
