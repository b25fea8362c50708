"""A training run in a tracker: opened at the first step, the same run after a restart, files when they change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pilotwave.tracking.mlflow_tracker import MlflowTrackingConfig
from pilotwave.tracking.tracked_training import TrackedTraining
from pilotwave.training.progress import TrainingProgress


def report(seen: int, **quality: float) -> TrainingProgress:
    held_out = 1.0 if quality else None
    return TrainingProgress(seen, 64, 2.0 / seen, held_out, 10.0, 5.0, quality)


class Notebook:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def start(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        self.told.append(("start", name, dict(parameters), dict(tags)))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.told.append(("log", step, dict(metrics)))

    def artifact(self, path: str) -> None:
        self.told.append(("artifact", Path(path).name))

    def finish(self, status: str) -> None:
        self.told.append(("finish", status))

    def describe(self) -> str:
        return "in the notebook"


def tracked(tracker: Any, folder: Path) -> TrackedTraining:
    files = [folder / "samples.png", folder / "MODEL_CARD.md"]
    return TrackedTraining(tracker, "train-molecule", {"seed": 0}, {"model": "molecule"}, files)


def test_what_never_began_leaves_no_run(tmp_path: Path) -> None:
    notebook = Notebook()
    watcher = tracked(notebook, tmp_path)
    watcher.announce("preparing")
    assert watcher.finish("failed") == ""
    assert notebook.told == []


def test_reports_and_changed_files_are_told(tmp_path: Path) -> None:
    notebook = Notebook()
    (tmp_path / "MODEL_CARD.md").write_text("of the part before")
    watcher = tracked(notebook, tmp_path)
    watcher.tick(8, 64, 2.0)
    watcher(report(8))
    (tmp_path / "samples.png").write_bytes(b"one")
    watcher(report(16, strict_validity=0.5, epochs=float("nan")))
    (tmp_path / "MODEL_CARD.md").unlink()
    (tmp_path / "MODEL_CARD.md").write_text("of the end")
    assert watcher.finish("finished") == "in the notebook"
    assert notebook.told == [
        ("start", "train-molecule", {"seed": 0}, {"model": "molecule"}),
        ("log", 8, {"loss": 0.25, "per_second": 10.0}),
        ("log", 16, {"loss": 0.125, "per_second": 10.0, "strict_validity": 0.5, "held_out_loss": 1.0}),
        ("artifact", "samples.png"),
        ("artifact", "MODEL_CARD.md"),
        ("finish", "finished"),
    ]


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(
    tmp_path: Path, place_database: Callable[[Path], Path]
) -> None:
    from mlflow.tracking import MlflowClient

    folder = tmp_path / "training" / "molecule"
    database = place_database(folder)
    (folder / "samples.png").write_bytes(b"\x89PNG")
    for part, status in ((1, "killed"), (2, "finished")):
        watcher = tracked(MlflowTrackingConfig(kind="mlflow", patience=120.0).build(folder), folder)
        watcher.tick(8 * part, 64, 1.0)
        (folder / "MODEL_CARD.md").write_text("card" * part)
        watcher(report(8 * part, strict_validity=0.25 * part))
        assert "open with: mlflow ui" in watcher.finish(status)
    client = MlflowClient(tracking_uri=f"sqlite:///{database}", registry_uri=f"sqlite:///{database}")
    (experiment,) = [item for item in client.search_experiments() if item.name == "train-molecule"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "0"
    assert run.data.tags["model"] == "molecule"
    validity = client.get_metric_history(run.info.run_id, "strict_validity")
    assert sorted((item.step, item.value) for item in validity) == [(8, 0.25), (16, 0.5)]
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["MODEL_CARD.md"]
