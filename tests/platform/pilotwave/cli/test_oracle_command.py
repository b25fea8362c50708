"""``pilotwave oracle`` and ``pilotwave new oracle`` as a user meets them, also on a plug-in that was installed."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools", reason="the new package is built with setuptools")

from pilotwave.cli import run as command_line
from pilotwave.cli.oracle_template import files_of

PILOTWAVE = [sys.executable, "-c", "from pilotwave.cli import main; main()"]
JUDGE = """
from pilotwave.errors import OracleFailure

def total(sample):
    if sample.array[0] == 3:
        raise OracleFailure("three is no good", stage="taste")
    return float(sample.array.sum())

def flaky(sample, context):
    if context.attempt == 1:
        raise OracleFailure("not now", stage="network", retryable=True)
    print("a word on standard output")
    return float(sample.array.sum())

def never(sample):
    raise OracleFailure("no", stage="taste")
"""


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


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "judge.py").write_text(JUDGE)
    (tmp_path / "points.csv").write_text("id,x,y\none,1,2\ntwo,3,4\nthree,5,6\n")
    return tmp_path


THREAD = ("--set", "isolation=thread", "--set", "accepts=[array]", "--set", "backoff_seconds=0")


def test_every_sample_of_a_file_is_asked_about(say, here: Path) -> None:  # type: ignore[no-untyped-def]
    done = say("oracle", "evaluate", "python:judge.py:total", "points.csv", *THREAD, "--csv", "out/answers.csv")
    assert done.code == 0, done.err
    assert "python:total" in done.out
    assert "taste: three is no good" in done.out
    assert "2 of 3 answered, from 3.0000 to 11.000, median 7.0000; failed: 1 in taste; cost 3" in done.out
    rows = {row["name"]: row for row in csv.DictReader((here / "out" / "answers.csv").open())}
    assert {name: row["value"] for name, row in rows.items()} == {"one": "3.0", "two": "", "three": "11.0"}
    assert (rows["two"]["status"], rows["two"]["stage"], rows["two"]["message"]) == (
        "failed",
        "taste",
        "three is no good",
    )
    again = say("oracle", "evaluate", "python:judge.py:total", "points.csv", *THREAD, "--csv", "out/answers.csv")
    assert again.code == 2
    assert "answers.csv is there already; choose another name or add --force" in again.err


def test_json_holds_everything_and_nothing_else_is_printed(say) -> None:  # type: ignore[no-untyped-def]
    done = say("oracle", "evaluate", "python:judge.py:flaky", "points.csv", *THREAD, "--workers", "2", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["oracle"], told["asked"]) == ("python:flaky", 3)
    assert [(item["name"], item["value"]) for item in told["answers"]] == [
        ("one", 3.0),
        ("two", 7.0),
        ("three", 11.0),
    ]
    assert {item["attempt"] for item in told["answers"]} == {2}
    assert {item["cost"] for item in told["answers"]} == {2.0}
    assert "a word on standard output" in done.err


def test_an_oracle_that_answers_nothing_is_exit_code_3(say) -> None:  # type: ignore[no-untyped-def]
    done = say("oracle", "evaluate", "python:judge.py:never", "points.csv", *THREAD)
    assert done.code == 3
    assert "0 of 3 answered; failed: 3 in taste" in done.out


def test_the_oracle_of_a_campaign_file_is_taken_with_paths_from_there(say, here: Path) -> None:  # type: ignore[no-untyped-def]
    (here / "elsewhere").mkdir()
    (here / "judge.py").rename(here / "elsewhere" / "judge.py")
    (here / "elsewhere" / "campaign.yaml").write_text(
        "name: x\noracle: {kind: python, function: 'judge.py:total', accepts: [array], isolation: thread}\n"
    )
    done = say("oracle", "evaluate", "elsewhere/campaign.yaml", "points.csv", "--set", "unit=m", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["unit"] == "m"


def test_a_wrong_known_answer_stops_before_anything_is_paid(say) -> None:  # type: ignore[no-untyped-def]
    wrong = ("--set", "known={array: [1, 2], value: 4}")
    done = say("oracle", "evaluate", "python:judge.py:total", "points.csv", *THREAD, *wrong)
    assert done.code == 2
    assert "expected 4 ± 1e-06, got 3" in done.err
    assert (
        say("oracle", "evaluate", "python:judge.py:total", "points.csv", *THREAD, *wrong, "--no-preflight").code
        == 0
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pyton:a", "points.csv"), "unknown kind 'pyton'; did you mean 'python'?"),
        (("jpeg:90", "points.csv"), "kind 'jpeg' has no short form; use --set KEY=90"),
        (("python", "points.csv"), "function: this setting is missing; add --set function=…"),
        (("python:none.py:f", "points.csv"), "function: expected a Python file, found none at"),
        (("jpeg", "points.csv", "--set", "qality=9"), "kind 'jpeg' has no such setting; did you mean 'quality'?"),
        (("jpeg", "points.csv"), "points.csv: expected image samples, got array samples"),
        (("jpeg", "none.png"), "none.png: no such file"),
        (("none.yaml", "points.csv"), "none.yaml: no such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(say, arguments: tuple[str, ...], words: str) -> None:  # type: ignore[no-untyped-def]
    done = say("oracle", "evaluate", *arguments)
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Melting-Point",), "expected a name in lower case such as melting-point, got 'Melting-Point'"),
        (("a_b",), "expected a name in lower case"),
        (("class",), "expected a name in lower case"),
        (("xtb",), "there is an oracle 'xtb' already"),
        (("mine", "--output", "."), ". is there already; choose another folder"),
        (("mine", "--media", "sound"), "'sound' is not one of"),
    ],
)
def test_a_name_that_will_not_do_is_refused(say, arguments: tuple[str, ...], words: str) -> None:  # type: ignore[no-untyped-def]
    done = say("new", "oracle", *arguments)
    assert done.code == 2
    assert words in done.err


@pytest.mark.parametrize("media", ["molecule", "image", "array"])
def test_a_new_oracles_code_is_clean(media: str, tmp_path: Path) -> None:
    for place, text in files_of("melting-point", media).items():
        (tmp_path / "new" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / place).write_text(text)
    rules = ["--isolated", "--line-length", "116"]
    for command in (
        ["check", "--select", "E,F,W,I,B,UP,SIM,RUF", "--ignore", "RUF001,RUF002,RUF003"],
        ["format", "--check"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *rules, str(tmp_path / "new")], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_new_oracle_is_installed_found_tested_and_asked(say, here: Path) -> None:  # type: ignore[no-untyped-def]
    written = say("new", "oracle", "melting-point", "--media", "array")
    assert written.code == 0, written.err
    assert "pip install -e ./pilotwave-oracle-melting-point" in written.out
    package = "./pilotwave-oracle-melting-point"
    offline = ["--no-index", "--no-build-isolation", "--no-deps", "--quiet", "--target", "installed"]
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "install", *offline, package], capture_output=True, text=True
    )
    assert installed.returncode == 0, installed.stderr
    paths = os.pathsep.join([str(here / "installed"), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}

    def run(*command: str) -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "10 passed" in run(sys.executable, "-m", "pytest", "-q", package)
    tested = run(*PILOTWAVE, "oracle", "test", "melting-point", "--samples", "points.csv", "--set", "scale=2")
    assert "8 of 8 checks of the contract hold" in tested
    asked = json.loads(run(*PILOTWAVE, "oracle", "evaluate", "melting-point", "points.csv", "--json"))
    assert [item["value"] for item in asked["answers"]] == [5.0, 25.0, 61.0]


def test_an_oracle_that_breaks_the_contract_is_told_how(say, here: Path) -> None:  # type: ignore[no-untyped-def]
    (here / "judge.py").write_text("calls = [0]\n\ndef count(sample):\n    calls[0] += 1\n    return calls[0]\n")
    known = ("--set", "known={array: [1, 2]}")
    done = say("oracle", "test", "python:judge.py:count", *THREAD, *known)
    assert done.code == 2
    assert "FAILED   the same question gets the same answer if that is claimed" in done.out
    none = say("oracle", "test", "python:judge.py:count", *THREAD)
    assert none.code == 2
    assert "has no known question; name a file of samples with --samples FILE" in none.err
