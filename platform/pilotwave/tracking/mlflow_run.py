"""One MLflow run, opened, written and closed through MLflow's client; every call may raise.

Only :class:`pilotwave.tracking.mlflow_tracker.MlflowTracker` uses it, on its own thread. MLflow's "fluent"
functions are never called: they obey ``MLFLOW_RUN_ID`` and other strays of the environment. May import
:mod:`pilotwave.tracking`; mlflow (extra ``tracking``) inside the functions.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave.tracking.mlflow_database import QUIET, database_path, prepare_database
from pilotwave.tracking.mlflow_handle import HANDLE_FILE, KEY_TAG, RunHandle
from pilotwave.tracking.mlflow_models import log_model
from pilotwave.tracking.outbox import Entry
from pilotwave.tracking.parameters import TAG_LENGTH, cut, flatten, name_of, without_password

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

THREAD_NAME = "pilotwave-mlflow"
_HTTP_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""MLflow would try for minutes; we have a retry of our own that buffers."""
_SILENT = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
"""What it prints when a run ends would land in the middle of ``--json``."""
_PARAMETERS_PER_CALL, _METRICS_PER_CALL = 100, 1000


@dataclass(frozen=True)
class RunRequest:
    """What run is wanted.

    Attributes:
        run_dir: Of the campaign; it keeps the handle by which a resumed campaign finds its run again.
        tracking_uri: Of the database or server.
        experiment: Its name.
        run_name: The run's.
        parameters: The resolved campaign.
        tags: For the run.
    """

    run_dir: Path
    tracking_uri: str
    experiment: str
    run_name: str
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]


class MlflowRun:
    """An open run; see :meth:`open`."""

    def __init__(self, client: MlflowClient, handle: RunHandle) -> None:
        self._client = client
        self.handle = handle

    @classmethod
    def open(cls, request: RunRequest) -> MlflowRun:
        """Opens the campaign's run, the one it had before if there is one.

        Raises:
            Exception: Whatever MLflow, the disk or the network raises; calling again later is safe.
        """
        database = database_path(request.tracking_uri)
        if database is not None:
            prepare_database(database)
        client = open_client(request.tracking_uri)
        handle = _read_handle(request)
        if handle.experiment_id is None:
            handle = replace(handle, experiment_id=_experiment(client, request.experiment, database))
        _write_handle(request.run_dir, handle)
        if handle.run_id is None:
            handle = replace(handle, run_id=_make_run(client, handle, request))
            _write_handle(request.run_dir, handle)
        run = cls(client, handle)
        client.update_run(run.run_id, status="RUNNING")
        run._describe_campaign(request)
        return run

    @property
    def run_id(self) -> str:
        """MLflow's."""
        assert self.handle.run_id is not None  # open() made it
        return self.handle.run_id

    def write_metrics(self, entries: Sequence[Entry]) -> None:
        """Writes metrics in as few calls as can be; writing the same ones again changes nothing."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name_of(name), float(value), entry["time"], entry["step"])
            for entry in entries
            for name, value in entry["metrics"].items()
        ]
        for start in range(0, len(metrics), _METRICS_PER_CALL):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + _METRICS_PER_CALL])

    def write_artifact(self, path: str) -> None:
        """Copies a file to the run."""
        self._client.log_artifact(self.run_id, path)

    def write_model(self, folder: str, step: int) -> None:
        """Logs a folder of learned guidance as a model of the run; the same one again changes nothing.

        A model that a kill left half uploaded is deleted first.

        Raises:
            FileNotFoundError: There is no model in the folder.
        """
        log_model(self._client, self.handle, Path(folder), step)

    def write_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the run."""
        for key, value in tags.items():
            self._client.set_tag(self.run_id, name_of(key), cut(value, TAG_LENGTH))

    def started(self) -> float:
        """Returns when the run was made, in seconds since the epoch."""
        return float(self._client.get_run(self.run_id).info.start_time) / 1000

    def close(self, status: str) -> None:
        """Ends the run with one of MLflow's words."""
        self._client.set_terminated(self.run_id, status=status)

    def _describe_campaign(self, request: RunRequest) -> None:
        """Writes parameters and tags; a parameter that a resumed campaign changed becomes a tag."""
        from mlflow.entities import Param, RunTag

        known = self._client.get_run(self.run_id).data.params
        wanted = {key: without_password(value) for key, value in flatten(request.parameters).items()}
        tags = {f"changed.{key}": value for key, value in wanted.items() if known.get(key, value) != value}
        tags |= request.tags
        parameters = [Param(key, value) for key, value in wanted.items() if key not in known]
        run_tags = [RunTag(name_of(key), cut(value, TAG_LENGTH)) for key, value in tags.items()]
        for start in range(0, len(parameters), _PARAMETERS_PER_CALL):
            self._client.log_batch(self.run_id, params=parameters[start : start + _PARAMETERS_PER_CALL])
        for start in range(0, len(run_tags), _PARAMETERS_PER_CALL):
            self._client.log_batch(self.run_id, tags=run_tags[start : start + _PARAMETERS_PER_CALL])


def is_refused(error: Exception) -> bool:
    """Says whether MLflow refuses what it was given, so that giving it again is of no use."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return True
    return getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE"


def open_client(tracking_uri: str) -> MlflowClient:
    """Returns MLflow's client for a database or server, which gives up on a silent server after seconds."""
    for key, value in {**QUIET, **_HTTP_LIMITS, **_SILENT}.items():
        os.environ.setdefault(key, value)
    from mlflow.tracking import MlflowClient

    _silence()
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def _silence() -> None:
    """Keeps MLflow's own lines about our thread off the terminal: what fails is said once, by us."""
    for name in ("mlflow", "alembic"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_is_not_of_our_thread)


def _is_not_of_our_thread(record: logging.LogRecord) -> bool:
    return record.threadName != THREAD_NAME or not record.name.startswith(("mlflow", "alembic"))


def _experiment(client: MlflowClient, name: str, database: Path | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # Beside a database of ours; a server has a place of its own.
    artifacts = None if database is None else (database.parent / "mlartifacts" / uuid.uuid4().hex[:8]).as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=artifacts))
    except MlflowException:
        found = client.get_experiment_by_name(name)  # another campaign was faster
        if found is None:
            raise
        return str(found.experiment_id)


def _make_run(client: MlflowClient, handle: RunHandle, request: RunRequest) -> str:
    assert handle.experiment_id is not None  # open() looked it up
    made_before = client.search_runs([handle.experiment_id], f"tags.`{KEY_TAG}` = '{handle.key}'", max_results=1)
    if made_before:
        return str(made_before[0].info.run_id)
    made = client.create_run(handle.experiment_id, run_name=request.run_name, tags={KEY_TAG: handle.key})
    return str(made.info.run_id)


def _read_handle(request: RunRequest) -> RunHandle:
    try:
        fields = json.loads((request.run_dir / HANDLE_FILE).read_text(encoding="utf-8"))
        handle = RunHandle(**{key: fields[key] for key in ("tracking_uri", "key", "experiment_id", "run_id")})
    except (OSError, ValueError, KeyError, TypeError):
        handle = None
    if handle is not None and handle.tracking_uri == request.tracking_uri:
        return handle
    return RunHandle(request.tracking_uri, uuid.uuid4().hex)


def _write_handle(run_dir: Path, handle: RunHandle) -> None:
    """Writes the handle down; in a directory that cannot be written a resumed campaign starts a new run."""
    temporary = run_dir / f".{HANDLE_FILE}.{os.getpid()}.tmp"
    try:
        temporary.write_text(json.dumps(handle.__dict__, indent=2) + "\n", encoding="utf-8")
        temporary.replace(run_dir / HANDLE_FILE)
    except OSError:
        return


__all__ = [
    "HANDLE_FILE",
    "KEY_TAG",
    "THREAD_NAME",
    "MlflowRun",
    "RunHandle",
    "RunRequest",
    "is_refused",
    "open_client",
]
