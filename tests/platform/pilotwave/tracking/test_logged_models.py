"""Learned guidance as logged models: once, whole after a kill, by a setting; what cannot be logged is a warning."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilotwave.backbones.analytic import AnalyticBackboneConfig
from pilotwave.campaign import optimize
from pilotwave.config.campaign import Generation, Objective
from pilotwave.config.components import AlgorithmConfig
from pilotwave.config.registry import load
from pilotwave.execution.guidance_config import GuidanceConfig
from pilotwave.execution.learned_model import LearnedFacts, write_model
from pilotwave.testing.algorithm_contract import setting_of
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.runtime_contract import campaign
from pilotwave.tracking import system_metrics
from pilotwave.tracking.mlflow_models import run_models
from pilotwave.tracking.mlflow_run import MlflowRun, RunRequest, open_client
from pilotwave.tracking.mlflow_tracker import MlflowTrackingConfig

Place = Callable[[Path], Path]
PATIENCE = 120.0


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "run"


def written(folder: Path, answers: int = 0) -> Path:
    config = AnalyticBackboneConfig(kind="analytic", dim=6, steps=3)
    chosen = load("algorithm", "trust-direct")(kind="trust-direct")
    assert isinstance(chosen, AlgorithmConfig)
    state = chosen.build(setting_of(config.build("cpu"))).state_dict()
    settings = (config, chosen, (), Objective(), Generation(), 4, 0)
    write_model(folder, GuidanceConfig("x", *settings), LearnedFacts("x", answers=answers), state, [])
    return folder


def opened(run_dir: Path, database: Path) -> tuple[MlflowRun, Any]:
    address = f"sqlite:///{database}"
    return MlflowRun.open(RunRequest(run_dir, address, "experiment", "run", {}, {})), open_client(address)


def test_the_same_is_logged_once_and_a_half_one_goes(run_dir: Path, place_database: Place) -> None:
    run, client = opened(run_dir, place_database(run_dir))
    half = client.create_logged_model(run.handle.experiment_id, name="guidance", source_run_id=run.run_id)
    client.log_model_artifact(half.model_id, str(written(run_dir / "guidance") / "guidance.json"))
    folder = Path(half.artifact_location.removeprefix("file://"))
    assert (folder / "guidance.json").exists()
    run.write_model(str(run_dir / "guidance"), 4)
    run.write_model(str(run_dir / "guidance"), 4)
    (only,) = run_models(client, run.handle)
    assert only.model_id != half.model_id
    assert not (folder / "guidance.json").exists()
    run.write_model(str(written(run_dir / "guidance")), 4)  # made anew, and the same
    assert len(run_models(client, run.handle)) == 1
    run.write_model(str(written(run_dir / "guidance", answers=3)), 8)
    first, second = run_models(client, run.handle)
    assert first.model_id == only.model_id
    run_tags = client.get_run(run.run_id).data.tags
    assert run_tags["pilotwave.model"] == f"models:/{second.model_id}"
    other, _ = opened(run_dir.parent / "other", place_database(run_dir.parent / "other"))
    assert run_models(client, other.handle) == []


def test_a_folder_that_is_gone_is_said_and_costs_nothing_else(run_dir: Path, place_database: Place) -> None:
    place_database(run_dir)
    tracker = MlflowTrackingConfig(kind="mlflow", patience=PATIENCE, system_metrics=False).build(run_dir)
    tracker.start("polarizable", {}, {})
    tracker.model(str(run_dir / "gone"), 3)  # type: ignore[attr-defined]
    tracker.tag({"archive.digest": "abc"})  # type: ignore[attr-defined]
    tracker.log({"best": 1.0}, step=1)
    tracker.finish("finished")
    assert "gone" in tracker.describe()
    client = open_client(f"sqlite:///{run_dir.parent / 'mlflow.db'}")
    (run,) = client.search_runs([item.experiment_id for item in client.search_experiments()])
    assert (run.info.status, run.data.metrics, run.data.tags["archive.digest"]) == (
        "FINISHED",
        {"best": 1.0},
        "abc",
    )


@pytest.mark.parametrize("model", [True, False])
def test_a_campaign_logs_a_model_unless_it_shall_not(run_dir: Path, place_database: Place, model: bool) -> None:
    place_database(run_dir)
    shutil.rmtree(run_dir)
    tracking = {"kind": "mlflow", "patience": PATIENCE, "system_metrics": False, "model": model}
    oracle = FaultyOracleConfig(isolation="thread")
    done = campaign(oracle, {"kind": "inline"}, queries=8, batch_size=4, tracking=tracking).run(run_dir)
    assert done.outcome.warnings == ()
    assert (run_dir / "guidance").exists() == model
    client = open_client(f"sqlite:///{run_dir.parent / 'mlflow.db'}")
    found = client.search_logged_models([item.experiment_id for item in client.search_experiments()])
    assert [item.tags["pilotwave.queries"] for item in found] == (["8"] if model else [])


def test_what_no_folder_can_hold_is_a_warning(run_dir: Path, place_database: Place) -> None:
    place_database(run_dir)
    shutil.rmtree(run_dir)
    backbone = AnalyticBackboneConfig(kind="analytic", dim=6, steps=3).build("cpu")
    tracking = {"kind": "mlflow", "patience": PATIENCE, "system_metrics": False}
    done = optimize(
        backbone,
        lambda sample: float(sample.array.sum()),
        queries=8,
        batch_size=4,
        run_dir=run_dir,
        tracking=tracking,
    )
    (warning,) = done.outcome.warnings
    assert warning.startswith("what was learned was not logged as a model: the model was given as a Python object")
    assert not (run_dir / "guidance").exists()
    assert len(done.generate(3)) == 3


def test_a_missing_package_costs_the_load_alone(
    run_dir: Path, place_database: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> list[Any]:
        raise ImportError("no psutil", name="psutil")

    monkeypatch.setattr(system_metrics, "_monitors", missing)
    place_database(run_dir)
    tracker = MlflowTrackingConfig(kind="mlflow", patience=PATIENCE).build(run_dir)
    tracker.start("polarizable", {}, {})
    tracker.log({"best": 1.0}, step=1)
    tracker.describe()
    tracker.finish("finished")
    assert "no system metrics, because psutil is not installed: pip install" in tracker.describe()
    client = open_client(f"sqlite:///{run_dir.parent / 'mlflow.db'}")
    (run,) = client.search_runs([item.experiment_id for item in client.search_experiments()])
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"best": 1.0})
