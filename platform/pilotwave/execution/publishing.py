"""Tells people how a campaign goes: progress for the terminal, metrics for the tracker, files at the end.

Nothing here may stop a campaign: what fails is kept as a warning. May import the core.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

from pilotwave.errors import PilotwaveError
from pilotwave.execution.accounting import Accounting
from pilotwave.execution.budgets import Budgets
from pilotwave.execution.job import CampaignJob, Observer, Phase, Progress
from pilotwave.execution.memory import CampaignMemory
from pilotwave.execution.telemetry import Level, Telemetries
from pilotwave.protocols import Algorithm, ModelTracker, Tracker
from pilotwave.types import Evaluation

INTERVAL_SECONDS = 0.25
"""Progress is reported no more often than this."""


class Publisher:
    """Keeps what people see up to date.

    Attributes:
        warnings: Lines the user should see at the end.
    """

    def __init__(
        self,
        job: CampaignJob,
        memory: CampaignMemory,
        accounting: Accounting,
        budgets: Budgets,
        observe: Observer,
        telemetry: Telemetries,
    ) -> None:
        self.warnings: list[str] = []
        self._job = job
        self._memory = memory
        self._accounting = accounting
        self._budgets = budgets
        self._observe = telemetry.observing(observe)
        self._telemetry = telemetry
        self._tracker: Tracker | None = None
        self._phase: Phase = "starting"
        self._note = ""
        self._unit = ""
        self._last = 0.0
        self._best: tuple[float, str] | None = None
        self._batch_mean: float | None = None
        self._spent_before = memory.state.spent
        self._running_since: float | None = None

    def open_tracker(self) -> None:
        """Opens the tracker; a campaign runs without one that does not open."""
        config = self._job.config
        try:
            self._tracker = config.tracking.build(self._job.run_dir)
            tags = {"run_dir": str(self._job.run_dir)}
            if config.archive is not None:
                tags["archive"] = str(config.archive.path)
            self._tracker.start(config.name, config.model_dump(mode="json"), tags)
        except Exception as error:  # tracking fails open, whatever a plug-in raises
            self.warn(f"tracking {config.tracking.kind!r} is off: {error}")
            self._tracker = None

    def opened(self, unit: str) -> None:
        """Takes over what a resumed campaign knows already."""
        self._unit = unit
        self._running_since = time.time()
        self._spent_before = self._memory.state.spent
        state = self._memory.state
        maximizes = self._job.config.objective.is_better(1.0, 0.0)
        best = state.highest if maximizes else state.lowest
        if best is not None:
            self._best = (best[0], self._memory.label(best[1]))
        over = [number for number in state.complete if state.is_told(number)]
        if over:
            self.batch(over[-1])  # it may not have reached the tracker before a crash
            state.let_go(over[-1])

    def phase(self, phase: Phase) -> None:
        """Changes what is shown as being done."""
        self._phase = phase
        self._last = 0.0
        self._telemetry.entered(phase)
        self.progress(0, 0, False)

    def note(self, line: str) -> None:
        """Says one line worth knowing."""
        self.show(line)
        self._telemetry.noted(Level.INFO, "note", line)

    def show(self, line: str) -> None:
        """Shows one line of what telemetry knows already."""
        self._note = line

    def batch(self, number: int) -> None:
        """Publishes a complete proposal."""
        state = self._memory.state
        proposal = state.proposals[number]
        values = [state.settled[query_id].value for query_id in proposal.query_ids]
        found = [value for value in values if value is not None]
        for query_id in proposal.query_ids:
            self._consider(state.settled[query_id])
        self._batch_mean = statistics.fmean(found) if found else None
        metrics = {
            "queries": float(state.spent),
            "cost": state.spending.ended,
            "answered": float(state.answered),
            "failed": float(state.failed),
            "infeasible": float(state.infeasible),
            "evaluator_utilisation": self._accounting.utilisation(),
            "generation_seconds": proposal.seconds,
            "sampler_passes": float(proposal.passes),
        }
        if self._job.config.archive is not None:
            metrics |= {"reused": float(state.reused), "saved_cost": state.saved_cost}
        if found:
            metrics["batch_mean"] = statistics.fmean(found)
            metrics["batch_best"] = min(found, key=self._job.config.objective.loss)
            metrics["batch_standard_deviation"] = statistics.pstdev(found)
        if self._best is not None:
            metrics["best"] = self._best[0]
        if self._tracker is not None:
            self._tracker.log(metrics, step=state.spent)

    def progress(self, in_flight: int, resting: int, generating: bool, ready: int = 0) -> None:
        """Reports to the observer, not too often."""
        now = time.time()
        if now - self._last < INTERVAL_SECONDS:
            return
        self._last = now
        for evaluation in self._memory.recently_settled():
            self._consider(evaluation)
        state, limits = self._memory.state, self._budgets.limits
        self._observe(
            Progress(
                phase=self._phase,
                queries=limits.queries,
                spent=state.spent,
                answered=state.answered,
                failed=state.failed,
                infeasible=state.infeasible,
                reused=state.reused,
                saved_cost=state.saved_cost,
                best=self._best[0] if self._best else None,
                best_label=self._best[1] if self._best else "",
                batch_mean=self._batch_mean,
                generating=generating,
                in_flight=in_flight,
                utilisation=self._accounting.utilisation(),
                seconds=now - self._job.launched,
                seconds_left=self._seconds_left(now),
                note=self._note,
                cost=state.spending.ended,
                cost_limit=limits.cost,
                resting=resting,
                paused=state.paused,
                draining=state.draining,
                ready=ready,
                evaluators=self._accounting.evaluators,
                platform_seconds=self._accounting.platform_seconds(),
            )
        )

    def save_results(self) -> None:
        """Writes the result files and attaches them to the tracked run."""
        from pilotwave.report.results import write_results

        try:
            files = write_results(self._job.run_dir)
        except PilotwaveError as error:
            self.warn(f"the result files could not be written: {error}")
            return
        if self._tracker is not None:
            for path in files.paths():
                self._tracker.artifact(str(path))

    def save_model(self, algorithm: Algorithm, facts: Mapping[str, str]) -> None:
        """Writes what was learned as a model folder and attaches it to the tracked run, if that keeps models.

        Args:
            algorithm: As it stands.
            facts: What backbone and oracle said of themselves.
        """
        if not isinstance(self._tracker, ModelTracker) or not getattr(self._job.config.tracking, "model", True):
            return
        from pilotwave.execution.guidance_config import GuidanceConfig
        from pilotwave.execution.learned_model import MODEL_FOLDER, LearnedFacts, write_model

        folder, state = self._job.run_dir / MODEL_FOLDER, self._memory.state
        try:
            learned = LearnedFacts.of(self._job.config.name, state, facts)
            chosen = GuidanceConfig.of(self._job.config)
            write_model(folder, chosen, learned, algorithm.state_dict(), self._memory.identities())
        except (PilotwaveError, TypeError, ValueError) as error:  # a plug-in's state may hold anything
            self.warn(f"what was learned was not logged as a model: {error}")
            return
        self._tracker.model(str(folder), state.spent)

    def tag_archive(self) -> None:
        """Tells the tracker what the project archive holds now."""
        archive = self._job.config.archive
        if archive is None or not isinstance(self._tracker, ModelTracker):
            return
        try:
            from pilotwave.archive.project import ProjectArchive

            with ProjectArchive.open(archive.path, read_only=True) as project:
                self._tracker.tag({"archive.digest": project.digest(), "archive.records": str(len(project))})
        except PilotwaveError as error:
            self.warn(f"the archive's digest was not written down: {error}")

    def tracking(self) -> str:
        """Returns one line on where the campaign was written down."""
        return self._tracker.describe() if self._tracker is not None else ""

    def close(self, reason: str) -> None:
        """Ends the tracked run."""
        if self._tracker is None:
            return
        ends = {"finished": "finished", "finished-early": "finished", "interrupted": "killed"}
        status = ends.get(reason, "failed")
        try:
            self._tracker.finish(status)
        except Exception as error:
            self.warn(f"the tracked run could not be closed: {error}")

    def warn(self, line: str) -> None:
        """Keeps a line for the end; an empty one is none."""
        if line:
            self.warnings.append(line)
            self._note = line
            self._telemetry.noted(Level.WARNING, "warning", line)

    def _consider(self, evaluation: Evaluation) -> None:
        value = evaluation.value
        if value is None:
            return
        if self._job.config.objective.is_better(value, self._best[0] if self._best else None):
            self._best = (value, self._memory.label(evaluation.query_id))

    def _seconds_left(self, now: float) -> float | None:
        """Extrapolates the pace since the last start; later batches may take longer, so it is an estimate."""
        done = self._memory.state.spent - self._spent_before
        if self._running_since is None or done < 1:
            return None
        left = self._budgets.limits.queries - self._memory.state.spent
        return (now - self._running_since) / done * left


__all__ = ["Publisher"]
