"""Commands to a campaign at work, and the screen that shows it, as a user types and sees them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pilotwave.archive.origin import Origin
from pilotwave.cli import run as command_line
from pilotwave.cli.watching import screen
from pilotwave.report.run_watch import RunWatch, Snapshot
from pilotwave.testing.small_campaign import state_of, wait_for

PILOTWAVE = [sys.executable, "-c", "from pilotwave.cli import main; main()"]
CAMPAIGN = """\
name: tiny
backbone: {kind: analytic, dim: 6, steps: 3}
oracle: {kind: python, function: "judge.py:judge", isolation: thread, version: "1"}
objective: {direction: minimize}
algorithm: {kind: random}
budget: {queries: 2000, batch_size: 4}
runtime: {kind: inline, evaluators: 2}
"""
JUDGE = """\
import time

def judge(sample):
    time.sleep(0.05)
    if sample.array[0] > 1.5:
        raise OSError("the line is broken")
    return float((sample.array ** 2).sum())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge.py").write_text(JUDGE)
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN)
    return tmp_path


@pytest.fixture
def driver(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A real driver in a process of its own."""
    command = [*PILOTWAVE, "run", "campaign.yaml", "--run-dir", "run"]
    with open(folder / "log", "w") as log:
        child = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, text=True)
    try:
        wait_for(lambda: (folder / "run" / "ledger.sqlite").exists() and state_of(folder / "run").spent > 0)
        yield child
    finally:
        child.kill()
        child.wait()


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = command_line(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_campaign_is_paused_given_more_and_drained(
    folder: Path, driver: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = subprocess.Popen(
        [*PILOTWAVE, "status", "run", "--watch", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    code, out, _ = said(capsys, "control", "run", "pause")
    assert (code, out) == (
        0,
        "paused: nothing new is made or asked, what is in flight settles; go on with: "
        "pilotwave control run resume\n",
    )
    assert json.loads(said(capsys, "status", "run", "--json")[1])["status"] == "paused"
    code, out, _ = said(capsys, "control", "run", "set", "budget.cost=500.5")
    assert out == "the budget is now 2000 queries, cost 500.5; it holds for this run from now on\n"
    code, out, _ = said(capsys, "control", "run", "add-queries", "100", "--json")
    assert json.loads(out)["limits"] == {"queries": 2100, "cost": 500.5, "wall_hours": None}
    assert said(capsys, "control", "run", "resume")[:2] == (0, "going on\n")
    assert said(capsys, "control", "run", "drain")[0] == 0
    assert driver.wait(60) == 0
    log = (folder / "log").read_text()
    assert "it was drained before its budget was spent" in log
    assert "/2100 queries" in log
    lines = [json.loads(line) for line in watcher.communicate(timeout=60)[0].splitlines()]
    assert watcher.returncode == 0
    assert [line["sequence"] for line in lines] == sorted(line["sequence"] for line in lines)
    assert (lines[-1]["status"], lines[-1]["at_work"], lines[-1]["ended_by"]) == ("finished-early", False, "drain")
    assert (lines[-1]["queries"], lines[-1]["cost_limit"]) == (2100, 500.5)
    # Afterwards nobody is there to be told.
    code, out, err = said(capsys, "control", "run", "add-queries", "5")
    assert (code, out) == (2, "")
    assert err == (
        "error: run: no driver is at work here (it was drained); give it more with: pilotwave resume run --set "
        "budget.queries=N\n"
    )


def test_stop_is_ctrl_c(folder: Path, driver: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "control", "run", "stop")
    assert code == 0
    assert "pilotwave resume run" in out
    assert driver.wait(60) == 130
    assert state_of(folder / "run").stopped == "interrupted"


def test_a_killed_driver_obeys_nothing(
    folder: Path, driver: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    driver.kill()
    driver.wait()
    code, _, err = said(capsys, "control", "run", "pause")
    assert code == 2
    assert err.count("\n") == 1
    assert "no driver is at work here (it was killed); there is nothing to pause" in err
    assert not list((folder / "run").glob("control/*"))
    shown = said(capsys, "status", "run", "--watch")[1]
    assert "killed" in shown
    assert "pilotwave resume run" in shown


def test_an_old_command_waits_for_nobody_and_a_budget_does(folder: Path) -> None:
    """A driver that died before it obeyed: the next takes the budget, and is not stopped by it."""
    from pilotwave.archive.run_directory import RunDirectory
    from pilotwave.campaign import Campaign
    from pilotwave.execution.control import Command

    small = Campaign.from_yaml("campaign.yaml", ["budget.queries=8"])
    small.run("run")
    for words in (("stop", None), ("add-queries", "4"), ("pause", None)):
        Command.of(*words).send(RunDirectory(Path("run")))
    time.sleep(0.01)
    result = small.resume("run")
    assert (result.outcome.finished, result.outcome.spent) == (True, 12)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "halt"], "expected one of pause, resume, drain, stop, add-queries, set, got 'halt'"),
        (["run", "pause", "now"], "expected nothing after it, got 'now'"),
        (["run", "add-queries"], "expected a number"),
        (["run", "add-queries", "-3"], "--help"),
        (["run", "add-queries", "0"], "expected a number above 0"),
        (["run", "add-queries", "many"], "got 'many'"),
        (["run", "set"], "expected a budget"),
        (["run", "set", "budget.cost=-1"], "expected a number above 0, or none, got '-1'"),
        (["run", "set", "budget.cost=nan"], "got 'nan'"),
        (["run", "set", "budget.queries=1.5"], "got '1.5'"),
        (["run", "set", "oracle.attempts=3"], "pilotwave resume RUN_DIR --set"),
        (["nowhere", "pause"], "nowhere: no run here"),
    ],
)
def test_a_wrong_command_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    code, out, err = said(capsys, "control", *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert line in err


def test_a_copy_of_a_run_says_where_the_run_is(array_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Origin("client", "ray://head:10001", "/shared/runs/demo-12").write(array_run)
    code, _, err = said(capsys, "control", str(array_run), "add-queries", "5")
    assert code == 2
    assert "give the command there: pilotwave control /shared/runs/demo-12 add-queries 5" in err


SNAPSHOT = Snapshot(
    name="polarizable-molecules-with-a-long-name",
    status="running",
    at_work=True,
    ended_by="",
    sequence=900,
    spent=187,
    queries=320,
    cost=1234.5678,
    cost_held=12.0,
    cost_limit=4000.0,
    active_seconds=3725.0,
    wall_limit=7200.0,
    queries_per_minute=3.25,
    cost_per_minute=19.8,
    evaluators=16,
    in_flight=15,
    ready=9,
    resting=2,
    generating=1,
    answered=160,
    failed=10,
    infeasible=41,
    reused=12,
    saved_cost=88.0,
    repeated=7,
    failures={"scf": 9, "wall-clock limit": 5, "embedding": 3},
    best=98.7654321,
    best_label="C#CC#CC1=CC=CN1" * 8,
    unit="bohr^3",
    seconds_left=2455.0,
    last_event=1_700_000_000.0,
)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_screen_fits_and_says_everything(width: int) -> None:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(screen(SNAPSHOT, Path("runs/demo"), width))
    shown = capture.get()
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= (9 if width >= 100 else 13)
    for word in ("187/320", "1234.57/4000", "1:02:05/2:00:00", "15 of 16 evaluators", "2 in back-off", "scf 9"):
        assert word in shown
    assert "40:55 left" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("status", "hint"),
    [("paused", "pilotwave control runs/demo resume"), ("killed", "pilotwave resume runs/demo"), ("finished", "")],
)
def test_the_screen_says_what_can_be_done(status: str, hint: str) -> None:
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(screen(dataclasses.replace(SNAPSHOT, status=status), Path("runs/demo"), 80))
    assert status in capture.get()
    assert hint in capture.get()
    assert ("go on" in capture.get()) == bool(hint)


def test_a_watch_counts_as_the_loop_does_and_reads_only_what_is_new(folder: Path) -> None:
    from pilotwave.campaign import Campaign

    seen: list[tuple[Any, Snapshot]] = []
    watches: list[RunWatch] = []

    def observe(progress: Any) -> None:
        if progress.phase == "running":
            watches[:] = watches or [RunWatch(Path("run"))]
            seen.append((progress, watches[0].look()))

    Campaign.from_yaml("campaign.yaml", ["budget.queries=40", "budget.cost=30"]).run("run", observe=observe)
    assert len(seen) >= 3
    for progress, snapshot in seen:
        assert (snapshot.spent, snapshot.answered, snapshot.cost) == (
            progress.spent,
            progress.answered,
            progress.cost,
        )
        assert (snapshot.in_flight, snapshot.resting, snapshot.best) == (
            progress.in_flight,
            progress.resting,
            progress.best,
        )
        assert snapshot.cost + snapshot.cost_held <= 30
    last = watches[0].look()
    assert (last.status, last.ended_by, last.in_flight) == ("finished", "cost", 0)
