"""Runs a trial: its campaigns side by side, each a real one with its own directory and ledger.

A trial says how it stands at equal numbers of questions while its campaigns go on, and stops them as an interrupt
does: answers in flight get their grace, all is saved, and it can be taken up again. A campaign that has met its
target is stopped, too: what it would ask from then on decides nothing. May import :mod:`pilotwave.campaign`,
:mod:`pilotwave.archive` and the modules beside it.
"""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.campaign import Campaign
from pilotwave.errors import BreakerError, InputError, PilotwaveError
from pilotwave.execution.job import Progress
from pilotwave.tuning.ledger import StudyDirectory
from pilotwave.tuning.plans import CampaignPlan, TrialPlan
from pilotwave.tuning.standing import Answers, CampaignStanding, Reference, Standing, aggregate, loss_at

STOP_FILE = "stop"
"""In a trial's folder: why it shall stop, ``stopped`` (by the scheduler) or ``interrupted``."""
LOOK_SECONDS = 0.2
FREE_SECONDS = 60.0
"""How long a driver that was killed may hold a campaign."""
FINISHED = ("finished", "finished-early")


class CampaignRun:
    """One campaign of a trial: looked at through its ledger, driven by a thread of its own.

    Args:
        plan: What it is.
        run_dir: Where it lies, or will.
        study: Where references are kept.
    """

    def __init__(self, plan: CampaignPlan, run_dir: Path, study: StudyDirectory) -> None:
        self.plan = plan
        self.failure: PilotwaveError | None = None
        self._run = RunDirectory(run_dir)
        self._study = study
        self._losses: list[float | None] = []
        self._settled: set[str] = set()
        self._reserved: set[str] = set()
        self._sequence = 0
        self._stopped: str | None = None
        self._reference: Reference | None = None
        self._interrupt = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins or goes on, unless it is over."""
        self.look()
        if self.answers().over or self.answers().reached() is not None:
            return
        self._stopped = None
        self._thread = threading.Thread(target=self._drive, name=self.plan.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Asks it to save and stop."""
        self._interrupt.set()

    def at_work(self) -> bool:
        """Says whether its driver has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def look(self) -> None:
        """Reads what is new in its ledger."""
        if not self._run.exists():
            return
        objective = self.plan.config.objective
        with Ledger.open(self._run.ledger_file, read_only=True) as ledger:
            for event in ledger.events(self._sequence):
                self._sequence = event.sequence
                if event.kind is EventKind.RESERVED:
                    self._reserved.add(event.record["query_id"])
                elif event.kind is EventKind.SETTLED:
                    value = event.evaluation().value
                    if event.record["query_id"] not in self._settled:
                        self._settled.add(event.record["query_id"])
                        self._losses.append(None if value is None else objective.loss(value))
                elif event.kind is EventKind.STARTED:
                    self._stopped = None
                elif event.kind is EventKind.STOPPED:
                    self._stopped = event.record["reason"]
        size = self.plan.config.budget.batch_size
        if self._reference is None and len(self._losses) >= min(size, self.plan.queries):
            found = Reference.of(self._losses[:size])
            known = self._study.reference(self.plan.task, self.plan.seed)
            if known is None and found is not None:
                known = self._study.keep_reference(self.plan.task, self.plan.seed, found)
            self._reference = known
        if self.answers().reached() is not None:
            self._interrupt.set()

    def answers(self) -> Answers:
        """Returns what it was answered as of the last look."""
        config = self.plan.config
        return Answers(
            tuple(self._losses),
            config.budget.batch_size,
            config.budget.queries,
            self.plan.target,
            self._reference,
            over=self._stopped in FINISHED or self.failure is not None,
        )

    @property
    def spent(self) -> int:
        """Questions asked as of the last look."""
        return len(self._reserved)

    def standing(self, trial: TrialPlan, queries: int) -> CampaignStanding:
        """Returns how it stands after so many questions."""
        answers = self.answers()
        best = answers.best(queries)
        maximize = self.plan.config.objective.direction == "maximize"
        return CampaignStanding(
            self.plan.task,
            self.plan.seed,
            self.spent,
            loss_at(trial.objective, answers, queries),
            answers.reached(queries),
            None if best is None else -best if maximize else best,
            "" if self.failure is None else " ".join(str(self.failure).split()),
        )

    def _drive(self) -> None:
        try:
            self._wait_until_free()
            campaign = Campaign(self.plan.config)
            start = campaign.resume if self._run.exists() else campaign.run
            start(self._run.path, observe=self._observe, interrupt=self._interrupt)
        except PilotwaveError as error:
            self.failure = error
        except Exception as error:  # a plug-in's; the other campaigns go on
            traceback.print_exc()
            self.failure = PilotwaveError(f"{type(error).__name__}: {error}")

    def _wait_until_free(self) -> None:
        """Lets a driver that was killed a moment ago go."""
        deadline = time.monotonic() + FREE_SECONDS
        while self._run.exists() and self._run.is_locked() and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)

    def _observe(self, progress: Progress) -> None:
        best, target = progress.best, self.plan.target
        if best is not None and target is not None and self.plan.config.objective.loss(best) <= target:
            self._interrupt.set()


class TrialRun:
    """All campaigns of a trial.

    Args:
        plan: What it is.
        study_dir: Of the study, as this machine sees it.
    """

    def __init__(self, plan: TrialPlan, study_dir: Path) -> None:
        self.plan = plan
        study = StudyDirectory(study_dir)
        self._folder = study.trial(plan.number)
        self._campaigns = [CampaignRun(each, self._folder / each.name, study) for each in plan.campaigns]
        self._said = 0
        self._why = ""

    def start(self) -> None:
        """Begins or goes on with every campaign that is not over."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for campaign in self._campaigns:
            campaign.start()

    def wait(self, seconds: float) -> Standing | None:
        """Waits for the next comparison.

        Args:
            seconds: No longer than this.

        Returns:
            How it stands, at a multiple of ``plan.every``, each once; the last says why it is over. None if nothing
            new is known.
        """
        deadline = time.monotonic() + seconds
        while True:
            self._obey()
            self._look()
            if not self._why and self._said + self.plan.every < self.plan.queries:
                queries = self._said + self.plan.every
                if all(campaign.answers().knows(queries) for campaign in self._campaigns) and not self._all_over():
                    self._said = queries
                    return self._standing(queries)
            if not any(campaign.at_work() for campaign in self._campaigns):
                self._look()
                return self._last()
            if time.monotonic() > deadline:
                return None
            time.sleep(LOOK_SECONDS)

    @property
    def spent(self) -> int:
        """Questions asked so far."""
        return sum(campaign.spent for campaign in self._campaigns)

    def stop(self, why: str) -> None:
        """Asks every campaign to save and stop."""
        self._why = self._why or why
        for campaign in self._campaigns:
            campaign.stop()

    def close(self, seconds: float = 60.0) -> None:
        """Stops what is still at work and waits for it."""
        self.stop("interrupted")
        deadline = time.monotonic() + seconds
        while any(campaign.at_work() for campaign in self._campaigns) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)

    def _obey(self) -> None:
        if self._why:
            return
        try:
            why = (self._folder / STOP_FILE).read_text(encoding="utf-8").strip()
        except OSError:
            return
        if why:
            self.stop(why)

    def _look(self) -> None:
        for campaign in self._campaigns:
            campaign.look()

    def _all_over(self) -> bool:
        return all(
            campaign.answers().over or campaign.answers().reached() is not None for campaign in self._campaigns
        )

    def _last(self) -> Standing:
        failures = [campaign.failure for campaign in self._campaigns if campaign.failure is not None]
        # What stopped itself because its method fails has shown how good it is; all else says nothing of it.
        broken = [failure for failure in failures if not isinstance(failure, BreakerError)]
        refused = not self.spent and any(isinstance(failure, InputError) for failure in broken)
        over = "refused" if refused else "failed" if broken else ""
        over = over or ("finished" if self._all_over() else self._why or "interrupted")
        whole = self._standing(self.plan.queries)
        return replace(whole, queries=self.plan.queries if over == "finished" else self._known(), over=over)

    def _known(self) -> int:
        """Returns the largest number of questions, a multiple of ``every``, at which all is known."""
        queries = 0
        while queries < self.plan.queries and all(
            campaign.answers().knows(queries + self.plan.every) for campaign in self._campaigns
        ):
            queries += self.plan.every
        return min(queries, self.plan.queries)

    def _standing(self, queries: int) -> Standing:
        plan = self.plan
        campaigns = tuple(campaign.standing(plan, max(queries, 1)) for campaign in self._campaigns)
        loss = aggregate(plan.objective, [(each.task, each.loss) for each in campaigns])
        return Standing(plan.number, queries, loss, self.spent, campaigns)


__all__ = ["STOP_FILE", "CampaignRun", "TrialRun"]
