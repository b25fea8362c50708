"""``pilotwave forget`` and ``pilotwave archive drift`` as a user meets them: exit codes, one line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.project import ProjectArchive, records_of_run
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.cli import run as command_line
from pilotwave.forgetting.byte_search import files_under, files_with_bytes
from pilotwave.forgetting.forget_run import forget
from pilotwave.forgetting.promise import promised_file
from pilotwave.forgetting.selection import ForgetRequest
from pilotwave.samples import Sample
from pilotwave.testing.faulty_oracles import score
from pilotwave.testing.killed_child import killed_before_touch
from pilotwave.testing.runtime_contract import state_of
from pilotwave.testing.steered_run import SteeredRun, steer


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    def mistake(self) -> str:
        assert self.code == 2
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1
        return self.err


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def run(*arguments: str | Path) -> Said:
        code = command_line([str(item) for item in arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


@pytest.fixture
def run(tmp_path: Path) -> SteeredRun:
    return steer(
        tmp_path / "runs" / "demo", batches=2, worker=lambda number: "bob" if number % 3 else "alice", seed=5
    )


def test_a_dry_run_then_for_good(run: SteeredRun, say: Any) -> None:
    before = {path: path.read_bytes() for path in files_under(run.path)}
    shown = say("forget", run.path, "--contributor", "alice", "--dry-run")
    assert shown.code == 0
    assert "4 records; paid for, and still spent: 4" in shown.out
    assert "checkpoints/" in shown.out.replace("\n", "")
    facts = say("forget", run.path, "--contributor", "alice", "--dry-run", "--json").json()
    assert (facts["records"], facts["paid"], facts["reused"]) == (4, 4, 0)
    assert [place["kind"] for place in facts["places"]] == ["ledger", "checkpoint", "checkpoint"]
    assert {path: path.read_bytes() for path in files_under(run.path)} == before
    done = say("forget", run.path, "--contributor", "alice", "--yes")
    assert done.code == 0
    assert "forgot 4 records; receipt " in done.out
    assert (state_of(run.path).forgotten, state_of(run.path).spent) == (4, 12)
    assert files_with_bytes(files_under(run.path), [b"alice"]) == []


def test_json_has_the_receipt_and_the_salt(run: SteeredRun, say: Any) -> None:
    done = say("forget", run.path, "-q", "p0000-01", "--query", "p0001-02", "--yes", "--json").json()
    assert done["receipt"]["records"] == 2
    assert len(done["salt"]) == 32
    import hashlib

    hashed = hashlib.sha256(f"{done['salt']}/p0000-01".encode()).hexdigest()
    assert hashed in done["receipt"]["hashed_ids"]
    assert done["left"] == []
    assert json.loads(Path(done["path"]).read_text()) == done["receipt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--query", "p0009-00", "--yes"], "expected known query ids, got p0009-00"),
        (
            ["--contributor", "carol", "--yes"],
            "expected records of 'carol', found none; answers came from alice, bob",
        ),
        (["--where", "value > 1e9", "--yes"], "no record matches"),
        (["--where", "valu > 1", "--yes"], "expected a condition in SQL"),
        (["--yes"], "expected exactly one of --query"),
        (["--campaign", "contract", "--yes"], "--campaign is for a project archive"),
        (["--query", "p0000-00"], "expected --yes or a terminal to ask at; nothing was forgotten"),
        (["--query", "p0000-00", "--json"], "--json: expected --yes or --dry-run"),
        (["--query", "p0000-00", "--wrong", "p0000-01"], "--wrong: expected --corrective with it"),
        (["--corrective", "--query", "p0000-00"], "--corrective: expected a run directory and --wrong"),
        (
            ["--corrective", "--wrong", "p0000-00,p0009-09"],
            "--wrong: expected ids of answers with a value, got p0009",
        ),
        (["--corrective"], "--wrong: expected ids of answers with a value, got none"),
        (["--query", "p0000-00", "--archive", "nowhere", "--yes"], "there is none at nowhere"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(
    run: SteeredRun, say: Any, arguments: list[str], message: str
) -> None:
    before = (run.path / "ledger.sqlite").read_bytes()
    assert message in say("forget", run.path, *arguments).mistake()
    assert (run.path / "ledger.sqlite").read_bytes() == before


def test_no_run_no_archive(tmp_path: Path, say: Any) -> None:
    assert "no run here" in say("forget", tmp_path / "x", "--query", "p0000-00", "--yes").mistake()
    assert "no run here" in say("forget", tmp_path / "x", "--finish").mistake()
    assert "no archive here" in say("forget", "--archive", tmp_path / "x", "--campaign", "y", "--yes").mistake()
    assert "expected a run directory, or --archive" in say("forget", "--query", "p0000-00", "--yes").mistake()
    assert say("archive", "drift", tmp_path / "x").mistake()


def test_a_running_campaign_is_one_clear_line(run: SteeredRun, say: Any) -> None:
    with RunDirectory(run.path).lock():
        message = say("forget", run.path, "--query", "p0000-00", "--yes").mistake()
    assert "in use by another pilotwave process; wait for it or stop it first" in message


def test_what_was_interrupted_is_finished(run: SteeredRun, say: Any) -> None:
    assert "nothing was promised" in say("forget", run.path, "--finish").out
    for moment in range(10, 60):
        if promised_file(run.path).exists():
            break
        killed_before_touch(moment, lambda: forget(run.path, ForgetRequest(("p0000-00",))), run.path)
    assert promised_file(run.path).exists()
    assert say("forget", run.path, "--finish", "--json").json()["receipt"]["records"] == 1
    assert say("forget", run.path, "--finish", "--json").json() == {"finished": False}


def test_in_an_archive(run: SteeredRun, say: Any) -> None:
    place = run.path.parent / "archive"
    with ProjectArchive.create(place) as archive:
        archive.append(list(records_of_run(RunDirectory(run.path), "alice")))
    facts = say("forget", "--archive", place, "--campaign", "contract", "--dry-run", "--json").json()
    assert facts["records"] == 12
    assert "12 records in" in say("forget", "--archive", place, "--contributor", "alice", "--dry-run").out
    assert "forgot 4 records" in say("forget", "--archive", place, "--where", "worker = 'alice'", "--yes").out
    done = say("forget", run.path, "--where", "proposal = 1", "--yes", "--json").json()
    assert done["receipt"]["archive"]["removed"] == 4
    assert say("forget", "--archive", place, "--campaign", "contract", "--yes", "--json").json()["removed"] == 4
    assert "expected records of campaign" in say("forget", "--archive", place, "--campaign", "x", "--yes").mistake()


def judge(sample: Sample, number: int) -> float:
    return score(sample) + (8.0 if number >= 60 and number % 2 else 0.0)


def test_corrective_shows_why_and_forgets_on_confirmation(tmp_path: Path, say: Any) -> None:
    run = steer(tmp_path / "run", algorithm={"kind": "random"}, batches=9, batch_size=10, judge=judge)
    shown = say("forget", run.path, "--corrective", "--wrong", "p0006-05,p0008-01", "--dry-run")
    assert "other answers are likely to be wrong too" in shown.out
    assert "the same worker (evaluator-1)" in shown.out.replace("\n", "")
    facts = say("forget", run.path, "--corrective", "--wrong", "p0006-05, p0008-01", "--dry-run", "--json").json()
    proposed = {item["record_id"] for item in facts["suspects"] if item["proposed"]}
    wrong = {f"p000{number // 10}-{number % 10:02d}" for number in range(60, 90) if number % 2}
    assert len(proposed & wrong) >= 12
    assert len(proposed - wrong) <= 1
    done = say("forget", run.path, "--corrective", "--wrong", "p0006-05", "--wrong", "p0008-01", "--yes", "--json")
    # The table is for people; programs get the receipt alone.
    receipt = done.json()["receipt"]
    assert (receipt["kind"], receipt["records"]) == ("corrective", len(proposed) + 2)
    assert not state_of(run.path).settled.keys() & (proposed | {"p0006-05", "p0008-01"})


def test_drift_of_a_run_and_of_an_archive(tmp_path: Path, say: Any) -> None:
    def drifting(sample: Sample, number: int) -> float:
        return score(sample) + (4.0 if number >= 50 else 0.0)

    good = steer(tmp_path / "good", algorithm={"kind": "random"}, batches=9, batch_size=10)
    bad = steer(tmp_path / "bad", algorithm={"kind": "random"}, batches=9, batch_size=10, judge=drifting)
    assert "good: no drift seen in 90 answers (p = " in say("archive", "drift", good.path).out
    out = say("archive", "drift", bad.path).out
    assert "bad: answers changed around 2025-10-09 09:4" in out
    assert "pilotwave forget --corrective" in out
    few = steer(tmp_path / "few", algorithm={"kind": "random"}, batches=1)
    assert "6 answers are too few to tell" in say("archive", "drift", few.path).out
    with ProjectArchive.create(tmp_path / "archive") as archive:
        archive.append(list(records_of_run(RunDirectory(bad.path), "alice")))
    (found,) = say("archive", "drift", tmp_path / "archive", "--json").json().values()
    assert found["p_value"] <= 0.01
    assert found["answers"] == 90
    (found,) = say("archive", "drift", tmp_path / "archive", "--where", "proposal < 5", "--json").json().values()
    assert found["since"] is None
    assert "expected a project archive" in say("archive", "drift", bad.path, "--where", "value > 1").mistake()
