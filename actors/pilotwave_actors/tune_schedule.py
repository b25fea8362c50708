"""Schedulers: Tune's, told only of comparisons at equal questions, and deciding through our own way of stopping.

A trial that shall stop is told so and ends by itself, with everything saved and counted; Tune never pulls it away.
May import ray and the core.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.schedulers import TrialScheduler
from ray.tune.search.searcher import Searcher

from pilotwave.errors import InputError, PilotwaveError
from pilotwave.tuning.config import StudyConfig
from pilotwave.tuning.coordinator import Answer, StudyCoordinator, Suggesting
from pilotwave.tuning.plans import every_of
from pilotwave.tuning.space import Point
from pilotwave.tuning.standing import Standing
from pilotwave_actors.tune_search import load_class
from pilotwave_actors.tune_trial import LOSS, PLAN, QUERIES, SPENT, STANDING, STUDY_DIR, TRIAL, Sent

KINDS = ("asha", "median", "none")
REPLAYED = ("AsyncHyperBandScheduler", "MedianStoppingRule")
"""Schedulers that only look at results, so that a fresh one can be shown those of before."""


def open_scheduler(study: StudyConfig, queries: int) -> TrialScheduler:
    """Returns the scheduler of a study.

    Args:
        study: Which.
        queries: The most that a campaign may ask.

    Raises:
        InputError: It is unknown, or does not take its options.
    """
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule

    chosen = study.scheduler
    grace = chosen.grace or every_of(study)
    common = {"time_attr": QUERIES, "metric": LOSS, "mode": "min"}
    try:
        match chosen.kind:
            case "none":
                return FIFOScheduler()  # type: ignore[no-untyped-call]
            case "asha":
                halving = {"max_t": queries, "grace_period": grace, "reduction_factor": chosen.reduction_factor}
                return AsyncHyperBandScheduler(**{**common, **halving, **chosen.options})
            case "median":
                return MedianStoppingRule(**{**common, "grace_period": grace, **chosen.options})
        found = load_class(chosen, "scheduler", KINDS)
        accepted = inspect.signature(found.__init__).parameters
        known = {**common, "max_t": queries, "reduction_factor": chosen.reduction_factor, "grace_period": grace}
        given = {name: value for name, value in known.items() if name in accepted}
        return found(**{**given, **chosen.options})  # type: ignore[no-any-return]
    except (TypeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"scheduler {chosen.kind} does not take these options: {reason}") from error


class _Kept:
    """Tune writes what it is given to disk; ours stays where it is, since a new driver begins from the ledger."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


def _nothing() -> None:
    return None


class StudySearch(_Kept, Searcher):
    """Asks the study for the next trial; the study asks the searcher where a new point is due.

    Args:
        coordinator: The study.
        searcher: Of new points.
        study_dir: As the trials see it.
        sendable: Turns a plan into what a worker can use.
    """

    def __init__(self, coordinator: StudyCoordinator, searcher: Suggesting, study_dir: str, sendable: Any) -> None:
        super().__init__(metric=LOSS, mode="min")
        self._coordinator = coordinator
        self._searcher = searcher
        self._study_dir = study_dir
        self._sendable = sendable

    def suggest(self, trial_id: str) -> Any:
        """Returns what a trial is given."""
        try:
            found = self._coordinator.next_trial(self._searcher)
        except PilotwaveError as error:
            self._coordinator.failure = error
            found = Answer.OVER
        if found is Answer.OVER and not self._coordinator.is_busy:
            return Searcher.FINISHED
        if isinstance(found, Answer):  # a trial that is at work may be lost, and then has to be begun again
            return None
        return {TRIAL: found.number, PLAN: Sent(self._sendable(found)), STUDY_DIR: self._study_dir}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The searcher is told by the scheduler, which knows how the trial ended."""

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: the study's ledger has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing: a new driver goes through the study's ledger."""


class _Replayed:
    """Stands for a trial of an earlier driver."""

    def __init__(self, number: int) -> None:
        self.trial_id = f"replayed-{number}"
        self.status = "TERMINATED"


class StudyScheduler(_Kept, TrialScheduler):
    """Passes comparisons on to a scheduler, and what it decides to the study.

    Args:
        coordinator: The study.
        searcher: Told how trials end.
        inner: Decides.
    """

    def __init__(self, coordinator: StudyCoordinator, searcher: Suggesting, inner: TrialScheduler) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._coordinator = coordinator
        self._searcher = searcher
        self._inner: Any = inner
        self._stopping: set[str] = set()

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Lets a scheduler that does not know yet know what is minimised."""
        self._inner.set_search_properties(LOSS, "min", **spec)
        return True

    def replay(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Shows the scheduler the comparisons of trials that have ended, in order."""
        if type(self._inner).__name__ not in REPLAYED:
            return
        ended = {event["trial"] for event in events if event["kind"] == "ended"}
        stand_ins: dict[int, Any] = {}
        for event in events:
            number = event["trial"]
            if number not in ended:
                continue
            if number not in stand_ins:
                stand_ins[number] = _Replayed(number)
                self._inner.on_trial_add(None, stand_ins[number])
            if event["kind"] == "stood":
                result = {QUERIES: event["standing"]["queries"], LOSS: event["standing"]["loss"]}
                self._inner.on_trial_result(None, stand_ins[number], result)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._inner.on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._inner.on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Takes down a sign of life or a comparison; Tune itself is never told to stop a trial."""
        number = int(result[TRIAL])
        standing = result.get(STANDING)
        try:
            if standing is None:
                self._coordinator.heartbeat(number, int(result[SPENT]))
                return str(TrialScheduler.CONTINUE)
            self._coordinator.stood(standing)
        except PilotwaveError as error:
            self._coordinator.failure = error
            return str(TrialScheduler.CONTINUE)
        if trial.trial_id in self._stopping:
            return str(TrialScheduler.CONTINUE)
        decision = str(self._inner.on_trial_result(tune_controller, trial, result))
        if decision == TrialScheduler.STOP:
            self._stopping.add(trial.trial_id)
            self._coordinator.stop_trial(number, "stopped")
            return str(TrialScheduler.CONTINUE)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Takes down how a trial ended."""
        standing: Standing | None = result.get(STANDING)
        if standing is None or not standing.over:
            return
        try:
            self._coordinator.ended(standing)
        except PilotwaveError as error:
            self._coordinator.failure = error
        if standing.over in ("finished", "stopped", "failed"):
            point: Point = self._coordinator.ledger.trials[standing.trial].point
            self._searcher.tell(standing.trial, point, None if standing.over == "failed" else standing.loss)
        self._inner.on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._inner.on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        return self._inner.choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        return str(self._inner.debug_string())


class StudyCallback(_Kept, Callback):
    """Looks after the study in every turn of Tune's loop.

    Args:
        coordinator: The study.
    """

    def __init__(self, coordinator: StudyCoordinator) -> None:
        self._coordinator = coordinator

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Obeys an interrupt."""
        self._coordinator.look()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Takes a trial up again whose actor was lost."""
        why = next(
            (line.strip() for line in reversed((trial.error_msg or "lost").splitlines()) if line.strip()), ""
        )
        try:
            self._coordinator.lost(int(trial.config[TRIAL]), why)
        except PilotwaveError as error:
            self._coordinator.failure = error


__all__ = ["KINDS", "StudyCallback", "StudyScheduler", "StudySearch", "open_scheduler"]
