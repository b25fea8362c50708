"""Trials and their study without Ray: real campaigns in this process, and the study's bookkeeping."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from pilotwave.campaign import Campaign
from pilotwave.errors import InputError, RunDirectoryError
from pilotwave.testing.runtime_contract import state_of
from pilotwave.testing.small_study import SmallStudy
from pilotwave.tuning.config import StudyConfig, check_study
from pilotwave.tuning.coordinator import Answer, StudyCoordinator
from pilotwave.tuning.ledger import StudyDirectory, StudyLedger, read_trials
from pilotwave.tuning.plans import TrialPlan, plan_trial
from pilotwave.tuning.space import Point, draw
from pilotwave.tuning.standing import CampaignStanding, Reference, Standing
from pilotwave.tuning.study import Study
from pilotwave.tuning.trial import STOP_FILE, TrialRun
from pilotwave.tuning.tuner import StudyJob


def study_of(folder: Path, **changes: Any) -> StudyConfig:
    return check_study({**SmallStudy(folder, queries=24, delay=0.01).fields(), "folder": str(folder), **changes})


def follow(trial: TrialRun) -> list[Standing]:
    trial.start()
    seen = []
    while not seen or not seen[-1].over:
        standing = trial.wait(5.0)
        if standing is not None:
            seen.append(standing)
    return seen


def test_a_trial_stands_at_equal_questions_and_goes_on_when_it_was_stopped(tmp_path: Path) -> None:
    study = study_of(tmp_path, seeds=[0, 1])
    plan = plan_trial(study, 1, {"algorithm.radius": 0.3})
    whole = follow(TrialRun(plan, tmp_path / "whole"))
    assert [standing.queries for standing in whole] == [8, 16, 24]
    assert whole[-1].over == "finished"
    assert whole[-1].spent == 48

    stopped = TrialRun(plan, tmp_path / "part")
    stopped.start()
    first = stopped.wait(60.0)
    assert first is not None
    assert (first.queries, first.over) == (8, "")
    (tmp_path / "part" / "trials" / "0001" / STOP_FILE).write_text("stopped")
    last = None
    while last is None or not last.over:
        last = stopped.wait(5.0)
    assert last.over == "stopped"
    assert 16 <= last.spent < 48
    runs = sorted((tmp_path / "part" / "trials" / "0001").glob("*-seed-*"))
    assert [state_of(run).stopped for run in runs] == ["interrupted"] * 2

    (tmp_path / "part" / "trials" / "0001" / STOP_FILE).unlink()
    again = follow(TrialRun(plan, tmp_path / "part"))
    assert [standing.loss for standing in again] == [standing.loss for standing in whole]
    assert again[-1].spent == 48
    read_only = follow(TrialRun(plan, tmp_path / "part"))  # all is known: nothing is asked
    assert read_only == [again[-1]]


def test_a_campaign_that_has_met_its_target_stops(tmp_path: Path) -> None:
    study = study_of(tmp_path, objective=None, target={"at_most": 1e6}, seeds=[0, 1])
    (last,) = follow(TrialRun(plan_trial(study, 1, {}), tmp_path / "study"))
    assert (last.over, last.loss, last.reached) == ("finished", 1.0, 2)
    assert last.spent < 48


def test_the_first_to_know_says_what_is_unguided(tmp_path: Path) -> None:
    directory = StudyDirectory(tmp_path)
    assert directory.reference("a", 0) is None
    assert directory.keep_reference("a", 0, Reference(1.0, 2.0)) == Reference(1.0, 2.0)
    assert directory.keep_reference("a", 0, Reference(3.0, 4.0)) == Reference(1.0, 2.0)
    assert [path.name for path in (tmp_path / "references").iterdir()] == ["a-seed-0.json"]


def begun(folder: Path, **changes: Any) -> StudyJob:
    study = study_of(folder, **changes)
    directory = StudyDirectory(folder / "study")
    directory.create(study)
    return StudyJob(study, directory.path, 0.0)


class Drawn:
    """A searcher that is told what every trial came to."""

    def __init__(self, study: StudyConfig) -> None:
        self.study = study
        self.told: dict[int, float | None] = {}

    def suggest(self, number: int) -> Point | Answer:
        return draw(self.study.search, self.study.campaign, (7, number))

    def tell(self, number: int, point: Point, loss: float | None) -> None:
        self.told[number] = loss

    def replay(self, events: Any) -> None:
        del events


def ended(plan: TrialPlan, spent: int, over: str) -> Standing:
    campaigns = tuple(
        CampaignStanding(each.task, each.seed, spent // len(plan.campaigns), 5.0, None, 1.0)
        for each in plan.campaigns
    )
    return Standing(plan.number, 8, 5.0 + plan.number, spent, campaigns, over)


@pytest.mark.parametrize("seed", range(3))
def test_the_budget_holds_whatever_trials_do_and_whoever_is_killed(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    job = begun(
        tmp_path,
        budget=300,
        samples=100,
        concurrent_trials=3,
        search={"algorithm.radius": {"uniform": [0.1, 0.6]}, "budget.queries": {"choice": [8, 24, 40]}},
    )
    searcher = Drawn(job.study)
    seen: list[int] = []
    coordinator = StudyCoordinator(job, lambda progress: seen.append(progress.spent), threading.Event())
    coordinator.open()
    live: dict[int, TrialPlan] = {}
    answer: TrialPlan | Answer = Answer.WAIT
    while answer is not Answer.OVER or live:
        answer = coordinator.next_trial(searcher)
        if isinstance(answer, TrialPlan):
            live[answer.number] = answer
        spent = sum(record.ended.spent for record in coordinator.ledger.trials.values() if record.ended)
        assert spent + sum(plan.cost for plan in live.values()) <= 300
        assert len(live) <= 3
        if chance.random() < 0.1:  # the driver is killed; another takes the open trials up first
            coordinator.ledger.close()
            coordinator = StudyCoordinator(job, lambda progress: seen.append(progress.spent), threading.Event())
            coordinator.open()
            waiting, live = set(live), {}
            while waiting - live.keys():
                taken = coordinator.next_trial(searcher)
                assert isinstance(taken, TrialPlan)
                live[taken.number] = taken
            assert waiting == live.keys()
        if live and chance.random() < 0.6:
            plan = live.pop(chance.choice(sorted(live)))
            over = chance.choice(["finished", "stopped", "stopped"])
            coordinator.ended(ended(plan, plan.cost if over == "finished" else chance.randint(1, plan.cost), over))
    outcome = coordinator.close()
    assert outcome.finished
    assert outcome.ended_by == "budget"
    total = sum(
        record.ended.spent for record in read_trials(job.study_dir / "study.jsonl").values() if record.ended
    )
    assert 300 - 40 < total <= 300  # and it is used: a further trial might not have fitted
    assert seen[-1] == total


def test_a_point_that_was_tried_is_not_paid_for_again(tmp_path: Path) -> None:
    job = begun(tmp_path, samples=4, search={"algorithm.radius": {"choice": [0.2]}})
    searcher = Drawn(job.study)
    coordinator = StudyCoordinator(job, lambda progress: None, threading.Event())
    coordinator.open()
    plan = coordinator.next_trial(searcher)
    assert isinstance(plan, TrialPlan)
    coordinator.ended(ended(plan, 24, "finished"))
    assert [coordinator.next_trial(searcher) for _ in range(4)] == [Answer.WAIT] * 3 + [Answer.OVER]
    assert searcher.told == {2: 6.0, 3: 6.0, 4: 6.0}
    coordinator.close()
    trials = read_trials(job.study_dir / "study.jsonl")
    assert [record.ended.spent for record in trials.values() if record.ended] == [24, 0, 0, 0]


def test_trials_that_all_fail_end_the_study_with_the_reason(tmp_path: Path) -> None:
    job = begun(tmp_path, samples=9)
    searcher = Drawn(job.study)
    coordinator = StudyCoordinator(job, lambda progress: None, threading.Event())
    coordinator.open()
    for _ in range(3):
        plan = coordinator.next_trial(searcher)
        while not isinstance(plan, TrialPlan):
            plan = coordinator.next_trial(searcher)
        campaigns = (CampaignStanding("small", 0, 3, 5.0, None, None, "the licence server is away"),)
        coordinator.ended(Standing(plan.number, 0, 5.0, 3, campaigns, "failed"))
    assert coordinator.next_trial(searcher) is Answer.OVER
    with pytest.raises(
        Exception, match="all 3 trials so far failed, the last one with: the licence server is away"
    ):
        coordinator.close()
    again = StudyCoordinator(job, lambda progress: None, threading.Event())
    again.open()  # they are tried again
    assert isinstance(again.next_trial(searcher), TrialPlan)
    again.ledger.close()


def test_a_budget_below_what_is_promised_is_refused(tmp_path: Path) -> None:
    job = begun(tmp_path, samples=4, budget=100)
    searcher = Drawn(job.study)
    coordinator = StudyCoordinator(job, lambda progress: None, threading.Event())
    coordinator.open()
    for _ in range(2):
        assert isinstance(coordinator.next_trial(searcher), TrialPlan)
    coordinator.ledger.close()
    less = StudyJob(job.study.model_copy(update={"budget": 30}), job.study_dir, 0.0)
    later = StudyCoordinator(less, lambda progress: None, threading.Event())
    with pytest.raises(InputError, match=r"48 questions are spent or promised .* got 30"):
        later.open()
    later.ledger.close()


def test_a_line_that_a_kill_cut_short_is_forgotten(tmp_path: Path) -> None:
    job = begun(tmp_path)
    file = StudyDirectory(job.study_dir).ledger_file
    ledger = StudyLedger(file)
    ledger.suggested(1, {"algorithm.radius": 0.2}, 24)
    ledger.close()
    with file.open("a") as torn:
        torn.write(json.dumps({"kind": "ended", "trial": 1})[:-3])
    assert read_trials(file)[1].status == "open"
    ledger = StudyLedger(file)
    ledger.suggested(2, {"algorithm.radius": 0.3}, 24)
    ledger.close()
    assert list(read_trials(file)) == [1, 2]


def test_one_driver_writes_and_another_study_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = begun(tmp_path)
    directory = StudyDirectory(job.study_dir)
    ledger = StudyLedger(directory.ledger_file)
    monkeypatch.setattr("pilotwave.tuning.ledger.WRITER_SECONDS", 0.2)
    with pytest.raises(RunDirectoryError, match="another driver is at work on this study"):
        StudyLedger(directory.ledger_file)
    ledger.close()
    with pytest.raises(RunDirectoryError, match="belongs to another study"):
        directory.adopt(job.study.model_copy(update={"seeds": (5,)}))
    directory.adopt(job.study.model_copy(update={"samples": 99}))
    assert Study.of_directory(job.study_dir).config.samples == 99
    with pytest.raises(RunDirectoryError, match="is a study; go on with: pilotwave tune --resume"):
        Campaign.of_run(job.study_dir)
