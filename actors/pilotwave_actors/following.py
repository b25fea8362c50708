"""A driver that follows an optimizer actor: launch it or find it at work, look on, stop it, see it end.

May import ray and the core.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pilotwave.errors import InfrastructureError, PilotwaveError
from pilotwave.execution.job import CampaignJob, Interrupt, Observer, Outcome
from pilotwave_actors.cluster import LIVES, ClusterLostError, private_cluster_died
from pilotwave_actors.optimizer import Look, Optimizer

RESTARTS = 100
"""How often Ray makes it again at most: what ends one that dies again and again while nobody looks on."""
NAMESPACE = "pilotwave"
"""Where optimizers that outlive their driver are found again."""
LOOK_SECONDS = 0.25
GONE_SECONDS = 30.0
"""An optimizer that has answered nothing but death for so long is not coming back."""
MISSING_SECONDS = 180.0
"""How long one may take to be made again on another node."""


def launch(
    job: CampaignJob,
    arguments: tuple[Any, ...],
    options: Mapping[str, Any],
    *,
    outlives_driver: bool,
) -> Any:
    """Makes an optimizer, which begins at once.

    Args:
        job: What to run.
        arguments: Its others, see :class:`pilotwave_actors.optimizer.Optimizer`.
        options: Of the actor, e.g. where it is placed.
        outlives_driver: Whether the campaign goes on when its driver is lost.
    """
    import ray

    settings: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 4, "max_task_retries": 0, **options}
    settings["max_restarts"] = RESTARTS
    if outlives_driver:
        settings |= {"lifetime": "detached", "name": _name(job), "namespace": NAMESPACE}
    return ray.remote(Optimizer).options(**settings).remote(job, *arguments)


def find_at_work(job: CampaignJob) -> Any | None:
    """Returns the optimizer that a lost driver left at work on this run, or None; an ended one is put away."""
    import ray
    from ray.exceptions import RayError

    try:
        optimizer: Any = ray.get_actor(_name(job), namespace=NAMESPACE)
        look: Look = ray.get(optimizer.look.remote(), timeout=MISSING_SECONDS)
    except (ValueError, RayError):
        return None
    if look.ended is None:
        return optimizer
    ray.kill(optimizer)
    _wait_until_gone(job)
    return None


def follow(optimizer: Any, observe: Observer, interrupt: Interrupt) -> Outcome:
    """Looks on until the campaign ends.

    Raises:
        ClusterLostError: The private cluster of this process is gone.
        InfrastructureError: The optimizer is gone for good.
        PilotwaveError: As the loop raised it.
        ConnectionError: The cluster cannot be reached any more.
    """
    import ray
    from ray.exceptions import ActorDiedError, RayActorError

    silent_since: float | None = None
    deaths, ended = 0, -1  # deaths in a row, and how many queries had ended before them
    while True:
        try:
            if interrupt.is_set():
                optimizer.interrupt.remote()  # again and again: one that was made anew has not heard it
            look: Look = ray.get(optimizer.look.remote())
        except RayActorError as error:
            if private_cluster_died():
                raise ClusterLostError("the private Ray cluster died; all answers are in the ledger") from error
            deaths += silent_since is None
            silent_since = silent_since or time.monotonic()
            patience = GONE_SECONDS if isinstance(error, ActorDiedError) else MISSING_SECONDS
            if deaths >= LIVES or time.monotonic() - silent_since > patience:
                ray.kill(optimizer)
                raise InfrastructureError(
                    f"the optimizer actor died {LIVES} times in a row or is not coming back "
                    f"({_first_line(error)}); all answers are in the ledger: mend the cluster, then "
                    "`pilotwave resume`"
                ) from error
            time.sleep(LOOK_SECONDS)
            continue
        silent_since = None
        if look.progress is not None:
            now = look.progress.ended
            if now > ended:
                deaths, ended = 0, now
            observe(look.progress)  # also the last one, so that the count that is shown is whole
        if isinstance(look.ended, PilotwaveError):
            raise look.ended
        if look.ended is not None:
            return look.ended
        time.sleep(LOOK_SECONDS)


def _name(job: CampaignJob) -> str:
    return f"optimizer:{job.run_dir}"


def _wait_until_gone(job: CampaignJob) -> None:
    """Lets the name become free: a killed actor keeps it for a moment."""
    import ray

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            ray.get_actor(_name(job), namespace=NAMESPACE)
        except ValueError:
            return
        time.sleep(0.1)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


__all__ = ["find_at_work", "follow", "launch"]
