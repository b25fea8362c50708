"""``pilotwave bench``: a small comparison from end to end, and every refusal in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pilotwave.cli import run as command_line

pytest.importorskip("sklearn", reason="the digits need scikit-learn")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL = ["bench", "--suite", "analytic", "--task", "digits-hidden", "--seeds", "2", "--queries", "64", "--untuned"]
METHODS = ["--method", "random", "--method", "fast=fast-direct:scores=standardised,step_size=1"]


def test_a_comparison_from_end_to_end(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line([*SMALL, *METHODS, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert set(first["tasks"]["digits-hidden"]) == {"random", "fast"}
    assert first["reference"] == "random"
    assert first["tasks"]["digits-hidden"]["fast"]["seeds"] == [0, 1]
    for path in first["files"].values():
        assert (here / path).stat().st_size > 100
    assert command_line([*SMALL, *METHODS]) == 0
    said = capsys.readouterr().out
    assert "4/4 runs (4 found finished)" in said
    assert "results.md" in said
    assert "fast" in said


def test_settings_are_chosen_on_held_out_tasks_and_used(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["bench", "--suite", "analytic", "--settings", "tuned.json", "--queries", "40", "--seeds", "1"]
    assert command_line([*small, "--tune", "--method", "cma-es", "--task", "digits-class-other"]) == 0
    capsys.readouterr()
    chosen = json.loads((here / "tuned.json").read_text())["groups"]["digits"]["cma-es"]
    assert len(chosen["tried"]) == 6
    assert command_line([*small, "--method", "cma-es", "--task", "digits-hidden", "--json"]) == 0
    used = json.loads(capsys.readouterr().out)["tasks"]["digits-hidden"]["cma-es"]["settings"]
    assert used == chosen["chosen"]


def test_the_numerical_suite(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["bench", "--suite", "numerical", "--task", "l1", "--method", "casbo", "--seeds", "2"]
    assert command_line([*small, "--queries", "960", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rounds"] == 30
    assert told["problems"]["l1"]["casbo"]["regret"]["mean"] > 0
    assert (here / told["files"]["table"]).read_text().count("| l1 |") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--suite", "analitic"], "did you mean 'analytic'"),
        (["--suite", "analytic", "--task", "digit-class"], "did you mean 'digits-class'"),
        (["--suite", "analytic", "--method", "fast-dirct"], "did you mean 'fast-direct'"),
        (["--suite", "analytic", "--method", "fast-direct:stepsize=1"], "did you mean 'step_size'"),
        (["--suite", "analytic", "--method", "fast-direct:"], "--method"),
        (["--suite", "analytic", "--tune", "--task", "digits-class"], "held-out"),
        (["--suite", "analytic", "--tune", "--method", "random"], "no"),
        (["--suite", "numerical", "--task", "l2"], "expected one of l1"),
        (["--suite", "numerical", "--queries", "64"], "640 or more"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
