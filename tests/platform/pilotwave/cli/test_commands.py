"""The command line as a user meets it: exit codes, one line for each mistake, no traceback."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from pilotwave.cli import run as command_line
from pilotwave.report.learning_curve import learning_curve
from pilotwave.report.ranking import best
from pilotwave.report.recorded_run import RecordedRun
from pilotwave.testing.runtime_contract import state_of

CAMPAIGN = """\
name: tiny
backbone: {kind: analytic, dim: 6, steps: 3}
oracle: {kind: python, function: "judge.py:judge", isolation: thread, version: "1"}
objective: {direction: minimize}
algorithm: {kind: random}
budget: {queries: 12, batch_size: 4}
runtime: {kind: inline, evaluators: 2, mode: synchronous}
"""
JUDGE = """\
import time

def judge(sample):
    time.sleep(0.01)
    return float((sample.array ** 2).sum())
"""


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge.py").write_text(JUDGE)
    path = tmp_path / "campaign.yaml"
    path.write_text(CAMPAIGN)
    return path


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def run(*arguments: str) -> Said:
        code = command_line(list(arguments))
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


def test_what_an_oracle_prints_does_not_spoil_the_json(campaign: Path, say) -> None:  # type: ignore[no-untyped-def]
    (campaign.parent / "judge.py").write_text(JUDGE.replace("time.sleep(0.01)", "print('thinking')"))
    done = say("run", str(campaign), "--json")
    assert json.loads(done.out)["queries"] == 12
    assert "thinking" in done.err


def test_run_status_top_resume(campaign: Path, say) -> None:  # type: ignore[no-untyped-def]
    done = say("run", str(campaign), "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["finished"]
    assert result["queries"] == 12
    values = [row["value"] for row in result["best"]]
    assert values == sorted(values)
    assert 0 <= result["overhead"] <= 1
    run_dir = result["run_dir"]
    assert run_dir == str(campaign.parent / "runs" / "tiny")

    status = json.loads(say("status", run_dir, "--json").out)
    assert (status["status"], status["spent"], status["answered"], status["open"]) == ("finished", 12, 12, 0)
    top = json.loads(say("top", run_dir, "-n", "3", "--json").out)
    assert len(json.dumps(top)) > 10
    assert "tiny" in say("status", run_dir).out
    run = RecordedRun.read(Path(run_dir))  # everything in memory, where status keeps nothing of what is over
    assert (status["best"], status["best_label"]) == (best(run, 1)[0].value, best(run, 1)[0].label)
    assert status["batch_mean"] == pytest.approx(learning_curve(run)[-1].mean)
    assert (status["proposals"], status["infeasible"], status["cost"]) == (3, 0, 12.0)

    more = say("resume", run_dir, "--set", "budget.queries=15", "--json")
    assert json.loads(more.out)["queries"] == 15
    assert state_of(Path(run_dir)).spent == 15

    again = say("run", str(campaign), "--json")
    assert json.loads(again.out)["run_dir"].endswith("runs/tiny-2")


def test_the_human_summary_says_where_everything_is(campaign: Path, say) -> None:  # type: ignore[no-untyped-def]
    done = say("run", str(campaign))
    assert done.code == 0
    for word in ("tiny", "12/12", "runs/tiny", "ledger.sqlite", "platform overhead", "learning"):
        assert word in done.out, word


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "nothing.yaml"], "nothing.yaml: no such file"),
        (["run", "campaign.yaml", "--set", "budget.queries=0"], "greater than or equal to 1, got 0"),
        (["run", "campaign.yaml", "--set", "oracle.function=judge.py:jugde"], "jugde"),
        (["run", "campaign.yaml", "--set", "oracle.function=nojudge.py:judge"], "nojudge.py"),
        (["run", "campaign.yaml", "--set", "backbone.kind=molecul"], "did you mean 'molecule'"),
        (["run", "campaign.yaml", "--set", "backbone.data=missing.npy"], "missing.npy"),
        (["run", "campaign.yaml", "--run-dir", "full"], "full is not empty"),
        (["resume", "nowhere"], "no run here"),
        (["status", "nowhere"], "nowhere"),
        (["top", "nowhere"], "nowhere"),
        (["export", "nowhere", "--format", "sdf"], "nowhere"),
        (["list", "oracels"], "did you mean 'oracles'"),
        (["train", "molecul"], "did you mean 'molecule'"),
        (["train", "image", "--set", "imges=3"], "imges"),
        (["schema", "--output", "no/such/folder/s.json"], "cannot be written"),
        (["validate"], "Missing argument"),
        (["frobnicate"], "No such command"),
    ],
)
def test_a_mistake_is_exit_code_2_and_one_line(  # type: ignore[no-untyped-def]
    campaign: Path, say, arguments: list[str], expected: str
) -> None:
    (campaign.parent / "full").mkdir()
    (campaign.parent / "full" / "thesis.tex").touch()
    refused = say(*arguments)
    assert refused.code == 2
    assert expected in refused.err
    lines = [line for line in refused.err.splitlines() if line]
    assert len(lines) == 1
    assert "Traceback" not in refused.err + refused.out
    assert not list(campaign.parent.glob("runs/*"))


def test_a_package_that_is_not_installed_is_named_with_its_remedy(  # type: ignore[no-untyped-def]
    campaign: Path, say, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pilotwave.config.components import ComponentConfig

    monkeypatch.setattr(ComponentConfig, "is_installed", staticmethod(lambda package: package != "ray"))
    refused = say("run", str(campaign), "--set", "runtime.kind=ray")
    assert refused.code == 2
    assert "needs ray, which is not installed; run: pip install 'pilotwave[ray]'" in refused.err


def test_a_run_directory_of_another_campaign_is_refused(campaign: Path, say) -> None:  # type: ignore[no-untyped-def]
    assert say("run", str(campaign), "--run-dir", "here").code == 0
    other = say("run", str(campaign), "--run-dir", "here", "--set", "seed=5")
    assert other.code == 2
    assert "belongs to another campaign" in other.err
    same = say("run", str(campaign), "--run-dir", "here")
    assert same.code == 2
    assert "pilotwave resume" in same.err
    changed = yaml.safe_load((campaign.parent / "here" / "campaign.yaml").read_text())
    changed["seed"] = 9
    (campaign.parent / "here" / "campaign.yaml").write_text(yaml.safe_dump(changed))
    assert say("resume", "here").code == 2


def test_the_breaker_is_exit_code_3(campaign: Path, say) -> None:  # type: ignore[no-untyped-def]
    (campaign.parent / "judge.py").write_text("def judge(sample):\n    raise RuntimeError('no paper')\n")
    campaign.write_text(CAMPAIGN.replace("isolation: thread", "isolation: process"))  # which sees the mended file
    stopped = say("run", str(campaign), "--run-dir", "here", "--set", "failures.window=4")
    assert stopped.code == 3
    assert "no paper" in stopped.err
    (campaign.parent / "judge.py").write_text(JUDGE)
    mended = say("resume", "here", "--json")
    assert mended.code == 0
    assert json.loads(mended.out)["queries"] == 12


def test_validate_list_schema_and_help(campaign: Path, say) -> None:  # type: ignore[no-untyped-def]
    assert "valid" in say("validate", str(campaign)).out
    assert "known answer" in say("validate", str(campaign), "--preflight").out
    resolved = json.loads(say("validate", str(campaign), "--json").out)
    assert resolved["generation"]["redraws"] == 8
    listed = json.loads(say("list", "--json").out)
    assert {row["kind"] for row in listed["backbones"]} >= {"analytic", "image", "molecule"}
    assert {row["kind"] for row in listed["oracles"]} >= {"xtb", "jpeg", "python"}
    assert {row["kind"] for row in listed["algorithms"]} >= {"fast-direct", "random"}
    assert all(row["summary"] for rows in listed.values() for row in rows)
    assert say("list", "oracles").code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(say("schema").out))
    assert say("--version").out.startswith("pilotwave ")


@pytest.mark.parametrize(
    "command", ["run", "resume", "status", "top", "export", "validate", "schema", "list", "train", "doctor"]
)
def test_every_command_has_help_with_an_example(say, command: str) -> None:  # type: ignore[no-untyped-def]
    shown = say(command, "--help")
    assert shown.code == 0
    assert f"pilotwave {command}" in shown.out
    assert "Example" in shown.out


def start(campaign: Path, *options: str, limit: int | None = None) -> subprocess.Popen[str]:
    def limit_file_size() -> None:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-c", "from pilotwave.cli import main; main()", "run", str(campaign), *options],
        cwd=campaign.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit_file_size,
        start_new_session=True,
    )


def wait_for_answers(process: subprocess.Popen[str], run_dir: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (run_dir / "ledger.sqlite").exists() and state_of(run_dir).answered >= count:
            return
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"no {count} answers: {process.communicate()[1]}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_exits_130_and_resume_goes_on(  # type: ignore[no-untyped-def]
    campaign: Path, say, number: signal.Signals
) -> None:
    process = start(campaign, "--set", "budget.queries=400", "--run-dir", "here")
    wait_for_answers(process, campaign.parent / "here", 5)
    os.killpg(process.pid, number)  # as a terminal does: everybody in the foreground gets it
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "pilotwave resume" in out
    state = state_of(campaign.parent / "here")
    assert state.stopped == "interrupted"
    assert say("resume", "here", "--set", f"budget.queries={state.spent + 4}", "--json").code == 0


def test_a_second_ctrl_c_quits_at_once(campaign: Path) -> None:
    (campaign.parent / "judge.py").write_text(JUDGE.replace("0.01", "60 if sample.array.sum() > 0 else 0.01"))
    process = start(campaign, "--run-dir", "here")
    wait_for_answers(process, campaign.parent / "here", 1)
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None  # answers in flight still have their grace
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - started < 8


def test_a_full_disk_is_exit_code_4_and_loses_no_answer(campaign: Path, say) -> None:  # type: ignore[no-untyped-def]
    process = start(campaign, "--set", "budget.queries=400", "--run-dir", "here", limit=150_000)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert "free some disk space" in err
    assert "Traceback" not in err
    state = state_of(campaign.parent / "here")
    assert 0 < state.spent < 400
    resumed = say("resume", "here", "--set", f"budget.queries={state.spent + 4}", "--json")
    assert resumed.code == 0, resumed.err
    assert state_of(campaign.parent / "here").answered == state.spent + 4
