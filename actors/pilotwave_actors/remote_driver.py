"""A driver outside the cluster, through Ray Client: where the run lives, and how it comes home.

The run directory is used as it is if the cluster sees it. Otherwise the run lives under ``runtime.storage``, a
folder that all nodes share, and is brought back into the user's folder when the campaign ends or is interrupted;
``origin.json`` there says where it lives. A client that is lost leaves the campaign running; the next ``resume``
finds it at work and follows it. May import ray and the core.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave.archive.origin import FILE, Origin, read_origin
from pilotwave.errors import InfrastructureError, PilotwaveError, RunDirectoryError
from pilotwave.execution.job import CampaignJob, Interrupt, Observer, Outcome, Progress
from pilotwave_actors.carrying import deliver_run, discard_unused_run, pack_run, unpack_run
from pilotwave_actors.following import find_at_work, follow, launch
from pilotwave_actors.packaging import Plugins
from pilotwave_actors.roll_call import HEAD, RollCall

if TYPE_CHECKING:
    from pilotwave_actors.runtime import RayRuntime


def drive_from_outside(
    runtime: RayRuntime, job: CampaignJob, address: str, plugins: Plugins, observe: Observer, interrupt: Interrupt
) -> Outcome:
    """Runs a job whose driver is no part of the cluster.

    Args:
        runtime: Checks the cluster, and says what an optimizer is told.
        job: Its run directory is the user's folder.
        address: ``ray://host:10001``.
        plugins: Travelled already.
        observe: Told of progress.
        interrupt: Saves and stops when set.

    Raises:
        RunDirectoryError: The cluster does not see the folder, and there is no storage.
        InfrastructureError: The connection was lost; the campaign goes on.
        PilotwaveError: As the loop raised it.
    """
    home = job.run_dir
    roll = runtime.check_cluster(job, address, plugins, on_head=True)
    origin = _origin(runtime, home, address, roll)
    if origin is not None:
        job = dataclasses.replace(job, run_dir=Path(origin.run_dir))
    try:
        optimizer = find_at_work(job)
        if optimizer is not None:
            note = f"the campaign is at work on {address} already; it is followed as it is"
            observe(Progress("running", job.config.budget.queries, note=note))
        else:
            runtime.check_capacity(observe, job)
            if origin is not None:
                origin.write(home)  # first: a run that nobody knows of would be lost
                on_head(deliver_run, pack_run(home), job.run_dir)
            optimizer = launch(job, runtime.optimizer_arguments(), near(roll.node), outlives_driver=True)
        outcome = _follow_home(optimizer, observe, interrupt, home, job.run_dir)
    except ConnectionError as error:
        raise InfrastructureError(
            f"the connection to {address} was lost ({' '.join(str(error).split())[:120]}); the campaign goes on "
            f"there; follow it again with: pilotwave resume {home}"
        ) from error
    return outcome


def _follow_home(optimizer: Any, observe: Observer, interrupt: Interrupt, home: Path, away: Path) -> Outcome:
    """Follows, then brings the run back, however it ended."""
    import ray

    try:
        outcome = follow(optimizer, observe, interrupt)
    except PilotwaveError as error:
        ray.kill(optimizer)
        _bring_back(home, away, error)
        if home != away and on_head(discard_unused_run, away):
            (home / FILE).unlink(missing_ok=True)  # nothing was asked: the user can mend and repeat
        raise
    ray.kill(optimizer)
    _bring_back(home, away, None)
    return outcome


def _origin(runtime: RayRuntime, home: Path, address: str, roll: RollCall) -> Origin | None:
    """Says where the run lives, or shall live, if that is not the user's folder."""
    known = read_origin(home)
    if known is not None:
        if known.way != "client":
            raise RunDirectoryError(
                f"{home} is a copy of {known.run_dir} at {known.address}, where a job runs it: go on with: "
                f"{known.how_to_go_on(home)}"
            )
        return known
    if roll.sees_run_dir:
        return None
    storage = runtime.config.storage or (Path(roll.storage) if roll.storage else None)
    if storage is None:
        raise RunDirectoryError(
            f"the cluster at {address} does not see {home}; give a --run-dir on storage that it shares with this "
            "machine, or say where it keeps runs: --set runtime.storage=/a/folder/that/all/nodes/share"
        )
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", home.name)
    return Origin("client", address, str(storage / f"{words}-{secrets.token_hex(4)}"))


def _bring_back(home: Path, away: Path, why: PilotwaveError | None) -> None:
    if home == away:
        return
    try:
        unpack_run(on_head(pack_run, away), home)
    except (PilotwaveError, ConnectionError) as error:
        reason = f"{why}; and " if why is not None else ""
        raise InfrastructureError(
            f"{reason}the run could not be brought back from {away} ({error}); it is whole there: "
            f"pilotwave resume {home}"
        ) from error


def on_head(function: Any, *arguments: Any) -> Any:
    """Calls a function there; the storage is shared, so any node would do, and the head is always there."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(ray.remote(function).options(num_cpus=0, resources=HEAD).remote(*arguments))
    except RayTaskError as error:
        if isinstance(error.cause, PilotwaveError):
            raise error.cause from None
        raise InfrastructureError(f"the cluster failed: {' '.join(str(error.cause).split())[:200]}") from error
    except RayError as error:
        raise InfrastructureError(f"the cluster failed: {' '.join(str(error).split())[:200]}") from error


def near(node: str) -> dict[str, Any]:
    """Prefers the head: when that dies everything does, so an optimizer there never dies alone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=True)}


__all__ = ["drive_from_outside", "near", "on_head"]
