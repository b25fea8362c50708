from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from pilotwave.cli import run
from pilotwave.cli.study_screen import StudyScreen
from pilotwave.testing.small_study import SmallStudy
from pilotwave.tuning.config import check_study
from pilotwave.tuning.tuner import StudyProgress, TrialRow


def study_file(folder: Path) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(SmallStudy(folder).fields(), sort_keys=False))
    return path


def test_a_study_is_checked_without_being_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="Ray Tune needs the extra 'ray'")
    path = study_file(tmp_path)
    assert run(["tune", str(path), "--check"]) == 0
    assert capsys.readouterr().out == f"{path}: valid\n"
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tune"], "expected a study file, or --resume STUDY_DIR"),
        (["tune", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["tune", "--resume", "nowhere"], "no study here"),
        (["tune", "study.yaml", "--set", "search={algorithm.radios: {choice: [1]}}"], "did you mean 'radius'"),
        (["tune", "study.yaml", "--set", "samples=none"], "samples"),
        (["run", "study.yaml"], "run it with: pilotwave tune study.yaml"),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    study_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_the_schema_of_a_study_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "--study"]) == 0
    assert "search" in json.loads(capsys.readouterr().out)["required"]


def test_the_screen_says_a_line_for_every_trial_that_ends(tmp_path: Path) -> None:
    study = check_study({**SmallStudy(tmp_path).fields(), "folder": str(tmp_path), "budget": 96})
    written = io.StringIO()
    point = {"algorithm.radius": 0.3}
    running = TrialRow(1, point, "running", 8, -0.5, 9, 0, 1)
    ended = TrialRow(1, point, "finished", 32, -1.25, 32, 0, 1)
    failed = TrialRow(2, point, "failed", 0, None, 0, 0, 0, "no licence")
    with StudyScreen(Console(file=written, width=100), study) as screen:
        screen.observe(StudyProgress("running", (running,), 3, 9, 96))
        screen.observe(StudyProgress("running", (ended, failed), 3, 32, 96, 1, note="a worker was lost"))
        screen.observe(StudyProgress("done", (ended, failed), 3, 32, 96, 1))
    lines = written.getvalue().splitlines()
    assert lines[0] == "tried: 3 points of 1 fields on 1 tasks x 1 seeds, random with none, at most 96 questions"
    assert "note: a worker was lost" in lines
    assert "trial 1 finished after 32 questions: -1.25  (algorithm.radius=0.3)" in lines
    assert "trial 2 failed after 0 questions: no licence  (algorithm.radius=0.3)" in lines
    assert lines[-1] == "2/3 trials  32/96 questions  best -1.25 (trial 1)"

    drawn = io.StringIO()
    console = Console(file=drawn, width=100, force_terminal=True, color_system=None)
    with StudyScreen(console, study) as screen:
        console.print(screen._panel(StudyProgress("running", (ended, running), 3, 32, 96, 1)))
    assert "mean level" in drawn.getvalue()
    assert "-1.25" in drawn.getvalue()
