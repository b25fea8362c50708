"""Studies on Ray Tune; the entry point ``ray`` of ``pilotwave.tuners``.

Tune runs the trials and calls the searcher and the scheduler; what was suggested, compared and decided is in the
study's own ledger, from which another driver builds both again. May import ray and the core.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pilotwave.errors import InfrastructureError, InputError, PilotwaveError
from pilotwave_actors.authentication import say_mode
from pilotwave_actors.cluster import connected, has_autoscaler, nodes_in_words, through_client
from pilotwave_actors.packaging import Plugins
from pilotwave_actors.roll_call import call_the_roll
from pilotwave_actors.runtime import RayRuntime, RayRuntimeConfig

if TYPE_CHECKING:
    from pilotwave.config.campaign import CampaignConfig
    from pilotwave.execution.job import Interrupt
    from pilotwave.tuning.config import StudyConfig
    from pilotwave.tuning.coordinator import StudyCoordinator
    from pilotwave.tuning.plans import TrialPlan
    from pilotwave.tuning.tuner import Observer, StudyJob, StudyOutcome

WORKSPACE = ".tune"
"""Where Tune keeps what it needs while it runs; nothing in it is read again."""
TRIAL_CPU = 0.001
"""What a trial's own actor occupies where its campaigns are actors of their own."""
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a sign of life has no loss
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the study's own saves
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the study's ledger is what is kept
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
_TALKATIVE = ("ray.tune", "ray.train", "ray.air")


class RayTuner:
    """See :class:`pilotwave.tuning.tuner.Tuner`."""

    def __init__(self) -> None:
        if importlib.util.find_spec("ray") is None:  # said at once; importing it would settle its mode
            raise ImportError("ray is not installed")

    def check(self, study: StudyConfig) -> None:
        """Builds searcher and scheduler once."""
        from pilotwave.tuning.checks import dearest_trial

        dearest = dearest_trial(study)
        say_mode(_address(dearest))  # before anything imports Ray
        from pilotwave_actors.tune_schedule import open_scheduler
        from pilotwave_actors.tune_search import open_searcher

        open_searcher(study)
        open_scheduler(study, dearest.queries)

    def run(self, job: StudyJob, observe: Observer, interrupt: Interrupt) -> StudyOutcome:
        """Connects as a campaign does, and drives the study.

        Raises:
            PilotwaveError: See :class:`pilotwave.tuning.tuner.Tuner`.
        """
        from pilotwave.tuning.checks import dearest_trial

        dearest = dearest_trial(job.study)
        runtime = dearest.campaigns[0].config.runtime
        address = _address(dearest)
        plugins = Plugins.of(runtime.plugins if isinstance(runtime, RayRuntimeConfig) else ())
        if address.startswith("ray://"):
            for campaign in dearest.campaigns:
                plugins = plugins.with_function_of(campaign.config)
        with connected(address, _logical_cpus(job.study, dearest), plugins) as where:
            if through_client():
                from pilotwave_actors.tune_remote import tune_from_outside

                storage = runtime.storage if isinstance(runtime, RayRuntimeConfig) else None
                return tune_from_outside(job, where, plugins, storage, observe, interrupt)
            if where != "local":
                call_the_roll(where, job.study_dir, plugins.names, on_head=False)
            return drive_study(job, plugins, observe, interrupt)


def _address(plan: TrialPlan) -> str:
    runtime = plan.campaigns[0].config.runtime
    return runtime.address if isinstance(runtime, RayRuntimeConfig) else "local"


def drive_study(job: StudyJob, plugins: Plugins, observe: Observer, interrupt: Interrupt) -> StudyOutcome:
    """Drives a study from within the cluster.

    Args:
        job: What to run; its directory is seen by all nodes that trials run on.
        plugins: Importable on every worker.
        observe: Told of progress.
        interrupt: Saves and stops when set.

    Raises:
        PilotwaveError: It could not start or go on.
    """
    from pilotwave.tuning.checks import dearest_trial
    from pilotwave.tuning.coordinator import StudyCoordinator

    dearest = dearest_trial(job.study)
    concurrent, note = _concurrent(job.study, dearest)
    coordinator = StudyCoordinator(job, observe, interrupt, concurrent)
    try:
        if note:
            coordinator.note(note)
        coordinator.open()
        if coordinator.has_work:
            _preflight([plugins.rewritten(campaign.config) for campaign in dearest.campaigns])
            _fit(job, coordinator, dearest, plugins)
    except PilotwaveError as error:
        coordinator.failure = coordinator.failure or error
    return coordinator.close()


def sendable(job: StudyJob, plugins: Plugins) -> Callable[[TrialPlan], TrialPlan]:
    """Returns what turns a plan into one for a worker, which is connected and knows plug-ins by name.

    All campaigns of the study share what they can share.
    """
    share = f"{job.study.name}-{hashlib.sha256(str(job.study_dir).encode()).hexdigest()[:8]}"

    def send(plan: TrialPlan) -> TrialPlan:
        campaigns = []
        for campaign in plan.campaigns:
            config = plugins.rewritten(campaign.config)
            if isinstance(config.runtime, RayRuntimeConfig):
                changes: dict[str, Any] = {"address": "local", "plugins": ()}
                if config.runtime.share is None:
                    changes["share"] = share
                config = config.model_copy(update={"runtime": config.runtime.model_copy(update=changes)})
            campaigns.append(dataclasses.replace(campaign, config=config))
        return dataclasses.replace(plan, campaigns=tuple(campaigns))

    return send


def _fit(job: StudyJob, coordinator: StudyCoordinator, dearest: TrialPlan, plugins: Plugins) -> None:
    from ray import tune

    from pilotwave_actors.tune_schedule import StudyCallback, StudyScheduler, StudySearch, open_scheduler
    from pilotwave_actors.tune_search import open_searcher
    from pilotwave_actors.tune_trial import StudyTrial

    searcher = open_searcher(job.study)
    scheduler = StudyScheduler(coordinator, searcher, open_scheduler(job.study, dearest.queries))
    searcher.replay(coordinator.ledger.events)
    scheduler.replay(coordinator.ledger.events)
    workspace = coordinator.directory.path / WORKSPACE
    search = StudySearch(coordinator, searcher, str(coordinator.directory.path), sendable(job, plugins))
    with _settings(coordinator.concurrent):
        shutil.rmtree(workspace, ignore_errors=True)
        tuner = tune.Tuner(
            tune.with_resources(StudyTrial, {"CPU": _trial_cpus(dearest)}),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=scheduler,
                num_samples=-1,
                trial_name_creator=_name_of,
                trial_dirname_creator=_name_of,
            ),
            run_config=tune.RunConfig(
                name="trials", storage_path=str(workspace), callbacks=[StudyCallback(coordinator)], verbose=0
            ),
        )
        try:
            tuner.fit()
        except PilotwaveError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise InfrastructureError(
                f"Ray Tune failed: {reason}; what was answered is in the ledgers: resume the study"
            ) from error
        finally:
            shutil.rmtree(workspace, ignore_errors=True)


def _name_of(trial: Any) -> str:
    return f"trial-{trial.config['trial']:04d}"


def _preflight(configs: Sequence[CampaignConfig]) -> None:
    """Loads each model and asks each oracle its known question once, on a worker; nothing is paid for."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    distinct: dict[str, CampaignConfig] = {}
    for config in configs:
        key = config.model_dump_json(include={"backbone", "oracle", "constraints"})
        distinct.setdefault(key, config)
    task = ray.remote(_preflight_there).options(num_cpus=0, max_retries=1)
    try:
        ray.get([task.remote(config) for config in distinct.values()])
    except RayTaskError as error:
        if isinstance(error.cause, PilotwaveError):
            raise error.cause from None
        raise InputError(f"the preflight failed: {' '.join(str(error.cause).split())[:300]}") from error
    except RayError as error:
        raise InfrastructureError(f"the preflight failed: {' '.join(str(error).split())[:300]}") from error


def _preflight_there(config: CampaignConfig) -> None:
    from pilotwave.campaign import Campaign

    Campaign(config).preflight()


def _trial_cpus(plan: TrialPlan) -> float:
    """A trial's actor needs nothing where its campaigns are actors; with the inline runtime it is all of them."""
    inline = [
        each.config.runtime for each in plan.campaigns if not isinstance(each.config.runtime, RayRuntimeConfig)
    ]
    return float(sum(runtime.evaluators + runtime.generator_threads for runtime in inline)) or TRIAL_CPU


def _demands(study: StudyConfig, plan: TrialPlan, count: int) -> list[Any]:
    """Returns what so many trials occupy: campaigns with equal oracles or backbones share them."""
    from pilotwave_actors.capacity import Demand

    found: dict[tuple[str, str], Any] = {}
    for campaign in plan.campaigns:
        runtime = campaign.config.runtime
        if isinstance(runtime, RayRuntimeConfig):
            for each in RayRuntime(runtime).demands():
                sections = {"oracle"} if each.what == "an evaluator" else {"backbone", "constraints"}
                key = campaign.config.model_dump_json(include=sections)
                found[each.what, key] = dataclasses.replace(
                    each, count=each.count * _copies(study, sections, count)
                )
    trial = Demand("a trial", "runtime.evaluators", count, {"CPU": _trial_cpus(plan)})
    return [trial, *found.values()]


def _copies(study: StudyConfig, sections: set[str], trials: int) -> int:
    """All trials share what the search leaves alone; where it does not, each may have its own."""
    return trials if any(name.partition(".")[0] in sections for name in study.search) else 1


def _concurrent(study: StudyConfig, plan: TrialPlan) -> tuple[int, str]:
    """Returns how many trials fit at once with all their actors, and what to say if that is fewer than wanted.

    Raises:
        InputError: Not even one fits, and no node will come.
    """
    import ray

    from pilotwave_actors.capacity import check_capacity

    nodes = nodes_in_words(ray.nodes())  # type: ignore[no-untyped-call]
    runtime = plan.campaigns[0].config.runtime
    grows = runtime.autoscaling if isinstance(runtime, RayRuntimeConfig) else None
    if has_autoscaler() if grows is None else grows:
        return study.concurrent_trials, ""
    for count in range(study.concurrent_trials, 1, -1):
        try:
            check_capacity(_demands(study, plan, count), nodes, grows=False)
        except InputError:
            continue
        short = f"{count} of {study.concurrent_trials} trials fit into the cluster at once"
        return count, "" if count == study.concurrent_trials else short
    check_capacity(_demands(study, plan, 1), nodes, grows=False)
    wanted = study.concurrent_trials
    return 1, "" if wanted == 1 else f"1 of {wanted} trials fits into the cluster at once"


def _logical_cpus(study: StudyConfig, plan: TrialPlan) -> int:
    """Enough for every actor at once; on a small machine they share the cores in turn."""
    needed = 0.0
    for campaign in plan.campaigns:
        runtime = campaign.config.runtime
        resources = runtime.evaluator_resources if isinstance(runtime, RayRuntimeConfig) else {}
        generators = getattr(runtime, "generators", 1) * runtime.generator_threads
        needed += runtime.evaluators * resources.get("CPU", 1.0) + generators
    # Twice: workers that a trial has shared stay for a minute when it has ended.
    return max(os.cpu_count() or 1, int(2 * needed * study.concurrent_trials) + 2)


@contextmanager
def _settings(concurrent: int) -> Iterator[None]:
    """Says to Tune what is its own business, for as long as it runs."""
    wanted = {**SETTINGS, "TUNE_MAX_PENDING_TRIALS_PG": str(concurrent)}
    before = {name: os.environ.get(name) for name in wanted}
    levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
    os.environ.update(wanted)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


__all__ = ["RayTuner", "drive_study", "sendable"]
