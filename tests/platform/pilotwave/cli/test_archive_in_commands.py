"""What a user reads of a project archive: the summary, the status, MLflow, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pilotwave.cli import run as command_line

CAMPAIGN = """\
name: tiny
backbone: {kind: analytic, dim: 6, steps: 3}
oracle: {kind: python, function: "pilotwave.testing.faulty_oracles:score", isolation: thread}
algorithm: {kind: random}
budget: {queries: 8, batch_size: 4}
runtime: {kind: inline, mode: synchronous}
archive: {path: memory}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN)
    assert command_line(["run", "campaign.yaml", "--run-dir", "one"]) == 0
    return tmp_path


def test_the_summary_and_the_status_say_what_was_saved(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert command_line(["run", "campaign.yaml", "--run-dir", "two", "--set", "budget.queries=12"]) == 0
    said = capsys.readouterr().out
    assert "8 questions were answered from the archive, for nothing; their answers had cost 8" in said
    assert command_line(["status", "two", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["spent"], status["reused"], status["saved_cost"]) == (12, 8, 8.0)
    assert command_line(["status", "two"]) == 0
    assert "saved cost" in capsys.readouterr().out


def test_a_run_as_json_says_it_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert command_line(["run", "campaign.yaml", "--run-dir", "two", "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert (told["queries"], told["reused"], told["saved_cost"]) == (0, 8, 8.0)
    assert "8 questions in a row were answered from the archive" in captured.err


def test_near_answers_that_were_not_taken_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    section = "archive={path: memory, reuse: near, radius: 100, near: query}"
    assert command_line(["run", "campaign.yaml", "--run-dir", "two", "--set", section, "--set", "seed=5"]) == 0
    assert "for 8 queries the archive had an answer nearby" in capsys.readouterr().out


def test_a_warm_start_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    overrides = ["--set", "archive.warm_start=6", "--set", "archive.reuse=off", "--set", "seed=5"]
    assert command_line(["run", "campaign.yaml", "--run-dir", "two", *overrides]) == 0
    assert "it began with 6 answers of earlier campaigns" in capsys.readouterr().out


def test_mlflow_has_what_was_saved(folder: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    tracking = f"tracking={json.dumps({'kind': 'mlflow', 'tracking_uri': uri})}"
    arguments = ["run", "campaign.yaml", "--run-dir", "two", "--set", "budget.queries=12", "--set", tracking]
    assert command_line(arguments) == 0
    client = MlflowClient(uri)
    experiments = [item.experiment_id for item in client.search_experiments()]
    metrics = [found.data.metrics for found in client.search_runs(experiments)]
    assert [(item["reused"], item["saved_cost"]) for item in metrics] == [(8.0, 8.0)]


@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_file_where_the_archive_should_be_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN)
    (tmp_path / "memory").write_text("a shopping list")
    assert command_line([command, "campaign.yaml"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].endswith("is a file; choose another path")
    assert "Traceback" not in "".join(said)
    assert not (tmp_path / "runs").exists()
