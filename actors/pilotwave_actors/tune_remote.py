"""A study whose driver is no part of the cluster, through Ray Client: Tune runs in an actor there, and is followed.

The study's directory is used as it is if the cluster sees it. Otherwise the study lives under ``runtime.storage``
and is brought back when it ends or is interrupted; ``origin.json`` says where it lives. A client that is lost
leaves the study running; the next ``pilotwave tune --resume`` finds it at work and follows it. May import ray and
the core.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import secrets
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilotwave.archive.origin import Origin, read_origin
from pilotwave.errors import InfrastructureError, PilotwaveError, RunDirectoryError
from pilotwave.execution.job import Interrupt
from pilotwave.tuning.config import StudyConfig
from pilotwave.tuning.ledger import StudyDirectory
from pilotwave.tuning.tuner import Observer, StudyJob, StudyOutcome, StudyProgress
from pilotwave_actors.carrying import pack_folder, unpack_run
from pilotwave_actors.packaging import Plugins
from pilotwave_actors.remote_driver import near, on_head
from pilotwave_actors.roll_call import RollCall, call_the_roll

NAMESPACE = "pilotwave"
LINGER_SECONDS = 600.0
"""How long a study that has ended waits for somebody to ask how."""
LOOK_SECONDS = 0.25


class StudyDriver:
    """Drives one study on the cluster; made an actor with several threads."""

    def __init__(self, job: StudyJob) -> None:
        import ray

        self._job = job
        self._stop = threading.Event()
        self._progress: StudyProgress | None = None
        self._ended: StudyOutcome | PilotwaveError | None = None
        self._last_look = time.monotonic()
        self._itself = ray.get_runtime_context().current_actor
        threading.Thread(target=self._run_and_stay, name="study", daemon=True).start()

    def look(self) -> tuple[StudyProgress | None, StudyOutcome | PilotwaveError | None]:
        """Returns how far it is, and how it ended if it has."""
        self._last_look = time.monotonic()
        ended = self._ended
        return self._progress, ended

    def interrupt(self) -> None:
        """Asks the study to save and stop."""
        self._stop.set()

    def _run_and_stay(self) -> None:
        import ray

        self._ended = self._run()
        while time.monotonic() - self._last_look < LINGER_SECONDS:
            time.sleep(1.0)
        ray.kill(self._itself)

    def _run(self) -> StudyOutcome | PilotwaveError:
        from pilotwave_actors.tuner import drive_study

        try:
            return drive_study(self._job, Plugins(), self._observe, self._stop)
        except PilotwaveError as error:
            return error
        except Exception as error:
            traceback.print_exc()  # into the actor's log
            return InfrastructureError(f"the driver of the study failed: {type(error).__name__}: {error}")

    def _observe(self, progress: StudyProgress) -> None:
        self._progress = progress


def tune_from_outside(
    job: StudyJob, address: str, plugins: Plugins, storage: Path | None, observe: Observer, interrupt: Interrupt
) -> StudyOutcome:
    """Runs a study whose driver is no part of the cluster.

    Args:
        job: Its directory is the user's.
        address: ``ray://host:10001``.
        plugins: Travelled already.
        storage: ``runtime.storage``.
        observe: Told of progress.
        interrupt: Saves and stops when set.

    Raises:
        RunDirectoryError: The cluster does not see the folder, and there is no storage.
        InfrastructureError: The connection was lost; the study goes on.
        PilotwaveError: As the study raised it.
    """
    import ray

    home = job.study_dir
    roll = call_the_roll(address, home, plugins.names, on_head=True)
    origin = _origin(home, address, roll, storage)
    away = home if origin is None else Path(origin.run_dir)
    there = dataclasses.replace(job, study_dir=away, study=rewritten(job.study, plugins))
    try:
        driver: Any = _find_at_work(away)
        if driver is None:
            if origin is not None:
                origin.write(home)  # first: a study that nobody knows of would be lost
                on_head(_deliver, pack_folder(home), away)
            settings: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 4, "max_restarts": 0, **near(roll.node)}
            settings |= {"lifetime": "detached", "name": _name(away), "namespace": NAMESPACE}
            driver = ray.remote(StudyDriver).options(**settings).remote(there)
        try:
            return _follow(driver, observe, interrupt)
        finally:
            ray.kill(driver)
            if away != home:
                unpack_run(on_head(pack_folder, away), home)
    except ConnectionError as error:
        raise InfrastructureError(
            f"the connection to {address} was lost ({' '.join(str(error).split())[:120]}); the study goes on "
            f"there; follow it again with: pilotwave tune --resume {home} --address {address}"
        ) from error


def rewritten(study: StudyConfig, plugins: Plugins) -> StudyConfig:
    """Names the functions of ``python`` oracles by their modules, wherever a study says one."""

    def name(function: str) -> str:
        place, _, attribute = function.rpartition(":")
        if not place.endswith(".py"):
            return function
        module = plugins.name_of((study.folder / Path(place).expanduser()).resolve())
        return function if module is None else f"{module}:{attribute}"

    def walk(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                key: name(item) if key.rpartition(".")[2] == "function" and isinstance(item, str) else walk(item)
                for key, item in value.items()
            }
        return [walk(item) for item in value] if isinstance(value, list | tuple) else value

    fields = walk(copy.deepcopy(study.model_dump(exclude_none=True)))
    return StudyConfig.model_validate(fields)


def _follow(driver: Any, observe: Observer, interrupt: Interrupt) -> StudyOutcome:
    import ray
    from ray.exceptions import RayActorError

    while True:
        try:
            if interrupt.is_set():
                driver.interrupt.remote()
            progress, ended = ray.get(driver.look.remote())
        except RayActorError as error:
            raise InfrastructureError(
                f"the driver of the study died on the cluster ({' '.join(str(error).split())[:160]}); what was "
                "answered is in the ledgers: resume the study"
            ) from error
        if progress is not None:
            observe(progress)
        if isinstance(ended, PilotwaveError):
            raise ended
        if ended is not None:
            outcome: StudyOutcome = ended
            return outcome
        time.sleep(LOOK_SECONDS)


def _origin(home: Path, address: str, roll: RollCall, storage: Path | None) -> Origin | None:
    known = read_origin(home)
    if known is not None:
        return known
    if roll.sees_run_dir:
        return None
    place = storage or (Path(roll.storage) if roll.storage else None)
    if place is None:
        raise RunDirectoryError(
            f"the cluster at {address} does not see {home}; give a --study-dir on storage that it shares with this "
            "machine, or say where it keeps runs: --set runtime.storage=/a/folder/that/all/nodes/share"
        )
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", home.name)
    return Origin("client", address, str(place / f"{words}-{secrets.token_hex(4)}"))


def _find_at_work(place: Path) -> Any | None:
    """Returns the driver that a lost client left at work on a study, or None; an ended one is put away."""
    import ray
    from ray.exceptions import RayError

    try:
        driver: Any = ray.get_actor(_name(place), namespace=NAMESPACE)
        _, ended = ray.get(driver.look.remote(), timeout=60)
    except (ValueError, RayError):
        return None
    if ended is None:
        return driver
    ray.kill(driver)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            ray.get_actor(_name(place), namespace=NAMESPACE)
        except ValueError:
            break
        time.sleep(0.1)
    return None


def _deliver(data: bytes, place: Path) -> None:
    """Unpacks a study where none is yet; one that is there knows more."""
    if not StudyDirectory(place).exists():
        unpack_run(data, place)


def _name(place: Path) -> str:
    return f"study:{place}"


__all__ = ["StudyDriver", "rewritten", "tune_from_outside"]
