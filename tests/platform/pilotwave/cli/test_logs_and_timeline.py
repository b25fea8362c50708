"""What happened in a run, as a user asks for it: lines, a trace, a picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pilotwave.cli import run as command_line
from pilotwave.testing.small_campaign import wait_for

PILOTWAVE = [sys.executable, "-c", "from pilotwave.cli import main; main()"]
CAMPAIGN = """\
name: tiny
backbone: {kind: analytic, dim: 6, steps: 3}
oracle: {kind: python, function: "judge.py:judge", isolation: thread, version: "1", attempts: 2, backoff_seconds: 0}
objective: {direction: minimize}
algorithm: {kind: random}
budget: {queries: 12, batch_size: 4}
runtime: {kind: inline, evaluators: 2}
failures: {maximum_rate: 1.0}
"""
JUDGE = """\
import time

def judge(sample, context):
    time.sleep(0.02)
    if context.query_id == "p0001-02" and context.attempt == 1:
        raise OSError("the line is broken")
    return float((sample.array ** 2).sum())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign that has ended, driven by a real process."""
    made = tmp_path_factory.mktemp("lines")
    (made / "judge.py").write_text(JUDGE)
    (made / "campaign.yaml").write_text(CAMPAIGN)
    command = [*PILOTWAVE, "run", "campaign.yaml", "--run-dir", "run"]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_lines_about_one_query_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["logs", "run", "--query", "p0001-02"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "warning p0001-02 evaluator-" in lines[0]
    assert "OSError: the line is broken; will be tried again" in lines[0]
    assert "info    p0001-02 #2 evaluator-" in lines[1]


def test_lines_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["logs", "run", "--json", "-n", "0", "--event", "settled", "--event", "attempted"]) == 0
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert len(lines) == 13
    assert {line["campaign"] for line in lines} == {"tiny"}
    assert len({line["run"] for line in lines}) == 1
    assert command_line(["logs", "run", "--json", "-n", "1"]) == 0
    (last,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert last["event"] == "stopped"


def test_following_a_run_that_has_ended_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["logs", "run", "-f", "-n", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_run_is_followed_until_it_ends(tmp_path: Path, folder: Path) -> None:
    driver = [*PILOTWAVE, "run", str(folder / "campaign.yaml"), "--run-dir", str(tmp_path / "run")]
    child = subprocess.Popen(driver, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (tmp_path / "run" / "ledger.sqlite").exists())
        command = [*PILOTWAVE, "logs", str(tmp_path / "run"), "-f", "--json", "--event", "settled", "-n", "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    finally:
        child.wait(60)
    assert done.returncode == 0, done.stderr
    queries = [json.loads(text)["query"] for text in done.stdout.splitlines()]
    assert len(queries) == len(set(queries)) == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["logs", "nowhere"], "error: nowhere: no run here; give the directory of a run, e.g. runs/demo"),
        (["logs", "run", "--level", "loud"], "error: --level: expected debug, info, warning, error, got 'loud'"),
        (["timeline", "nowhere"], "error: nowhere: no run here; give the directory of a run, e.g. runs/demo"),
        (["timeline", "run", "--png", "a.jpg"], "error: --png: expected a file that ends in .png, got a.jpg"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(arguments) == 2
    assert capsys.readouterr().err.strip() == said


def test_no_line_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["logs", "run", "--query", "p0099-00"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("no such line")


def test_a_trace_and_a_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs the extra 'report'")
    assert command_line(["timeline", "run", "-o", "made/t.json", "--png", "made/t.png", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["attempts"], facts["evaluators"], facts["drivers"]) == (13, 2, 1)
    assert 0 < facts["utilisation"] <= 1
    trace = json.loads((folder / "made" / "t.json").read_text())
    assert len(trace["traceEvents"]) == facts["events"]
    assert (folder / "made" / "t.png").read_bytes().startswith(b"\x89PNG")


def test_by_default_the_trace_lies_with_the_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["timeline", "run"]) == 0
    assert "13 attempts, 3 proposals" in capsys.readouterr().out
    assert json.loads((folder / "run" / "results" / "timeline.json").read_text())["displayTimeUnit"] == "ms"
