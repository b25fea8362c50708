"""Campaigns as Ray jobs: handed over with their plug-ins, followed, stopped, brought back; over HTTP alone.

The entry point ``ray`` of ``pilotwave.jobs``. On the cluster :mod:`pilotwave_actors.job_entry` runs. May import ray
and the core.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import pilotwave
from pilotwave.archive.origin import Origin
from pilotwave.config.campaign import CampaignConfig
from pilotwave.errors import InfrastructureError, InputError
from pilotwave.execution.jobs import JobState, JobStatus
from pilotwave_actors.authentication import MODE
from pilotwave_actors.carrying import unpack_run
from pilotwave_actors.job_entry import CAMPAIGN_FILE, STUDY_FILE, unwrap
from pilotwave_actors.packaging import Plugins
from pilotwave_actors.reachable import check_dashboard

if TYPE_CHECKING:
    from pilotwave.tuning.config import StudyConfig

STOP_SECONDS = 60
"""How long a job may take to save; Ray's own three seconds would kill it before its answers in flight are in."""
LOST_SECONDS = 120.0
"""How long a cluster may be silent before following a job is given up."""
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers that would write between a campaign's lines."""
_EXIT_CODES = (0, 2, 3, 4, 130)
_NOT_INSTALLED = "No module named 'pilotwave"


class RayJobs:
    """See :class:`pilotwave.execution.jobs.Jobs`."""

    def __init__(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._address = address.rstrip("/")
        check_dashboard(self._address)
        from ray.job_submission import JobSubmissionClient

        try:
            self._client: Any = JobSubmissionClient(self._address)
            for name in _TALKATIVE:
                logging.getLogger(name).setLevel(logging.ERROR)
        except Exception as error:
            raise InfrastructureError(f"the jobs of {address} cannot be reached: {_line(error)}") from error

    def submit(self, config: CampaignConfig, run_dir: str | None, plugins: Sequence[Path]) -> JobState:
        """Uploads the campaign and its plug-ins and begins the job."""
        travelling = Plugins.of(plugins).with_function_of(config)
        storage = str(getattr(config.runtime, "storage", None) or "")
        text = _campaign_there(travelling.rewritten(config))
        return self._hand_over(config.name, CAMPAIGN_FILE, text, run_dir, storage, travelling)

    def submit_study(self, study: StudyConfig, run_dir: str | None, plugins: Sequence[Path]) -> JobState:
        """Uploads the study and its plug-ins and begins the job."""
        from pilotwave.tuning.checks import dearest_trial
        from pilotwave.tuning.config import to_yaml
        from pilotwave_actors.tune_remote import rewritten

        travelling = Plugins.of(plugins)
        for campaign in dearest_trial(study).campaigns:
            travelling = travelling.with_function_of(campaign.config)
        runtime = dict(study.runtime or study.campaign.get("runtime") or {})
        there = {**runtime, "kind": "ray", "address": "auto", "plugins": []}
        study = rewritten(study, travelling).model_copy(update={"runtime": there})
        storage = str(runtime.get("storage") or "")
        return self._hand_over(study.name, STUDY_FILE, to_yaml(study), run_dir, storage, travelling)

    def _hand_over(
        self, name: str, file: str, text: str, run_dir: str | None, storage: str, travelling: Plugins
    ) -> JobState:
        run_dir = run_dir or f"{name}-{secrets.token_hex(4)}"
        arguments = ["run", run_dir, "--storage", storage, "--version", pilotwave.__version__]
        for plugin in travelling.names:
            arguments += ["--import", plugin]
        with tempfile.TemporaryDirectory(prefix="pilotwave-job-") as folder:
            (Path(folder) / file).write_text(text)
            # Ray's job client takes no single files, but its working directory can be imported from.
            travelling.copy_to(Path(folder))
            environment = {"working_dir": folder}
            job = self._begin(arguments, environment, {"name": name, "run_dir": run_dir, "storage": storage})
        return self.state(job)

    def state(self, job: str) -> JobState:
        """Asks where a job stands."""
        return _state(self._call(job, lambda: self._client.get_job_info(job)))

    def states(self) -> list[JobState]:
        """Asks for all jobs; those that only pack results are left out."""
        found = self._call("", self._client.list_jobs)
        ours = [item for item in found if (item.metadata or {}).get("pilotwave_run_dir") and item.submission_id]
        ours = [item for item in ours if item.metadata.get("pilotwave_work") == "run"]
        return [_state(item) for item in sorted(ours, key=lambda item: item.start_time or 0)]

    def logs(self, job: str) -> str:
        """Asks for all that it printed."""
        text: str = self._call(job, lambda: self._client.get_job_logs(job))
        return text

    def follow(self, job: str, write: Callable[[str], None]) -> JobState:
        """Follows its log; a connection that breaks is made again where it broke."""
        written = 0

        async def tail() -> None:
            nonlocal written
            seen = 0
            async for chunk in self._client.tail_job_logs(job):
                fresh = chunk[max(0, written - seen) :]
                seen += len(chunk)
                if fresh:
                    write(fresh)
                    written = max(written, seen)

        silent_since: float | None = None
        while True:
            with contextlib.suppress(Exception):  # whatever breaks, the state below says whether to go on
                asyncio.run(tail())
            try:
                state = self.state(job)
            except InfrastructureError as error:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > LOST_SECONDS:
                    raise InfrastructureError(
                        f"{error}; the job goes on there: pilotwave jobs logs {job} --follow --address "
                        f"{self._address}"
                    ) from error
                time.sleep(2.0)
                continue
            silent_since = None
            if state.exit_code is not None:
                return state
            time.sleep(1.0)

    def stop(self, job: str) -> JobState:
        """Sends SIGTERM, on which a campaign saves, and waits."""
        state = self.state(job)
        if state.exit_code is not None:
            return state
        self._call(job, lambda: self._client.stop_job(job))
        deadline = time.monotonic() + STOP_SECONDS + 30
        while state.exit_code is None:
            if time.monotonic() > deadline:
                raise InfrastructureError(f"job {job} did not stop within {STOP_SECONDS + 30} s; look at its node")
            time.sleep(0.5)
            state = self.state(job)
        return state

    def results(self, job: str, folder: Path) -> None:
        """Lets a small job print the packed run, and unpacks it here."""
        info = self._call(job, lambda: self._client.get_job_info(job))
        metadata = info.metadata or {}
        run_dir, storage = metadata.get("pilotwave_run_dir"), metadata.get("pilotwave_storage", "")
        if not run_dir:
            raise InputError(f"job {job} is no campaign of pilotwave, so it has no results")
        arguments = ["pack", run_dir, "--storage", storage]
        packing = self._begin(arguments, {}, {"run_dir": run_dir, "storage": storage})
        printed: list[str] = []
        ended = self.follow(packing, printed.append)
        text = "".join(printed)
        if ended.status != "succeeded":
            text = self.logs(packing)
            why = next((line for line in reversed(text.splitlines()) if line.startswith("error: ")), ended.message)
            raise InfrastructureError(f"the results of {job} cannot be packed: {why.removeprefix('error: ')}")
        place, data = unwrap(self.logs(packing))
        unpack_run(data, folder)
        Origin("job", self._address, place, job).write(folder)
        with contextlib.suppress(RuntimeError):
            self._client.delete_job(packing)  # its log is as large as the results

    def _begin(self, arguments: Sequence[str], environment: dict[str, Any], facts: dict[str, str]) -> str:
        # exec: the signal of a stop has to reach the campaign, not a shell in front of it.
        command = f"exec python -m pilotwave_actors.job_entry {shlex.join(arguments)}"
        variables = {
            MODE: os.environ[MODE],
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
            "PYTHONUNBUFFERED": "1",
        }
        metadata = {f"pilotwave_{key}": value for key, value in {**facts, "work": arguments[0]}.items()}
        wanted = f"pilotwave-{secrets.token_hex(6)}"
        begun: str = self._call(
            wanted,
            lambda: self._client.submit_job(
                entrypoint=command,
                submission_id=wanted,
                runtime_env={**environment, "env_vars": variables},
                metadata=metadata,
            ),
        )
        return begun

    def _call(self, job: str, question: Callable[[], Any]) -> Any:
        """Asks the cluster; whatever goes wrong becomes one line."""
        try:
            return question()
        except RuntimeError as error:
            if "404" in str(error) or "does not exist" in str(error):
                raise InputError(
                    f"there is no job {job!r} at {self._address}; pilotwave jobs list shows them"
                ) from None
            raise InfrastructureError(f"the cluster at {self._address} refused: {_line(error)}") from error
        except Exception as error:  # requests raises its own family
            raise InfrastructureError(f"the cluster at {self._address} does not answer: {_line(error)}") from error


def _campaign_there(config: CampaignConfig) -> str:
    """Writes the campaign down as it shall run there: on the job's own cluster, its plug-ins there already."""
    fields = config.model_dump(mode="json")
    fields["runtime"] |= {"kind": "ray", "address": "auto", "plugins": []}
    return yaml.safe_dump(fields, sort_keys=False)


def _state(info: Any) -> JobState:
    metadata = info.metadata or {}
    status: JobStatus = info.status.value.lower()
    message = "" if status in ("pending", "running", "succeeded") else _why(info)
    return JobState(
        job=info.submission_id or info.job_id,
        status=status,
        name=metadata.get("pilotwave_name", ""),
        run_dir=metadata.get("pilotwave_run_dir", ""),
        exit_code=_exit_code(status, info),
        message=message,
        submitted=info.start_time / 1000 if info.start_time else None,
        ended=info.end_time / 1000 if info.end_time else None,
    )


def _exit_code(status: JobStatus, info: Any) -> int | None:
    if status in ("pending", "running"):
        return None
    if status in ("succeeded", "stopped"):
        return 0 if status == "succeeded" else 130
    code: int | None = info.driver_exit_code
    return code if code in _EXIT_CODES else 4


def _why(info: Any) -> str:
    """Returns the campaign's own last word if it had one, else what Ray says."""
    message: str = info.message or ""
    if _NOT_INSTALLED in message:
        return f"pilotwave is not installed on the cluster; install version {pilotwave.__version__} there"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("error: ")]
    return (own or lines or [""])[-1].removeprefix("error: ")[:500]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


__all__ = ["RayJobs"]
