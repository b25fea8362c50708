"""The study's own mind, whoever searches and schedules: which trial is next, what may be spent, how it all stands.

A trial begins only if all that it may ask fits into the budget beside what is spent and promised, so the budget
holds whatever the trials do; what a stopped one leaves is free again. May import the modules beside it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, Protocol

from pilotwave.errors import ConfigError, InfrastructureError, InputError, PilotwaveError
from pilotwave.execution.job import Interrupt
from pilotwave.tuning.checks import dearest_trial, in_words, samples_of
from pilotwave.tuning.ledger import StudyDirectory, StudyLedger, TrialRecord
from pilotwave.tuning.plans import TrialPlan, plan_trial, tracking_of
from pilotwave.tuning.results import best_of, write_results
from pilotwave.tuning.space import Point, active
from pilotwave.tuning.standing import Standing
from pilotwave.tuning.tracked import TrackedStudy
from pilotwave.tuning.trial import STOP_FILE
from pilotwave.tuning.tuner import Observer, Phase, StudyJob, StudyOutcome, StudyProgress, TrialRow

SAY_SECONDS = 0.25
FAILURES_IN_A_ROW = 3
"""So many trials that failed one after the other, with none that did not, end the study."""
LIVES = 3
"""How often a trial is begun by one driver if its worker keeps dying."""


class Answer(Enum):
    """What there is instead of a trial."""

    WAIT = "wait"
    OVER = "over"


class Suggesting(Protocol):
    """A searcher: suggests raw points and is told how they fared."""

    def suggest(self, number: int) -> Point | Answer:
        """Returns the raw point of a new trial."""
        ...

    def tell(self, number: int, point: Point, loss: float | None) -> None:
        """Takes in how a trial ended; None if that says nothing."""
        ...

    def replay(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Goes through what an earlier driver asked and told, in order."""
        ...


class StudyCoordinator:
    """Drives one study.

    Args:
        job: What to run; its directory is locked by the caller.
        observe: Told of progress.
        interrupt: Looked at often.
        concurrent: How many trials at once; the study's by default.
    """

    def __init__(
        self, job: StudyJob, observe: Observer, interrupt: Interrupt, concurrent: int | None = None
    ) -> None:
        self.study = job.study
        self.directory = StudyDirectory(job.study_dir)
        self.ledger = StudyLedger(self.directory.ledger_file)
        self.samples = samples_of(self.study)
        self.ended_by = ""
        self.failure: PilotwaveError | None = None
        self._job = job
        self._observe = observe
        self._interrupt = interrupt
        self.concurrent = concurrent or self.study.concurrent_trials
        self._lives: Counter[int] = Counter()
        self._waiting: deque[TrialRecord] = deque()
        self._live: dict[int, TrialPlan] = {}
        self._spent: dict[int, int] = {}
        self._told_to_stop: dict[int, str] = {}
        self._note = ""
        self._said = 0.0
        self._began = time.monotonic()
        self._ended_here = 0
        self._dearest = 0 if self.study.budget is None else dearest_trial(self.study).cost
        self._tracked = TrackedStudy(tracking_of(self.study), job.study_dir, self.study.name)

    def open(self) -> None:
        """Takes up what an earlier driver left: open trials come first, failed ones are tried again.

        Raises:
            InputError: What is spent and promised exceeds the budget.
        """
        self._say("starting")
        self._tracked.open(self.study.model_dump(mode="json", exclude={"campaign", "folder"}))
        for record in self.ledger.trials.values():
            (self.directory.trial(record.number) / STOP_FILE).unlink(missing_ok=True)
            if (
                record.ended
                and record.status == "failed"
                and record.cost
                and self._fits(record.cost - record.ended.spent)
            ):
                self.ledger.retried(record.number)
            if record.ended is None:
                self._waiting.append(record)
            elif not record.tracked:  # its driver was killed before the tracker knew
                self._track(record)
        budget = self.study.budget
        if budget is not None and self.committed() > budget:
            raise InputError(
                f"budget: {self.committed()} questions are spent or promised to trials that go on, got {budget}; "
                "raise it"
            )

    def next_trial(self, searcher: Suggesting) -> TrialPlan | Answer:
        """Returns the next trial to begin or to take up.

        Args:
            searcher: Asked for the point of a new one.
        """
        if self.stopping or self.failure is not None:
            return Answer.OVER
        if len(self._live) >= self.concurrent:
            return Answer.WAIT
        if self._waiting:
            record = self._waiting.popleft()
            return self._begin(plan_trial(self.study, record.number, record.point), record)
        if len(self.ledger.trials) >= self.samples:
            return self._over("samples")
        if not self._fits(self._dearest):
            return Answer.WAIT if self._live else self._over("budget")
        number = len(self.ledger.trials) + 1
        raw = searcher.suggest(number)
        if raw is Answer.OVER:
            return self._over("searcher")
        if isinstance(raw, Answer):
            return raw
        point = active(self.study.search, raw, self.study.campaign)
        try:
            plan = plan_trial(self.study, number, point)
        except ConfigError as error:  # a combination that the corners did not show
            self.ledger.suggested(number, point, 0)
            self.ledger.ended(Standing(number, 0, 0.0, 0, (), "failed", str(error)))
            self.note(f"trial {number} ({in_words(point)}) was left out: {error}")
            searcher.tell(number, point, None)
            return Answer.WAIT
        twin = self._twin(point)
        if twin is not None:  # nobody pays for what is known
            self.ledger.suggested(number, point, 0)
            self.ledger.ended(replace(twin, trial=number, spent=0, note=f"as trial {twin.trial}"))
            searcher.tell(number, point, twin.loss)
            return Answer.WAIT
        return self._begin(plan, self.ledger.suggested(number, point, plan.cost))

    def heartbeat(self, trial: int, spent: int) -> None:
        """Takes down how much a trial has spent by now."""
        self._spent[trial] = spent
        self._say()

    def stood(self, standing: Standing) -> None:
        """Takes down how a trial stands, before the scheduler decides."""
        self._spent[standing.trial] = standing.spent
        self.ledger.stood(standing)
        self._tracked.stood(standing)
        self._say()

    def ended(self, standing: Standing) -> None:
        """Takes down how a trial ended; one that was interrupted stays open."""
        self._live.pop(standing.trial, None)
        self._spent[standing.trial] = standing.spent
        record = self.ledger.trials[standing.trial]
        if standing.over == "interrupted":
            self._tracked.ended(standing)
            return
        self._ended_here += 1
        if standing.over == "refused":
            self._refused(standing)
            return
        self.ledger.ended(standing)
        self._track(record)
        if standing.over == "failed":
            self.note(f"trial {standing.trial} failed: {standing.failure}")
            self._check_failures()
        best = best_of(self.ledger.trials.values())
        self._tracked.progress(
            None if best is None or best.ended is None else best.ended.loss, self.spent(), len(self._ended())
        )
        self._say()

    def lost(self, trial: int, why: str) -> None:
        """Takes down that a trial's worker was lost; what it was answered is in its ledgers."""
        plan = self._live.pop(trial, None)
        if plan is None or self.stopping:
            return
        self._lives[trial] += 1
        record = self.ledger.trials[trial]
        if self._lives[trial] < LIVES:
            self.note(f"the worker of trial {trial} was lost ({why}); it is taken up again")
            self._waiting.append(record)
            return
        last = record.last
        spent = self._spent_of(record)
        campaigns = () if last is None else last.campaigns
        self.ended(Standing(trial, 0, 0.0, spent, campaigns, "failed", f"its worker was lost {LIVES} times: {why}"))

    def stop_trial(self, trial: int, why: str) -> None:
        """Tells a trial to save and stop."""
        if trial in self._told_to_stop:
            return
        self._told_to_stop[trial] = why
        folder = self.directory.trial(trial)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STOP_FILE).write_text(why, encoding="utf-8")

    def look(self) -> None:
        """Obeys an interrupt; to be called often."""
        if self.stopping or self.failure is not None:
            for trial in self._live:
                self.stop_trial(trial, "interrupted")
        self._say()

    def note(self, line: str) -> None:
        """Says one line worth knowing."""
        self._note = line
        self._said = 0.0
        self._say()

    @property
    def stopping(self) -> bool:
        """Whether the user wants to stop."""
        return self._interrupt.is_set()

    @property
    def is_busy(self) -> bool:
        """Whether trials are at work."""
        return bool(self._live)

    @property
    def has_work(self) -> bool:
        """Whether trials wait, or may still be begun."""
        return bool(self._waiting) or len(self.ledger.trials) < self.samples

    def spent(self) -> int:
        """Returns questions asked so far."""
        return sum(self._spent_of(record) for record in self.ledger.trials.values())

    def committed(self) -> int:
        """Returns questions that are spent, or promised to trials that are not over."""
        return sum(
            record.cost if record.ended is None else record.ended.spent for record in self.ledger.trials.values()
        )

    def close(self) -> StudyOutcome:
        """Writes the results and lays the study down.

        Raises:
            PilotwaveError: Why it could not go on.
        """
        self._say("saving", always=True)
        finished = self.failure is None and not self.stopping and not self._waiting and not self._live
        try:
            files = write_results(self.directory, self.study, self.ledger.trials)
            self._tracked.attach(files)
        except PilotwaveError as error:
            self._tracked.warnings.append(f"the result files could not be written: {error}")
        status = "failed" if self.failure is not None else "finished" if finished else "killed"
        line = self._tracked.close(status)
        self.ledger.close()
        self._say("done", always=True)
        if self.failure is not None:
            raise self.failure
        return StudyOutcome(finished, self.ended_by if finished else "", line, tuple(self._tracked.warnings))

    def _begin(self, plan: TrialPlan, record: TrialRecord) -> TrialPlan:
        self._live[plan.number] = plan
        self._told_to_stop.pop(plan.number, None)
        (self.directory.trial(plan.number) / STOP_FILE).unlink(missing_ok=True)
        self._tracked.trial(record, self.directory.trial(plan.number))
        self._say()
        return plan

    def _twin(self, point: Point) -> Standing | None:
        """Returns how a trial of the very same point ended, if one did."""
        for record in self.ledger.trials.values():
            ended = record.ended
            if ended is not None and ended.over in ("finished", "stopped") and record.point == point:
                return ended
        return None

    def _over(self, why: str) -> Answer:
        self.ended_by = self.ended_by or why
        return Answer.OVER

    def _track(self, record: TrialRecord) -> None:
        assert record.ended is not None
        self._tracked.trial(record, self.directory.trial(record.number))
        if self._tracked.ended(record.ended):
            self.ledger.tracked(record.number)

    def _refused(self, standing: Standing) -> None:
        """A trial could not begin: the study is wrong if none could before, otherwise only its point is."""
        if self._ended():
            failed = Standing(standing.trial, 0, standing.loss, standing.spent, standing.campaigns, "failed")
            self.ledger.ended(failed)
            self._track(self.ledger.trials[standing.trial])
            self.note(f"trial {standing.trial} failed: {standing.failure}")
            return
        self._tracked.ended(standing)
        self.failure = self.failure or InputError(standing.failure)

    def _check_failures(self) -> None:
        ended = [record.ended for record in self.ledger.trials.values() if record.ended is not None]
        failed = [each for each in ended if each.over == "failed" and each.campaigns]
        if len(failed) >= FAILURES_IN_A_ROW and len(failed) == len([each for each in ended if each.campaigns]):
            self.failure = self.failure or InfrastructureError(
                f"all {len(failed)} trials so far failed, the last one with: {failed[-1].failure}; mend that, then "
                "resume the study"
            )

    def _ended(self) -> list[TrialRecord]:
        return [record for record in self.ledger.trials.values() if record.ended is not None]

    def _fits(self, cost: int) -> bool:
        return self.study.budget is None or self.committed() + cost <= self.study.budget

    def _spent_of(self, record: TrialRecord) -> int:
        if record.ended is not None:
            return record.ended.spent
        last = record.last
        return self._spent.get(record.number, 0 if last is None else last.spent)

    def _say(self, phase: Phase = "running", *, always: bool = False) -> None:
        now = time.monotonic()
        if not always and now - self._said < SAY_SECONDS:
            return
        self._said = now
        best = best_of(self.ledger.trials.values())
        self._observe(
            StudyProgress(
                phase,
                tuple(self._row(record) for record in self.ledger.trials.values()),
                self.samples,
                self.spent(),
                self.study.budget,
                None if best is None else best.number,
                time.time() - self._job.launched,
                self._seconds_left(now),
                self._note,
            )
        )

    def _row(self, record: TrialRecord) -> TrialRow:
        last = record.last
        return TrialRow(
            record.number,
            record.point,
            "running" if record.number in self._live else record.status,
            0 if last is None else last.queries,
            None if last is None else last.loss,
            self._spent_of(record),
            0 if last is None else last.reached,
            0 if last is None else len(last.campaigns),
            "" if last is None else last.failure,
        )

    def _seconds_left(self, now: float) -> float | None:
        if not self._ended_here:
            return None
        pace = (now - self._began) / self._ended_here
        left = pace * (self.samples - len(self._ended()))
        spent = self.spent()
        if self.study.budget is not None and spent:
            left = min(left, (now - self._began) / spent * max(0, self.study.budget - spent))
        return max(0.0, left)


__all__ = ["Answer", "StudyCoordinator", "Suggesting"]
