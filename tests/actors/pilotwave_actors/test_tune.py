"""Studies on a real local Ray, with Ray Tune itself; the trials' campaigns are real, too."""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.errors import InputError, MissingDependencyError
from pilotwave.testing.runtime_contract import state_of
from pilotwave.testing.small_study import SmallStudy
from pilotwave.tuning.ledger import StudyDirectory, TrialRecord, read_trials
from pilotwave.tuning.study import Study
from pilotwave.tuning.tuner import StudyProgress

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def trials_of(study_dir: Path) -> dict[int, TrialRecord]:
    return read_trials(StudyDirectory(study_dir).ledger_file)


def runs_of(study_dir: Path, trial: int) -> list[Path]:
    return sorted(path.parent for path in StudyDirectory(study_dir).trial(trial).glob("*/ledger.sqlite"))


def settled(study_dir: Path) -> int:
    return sum(len(state_of(run).settled) for trial in trials_of(study_dir) for run in runs_of(study_dir, trial))


def test_asha_stops_campaigns_that_are_behind_and_nothing_is_lost_or_paid_in_vain(tmp_path: Path) -> None:
    small = SmallStudy(tmp_path, queries=48, delay=0.01)
    # Random search never gets better. What finishes must have been asked everything, what is stopped must not.
    search = {"algorithm": {"choice": [{"kind": "noise-search"}, {"kind": "random"}]}}
    fields = small.fields(
        search=search,
        searcher="grid",
        samples=None,
        seeds=[0, 1],
        objective="level",
        concurrent_trials=1,
        scheduler={"kind": "asha", "grace": 16, "reduction_factor": 2},
    )
    seen: list[StudyProgress] = []
    result = Study.from_dict(fields).run(tmp_path / "study", observe=seen.append)
    trials = trials_of(result.study_dir)
    assert [trials[1].status, trials[2].status] == ["finished", "stopped"]
    assert [standing.queries for standing in trials[1].standings] == [8, 16, 24, 32, 40]
    assert result.best is not None
    assert result.best.number == 1
    for run in runs_of(result.study_dir, 2):
        state = state_of(run)
        assert 16 <= len(state.settled) < 48
        assert state.stopped == "interrupted"  # the same path as an interrupt, so it could go on
        assert state.spent == len(state.settled)
    assert [state_of(run).spent for run in runs_of(result.study_dir, 1)] == [48, 48]
    asked = small.asked()
    assert len(asked) == settled(result.study_dir) == result.spent
    assert seen[-1].phase == "done"
    assert seen[-1].spent == result.spent
    figures = json.loads(result.files["json"].read_text())
    for run, seed in zip(runs_of(result.study_dir, 1), (0, 1), strict=True):
        with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
            values = [event.evaluation().value for event in ledger.events() if event.kind is EventKind.SETTLED]
        assert figures["trials"][0][f"best small {seed}"] == min(value for value in values if value is not None)
        reference = json.loads((result.study_dir / "references" / f"small-seed-{seed}.json").read_text())
        assert reference["mean"] == pytest.approx(sum(value or 0.0 for value in values[:8]) / 8)
    campaign = yaml.safe_load(result.files["campaign"].read_text())
    assert campaign["algorithm"]["kind"] == "noise-search"
    assert result.files.keys() == {"table", "json", "parquet", "picture", "campaign"}


@pytest.mark.slow
def test_a_target_ends_campaigns_that_have_met_it_and_the_budget_holds(tmp_path: Path) -> None:
    small = SmallStudy(tmp_path, queries=32, delay=0.1)
    fields = small.fields(
        objective=None, target={"at_most": 1e6}, samples=6, budget=70, concurrent_trials=2, searcher="random"
    )
    easy = Study.from_dict(fields).run(tmp_path / "easy")
    trials = trials_of(easy.study_dir)
    assert all(record.ended is not None and record.ended.loss == 1.0 for record in trials.values())
    assert all(record.ended is not None and record.ended.spent < 32 for record in trials.values())
    assert len(trials) > 2  # all stopped soon, which left room for more than two
    assert easy.spent == len(small.asked()) <= 70

    hard = Study.from_dict({**fields, "target": {"at_most": -1.0}}).run(tmp_path / "hard")
    assert len(trials_of(hard.study_dir)) == 2  # a third might ask 32, and 64 of 70 are spent
    assert hard.spent == 64
    assert hard.outcome.ended_by == "budget"
    assert hard.best is not None
    assert 64 <= hard.best.loss <= 96  # censored: twice the budget, and more by what is missing


@pytest.mark.slow
def test_an_interrupt_saves_and_the_study_goes_on_where_it_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "a-stray-that-does-not-matter")
    small = SmallStudy(tmp_path, queries=24, delay=0.25)
    fields = small.fields(samples=2, concurrent_trials=2, tracking={"kind": "mlflow"})
    interrupt = threading.Event()

    def observe(progress: StudyProgress) -> None:
        if progress.spent >= 4:
            interrupt.set()

    study = Study.from_dict(fields)
    first = study.run(tmp_path / "study", observe=observe, interrupt=interrupt)
    assert not first.outcome.finished
    open_trials = [record.number for record in trials_of(first.study_dir).values() if record.ended is None]
    assert open_trials
    assert {status for _, _, status in tracked(tmp_path)} == {"KILLED"}

    again = Study.of_directory(first.study_dir).run()
    assert again.outcome.finished
    trials = trials_of(again.study_dir)
    assert [record.status for record in trials.values()] == ["finished"] * 2
    assert again.spent == 2 * 24 == settled(again.study_dir) == len(small.asked())

    runs = tracked(tmp_path)
    assert {name: status for _, name, status in runs} == {
        "study": "FINISHED",
        **{f"trial-000{number}": "FINISHED" for number in (1, 2)},
    }
    assert len(runs) == 3  # a trial that was taken up again goes on in its run
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        parents = dict(database.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'"))
    study_run = next(run for run, name, _ in runs if name == "study")
    assert parents == {run: study_run for run, name, _ in runs if name != "study"}


def tracked(folder: Path) -> list[tuple[str, str, str]]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        return list(database.execute("SELECT run_uuid, name, status FROM runs"))


@pytest.mark.slow
def test_trials_on_the_ray_runtime_share_evaluators(tmp_path: Path) -> None:
    small = SmallStudy(tmp_path, queries=16, delay=0.05)
    runtime = {"kind": "ray", "evaluators": 2, "mode": "asynchronous"}
    fields = small.fields(samples=3, concurrent_trials=3, runtime=runtime)
    result = Study.from_dict(fields).run(tmp_path / "study")
    assert [record.status for record in trials_of(result.study_dir).values()] == ["finished"] * 3
    assert result.spent == 48 == len(small.asked())
    evaluators = {
        evaluation.worker
        for trial in (1, 2, 3)
        for run in runs_of(result.study_dir, trial)
        for evaluation in state_of(run).settled.values()
    }
    assert 1 <= len(evaluators) <= 2
    many = {**fields, "runtime": {**runtime, "evaluators": 64}}
    with pytest.raises(InputError, match="room for"):
        Study.from_dict(many).run(tmp_path / "many")
    assert not (tmp_path / "many").exists()


@pytest.mark.slow
def test_a_trial_that_breaks_is_left_behind_and_a_study_that_breaks_ends(tmp_path: Path) -> None:
    small = SmallStudy(tmp_path, queries=16)
    broken = "raise RuntimeError('no licence')"
    text = (tmp_path / "scored.py").read_text()
    (tmp_path / "scored.py").write_text(text.replace("    time.sleep", f"    {broken}\n    time.sleep"))
    fields = small.fields(samples=2, concurrent_trials=1)
    fields["campaign"]["failures"] = {"window": 4}
    result = Study.from_dict(fields).run(tmp_path / "study")
    trials = trials_of(result.study_dir)
    # the breaker stopped both: a method whose samples all fail has shown what it is worth
    assert [record.status for record in trials.values()] == ["finished"] * 2
    assert all(record.ended is not None and "no licence" in record.ended.failure for record in trials.values())

    fields["campaign"]["backbone"] = {"kind": "analytic", "data": str(tmp_path / "nothing.npy")}
    with pytest.raises(InputError, match=r"nothing\.npy"):
        Study.from_dict(fields).run(tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"searcher": "bayesopt"}, (MissingDependencyError, InputError), "bayesopt"),
        ({"searcher": "optona"}, InputError, "'optona'; did you mean 'optuna'"),
        ({"searcher": "pathlib:Nothing"}, InputError, "pathlib:Nothing cannot be imported"),
        ({"scheduler": "ashaa"}, InputError, "'ashaa'; did you mean 'asha'"),
        (
            {"scheduler": {"kind": "asha", "options": {"bracket": 2}}},
            InputError,
            "does not take these options.*bracket",
        ),
    ],
)
def test_who_searches_and_who_stops_is_known_before_anything_is_made(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Study.from_dict(SmallStudy(tmp_path).fields(**changes)).run(tmp_path / "study")
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_a_searcher_of_tune_is_told_again_of_every_trial(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed")
    small = SmallStudy(tmp_path, queries=16)
    search = {"algorithm.radius": {"uniform": [0.1, 0.6]}, "backbone.steps": {"integer": [2, 4]}}
    fields = small.fields(search=search, samples=4, concurrent_trials=1, searcher="optuna")
    whole = Study.from_dict(fields).run(tmp_path / "whole")
    half = Study.from_dict({**fields, "samples": 2}).run(tmp_path / "half")
    rest = Study.of_directory(half.study_dir, ["samples=4"]).run()
    points = [[record.point for record in trials_of(each.study_dir).values()] for each in (whole, rest)]
    assert points[0] == points[1]
    assert all(left != right for left, right in itertools.combinations(points[0], 2))
