"""The loop: propose, generate, evaluate, tell, checkpoint.

It runs wherever the runtime puts it (the driver's process, an optimizer actor) and talks to its workers
through :class:`pilotwave.execution.workers.Workers` alone. Everything is written to the ledger before it is
done or acknowledged. May import the core, but neither Ray nor any oracle.
"""

from __future__ import annotations

import functools
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

from pilotwave.archive.ledger import EventKind
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.config.components import AlgorithmSetting
from pilotwave.errors import BreakerError, PilotwaveError, RunDirectoryError, StorageError
from pilotwave.execution.accounting import Accounting
from pilotwave.execution.archiving import Archiving
from pilotwave.execution.asking import Asking
from pilotwave.execution.budgets import Budgets
from pilotwave.execution.controlling import Controls
from pilotwave.execution.generating import Generating
from pilotwave.execution.job import CampaignJob, Interrupt, Observer, Outcome, Phase
from pilotwave.execution.memory import CampaignMemory
from pilotwave.execution.publishing import Publisher
from pilotwave.execution.receipts import wait_until_quiet
from pilotwave.execution.telemetry import Level, Telemetries, Telemetry
from pilotwave.execution.workers import WorkerEvent, WorkerFacts, Workers
from pilotwave.protocols import Algorithm
from pilotwave.types import Evaluation, Status

GRACE_SECONDS = 10.0
"""How long answers in flight are waited for after an interrupt."""
QUIET_SECONDS = 60.0
"""How long a killed driver's oracle processes may take to be gone before a new driver gives up."""
TURN_SECONDS = 0.1
"""How long a turn of the loop waits for something to happen."""
DRAIN = "drain"
"""What ends a campaign whose user wanted no new proposals."""


class Coordinator:
    """Drives one campaign from where its ledger stands until its budget is spent.

    Args:
        job: What to run.
        workers: Not started yet.
        observe: Told of progress.
        interrupt: Looked at in every turn.
        clock: Seconds since the epoch; for budgets, rates and rests.
        telemetry: Told of everything that happens.
    """

    def __init__(
        self,
        job: CampaignJob,
        workers: Workers,
        observe: Observer,
        interrupt: Interrupt,
        clock: Callable[[], float] = time.time,
        telemetry: Sequence[Telemetry] = (),
    ) -> None:
        self._job = job
        self._config = job.config
        self._workers = workers
        self._interrupt = interrupt
        self._run = RunDirectory(job.run_dir)
        self._telemetry = Telemetries(telemetry, lambda line: self._publisher.warn(line))
        self._memory = CampaignMemory(self._run, job.config.objective, self._telemetry.happened)
        oracle, limits = job.config.oracle, job.config.budget.limits
        self._budgets = Budgets(self._memory.state, limits, oracle.expected_cost, job.launched, clock)
        self._accounting = Accounting(job.launched, workers.evaluators)
        self._clock = clock
        self._publisher = Publisher(job, self._memory, self._accounting, self._budgets, observe, self._telemetry)
        self._archiving = (
            None if self._config.archive is None else Archiving(self._config, self._run, self._publisher.note)
        )
        self._asking = Asking(
            job.config, self._memory, workers, self._budgets, self._archiving, self._publisher.show
        )
        self._generating = Generating(
            job.config,
            self._memory,
            workers,
            self._asking,
            self._accounting,
            clock,
            self._publisher.show,
            self._telemetry,
        )
        self._controls = Controls(self._run, self._memory, self._budgets, job.launched, self._publisher.show)
        self._algorithm: Algorithm
        self._facts: WorkerFacts
        self._outcomes: deque[bool] = deque(maxlen=self._config.failures.window)
        self._broken: PilotwaveError | None = None
        self._ended_by = ""

    def run(self) -> Outcome:
        """Runs to the end of the budget or to an interrupt.

        Raises:
            PilotwaveError: It could not start or go on; all answers are in the ledger.
        """
        reason = "failed"
        try:
            self._start()
            finished = self._loop()
            self._memory.checkpoint(self._algorithm, is_last=True)
            reason = "interrupted" if not finished else "finished-early" if self._ended_by == DRAIN else "finished"
            self._workers.close()
            self._phase("saving")
            self._publisher.save_results()
            self._publisher.save_model(self._algorithm, self._known_facts())
            self._lay_down_archive()
            return self._outcome(finished)
        except Exception as error:
            reason = "breaker" if isinstance(error, BreakerError) else "failed"
            self._telemetry.noted(Level.ERROR, reason, f"{type(error).__name__}: {error}")
            raise
        finally:
            self._workers.close()
            self._stop(reason)

    def _start(self) -> None:
        self._telemetry.opened(self._job, self._memory.state)
        self._phase("starting")
        self._publisher.open_tracker()
        if self._archiving is not None:
            self._archiving.open()
        if not wait_until_quiet(self._run.receipts, QUIET_SECONDS):
            raise RunDirectoryError(
                f"oracle processes of an earlier driver are still at work on {self._run.path} after "
                f"{QUIET_SECONDS:.0f} s; wait for them, or end them, then resume"
            )
        self._facts = facts = self._workers.start()
        known = self._known_facts()
        self._memory.check_resumable({key: known[key] for key in ("backbone", "oracle", "oracle_version")})
        setting = AlgorithmSetting(
            facts.latent_shape,
            facts.steps,
            facts.media,
            self._config.budget.batch_size,
            self._config.seed,
            conditions_are_free=facts.conditions_are_free,
            invariants=facts.invariants,
            build_backbone=functools.partial(self._config.backbone.build, self._config.runtime.device),
        )
        self._algorithm = self._config.algorithm.build(setting)
        self._memory.restore(self._algorithm)
        self._generating.restore(self._algorithm)
        state = self._memory.state
        self._asking.restore()
        if self._generating.left() or self._asking.can_go_on():
            self._phase("preflight")
            self._workers.preflight()
        self._memory.append(
            EventKind.STARTED,
            {
                "facts": {**known, "deterministic": facts.deterministic},
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "resumed": state.started is not None,
                "queries": self._budgets.limits.queries,
                "given": self._budgets.given.to_json(),
                "launched": self._job.launched,
            },
        )
        self._memory.adopt_receipts()
        self._asking.forget_settled()
        self._begin_archiving()
        self._publisher.opened(facts.unit)
        self._generating.begin(answers_are_reused=facts.deterministic)

    def _known_facts(self) -> dict[str, str]:
        facts = self._facts
        named = {"backbone": facts.backbone, "oracle": facts.oracle, "oracle_version": facts.oracle_version}
        return {**named, "unit": facts.unit}

    def _begin_archiving(self) -> None:
        if self._archiving is None:
            return
        self._archiving.begin(self._facts)
        state = self._memory.state
        if not state.proposed and not state.warm:
            self._memory.remember(self._archiving.earlier_answers())
        self._memory.tell_remembered(self._algorithm)

    def _lay_down_archive(self) -> None:
        if self._archiving is None:
            return
        self._publisher.warn(self._archiving.close())
        self._publisher.tag_archive()
        if self._is_stalled() and self._generating.left():
            self._publisher.warn(
                f"{self._memory.state.reused_in_a_row} questions in a row were answered from the archive, so "
                f"{self._generating.left()} queries were not spent; for new ones choose another seed, or raise "
                "budget.queries and resume"
            )

    def _loop(self) -> bool:
        self._phase("running")
        deadline: float | None = None
        while True:
            reused = backlog = 0
            self._obey()
            self._accounting.exist(self._workers.evaluators, self._clock())
            if self._interrupt.is_set() or self._controls.stopping:
                deadline = deadline or time.monotonic() + GRACE_SECONDS
                if not self._asking.in_flight or time.monotonic() > deadline:
                    self._tell()
                    return False
            else:
                with self._memory.together():  # all of it is on the disk before any of it is done
                    self._tell()
                    self._ended_by = self._ending()
                    if self._ended_by:
                        return True
                    if not self._memory.state.paused:
                        self._propose()
                        reused = self._asking.ask()
                        backlog = self._asking.backlog()
            self._workers.backlog(backlog)
            with self._accounting.pausing():
                events = self._workers.wait(0.0 if reused else min(TURN_SECONDS, self._seconds_until_due()))
            with self._memory.together():  # all answers are on the disk before the algorithm knows any
                for event in events:
                    self._handle(event)
            if self._broken is not None:
                raise self._broken
            asking = self._asking
            self._publisher.progress(
                len(asking.in_flight), asking.resting, self._generating.in_progress, len(asking.ready)
            )

    def _obey(self) -> None:
        before = self._budgets.limits
        self._controls.look()
        if self._budgets.limits != before:
            self._asking.reconsider()

    def _seconds_until_due(self) -> float:
        return TURN_SECONDS if self._memory.state.paused else self._asking.seconds_until_due()

    def _ending(self) -> str:
        """Returns what ends the campaign now: the budget that is spent, a drain, the archive; or nothing."""
        if self._generating.in_progress or self._asking.can_go_on():
            return ""
        if self._memory.state.draining:
            return DRAIN
        if not self._generating.left():
            return self._budgets.refusal() or "queries"
        return "archive" if self._is_stalled() else ""

    def _is_stalled(self) -> bool:
        """Says whether nothing new comes any more: a whole budget in a row was answered from the archive."""
        return self._memory.state.reused_in_a_row >= self._budgets.limits.queries

    def _propose(self) -> None:
        if self._memory.state.draining or self._is_stalled():
            return
        self._generating.propose()

    def _handle(self, event: WorkerEvent) -> None:
        """Takes note of an event; what is wrong with it ends the campaign after the others of its turn."""
        try:
            if isinstance(event, Evaluation):
                self._evaluated(event)
            else:
                self._generating.ended(event)
        except StorageError:
            raise
        except PilotwaveError as error:
            self._broken = self._broken or error

    def _evaluated(self, evaluation: Evaluation) -> None:
        query_id = evaluation.query_id
        if not self._memory.is_open(query_id):
            return  # a late twin of an answer that is known
        if evaluation.timings is not None:
            self._accounting.evaluating.append((evaluation.timings.started, evaluation.timings.finished))
        if self._asking.ended(evaluation):
            return
        if self._archiving is not None:
            self._archiving.learn(self._memory.candidates[query_id], evaluation)
        self._memory.settle(evaluation)
        self._check_breaker(evaluation)

    def _check_breaker(self, evaluation: Evaluation) -> None:
        self._outcomes.append(evaluation.status is Status.OK)
        failures = self._config.failures
        if len(self._outcomes) < min(failures.window, self._config.budget.queries):
            return
        rate = 1.0 - sum(self._outcomes) / len(self._outcomes)
        if rate > failures.maximum_rate:
            last = f"{evaluation.failure.stage}: {evaluation.failure.message}" if evaluation.failure else ""
            raise BreakerError(
                f"{rate:.0%} of the last {len(self._outcomes)} evaluations failed (failures.maximum_rate is "
                f"{failures.maximum_rate:.0%}); the last one: {last}; mend the oracle, then `pilotwave resume`"
            )

    def _tell(self) -> None:
        """Tells what may be told: whole proposals when synchronous, else every answer as it came."""
        if self._config.runtime.mode == "asynchronous":
            self._memory.tell(self._algorithm, self._memory.untold())
        state = self._memory.state
        for number in sorted(state.complete):
            self._memory.tell(self._algorithm, state.proposals[number].query_ids)
            self._publisher.batch(number)
            self._memory.checkpoint(self._algorithm)
            state.let_go(number)
            if self._archiving is not None:
                self._memory.once_written(self._archiving.wake)

    def _phase(self, phase: Phase) -> None:
        self._publisher.phase(phase)

    def _outcome(self, finished: bool) -> Outcome:
        times = self._accounting.shares()
        return Outcome(
            finished=finished,
            spent=self._memory.state.spent,
            times=times,
            tracking=self._publisher.tracking(),
            warnings=tuple(self._publisher.warnings),
            ended_by=self._ended_by,
        )

    def _stop(self, reason: str) -> None:
        """Lays the campaign down; a full disk must not hide why it ended."""
        shares = self._accounting.shares()
        record = {
            "reason": reason,
            "ended_by": self._ended_by,
            "wall": shares.wall,
            "busy": shares.busy,
            "generating": shares.generating,
            "evaluating": shares.evaluating,
        }
        try:
            if self._memory.state.started is not None:
                self._memory.append(EventKind.STOPPED, record)
        except PilotwaveError as error:
            self._publisher.note(str(error))
        finally:
            if self._archiving is not None:
                self._archiving.close()
            self._publisher.close(reason)
            self._telemetry.close(reason)
            self._memory.close()


__all__ = ["Coordinator"]
