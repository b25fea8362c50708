"""Taking something out of a run on an MLflow server: it is logged again without, and the old one is deleted.

May import :mod:`pilotwave.tracking` and :mod:`pilotwave.storage`; mlflow (extra ``tracking``) inside functions.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave.errors import InfrastructureError, MissingDependencyError
from pilotwave.storage import write_atomically
from pilotwave.tracking.mlflow_handle import HANDLE_FILE, KEY_TAG, RunHandle
from pilotwave.tracking.mlflow_model_rows import MODEL_TAG
from pilotwave.tracking.mlflow_models import delete_model, run_models
from pilotwave.tracking.mlflow_run import open_client
from pilotwave.tracking.tracked_values import MetricChange, MetricRow

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_PARAMETERS_PER_CALL, _METRICS_PER_CALL = 100, 1000


class ServerRun:
    """A run on a server: values cannot be taken out of it, so it is logged again without them."""

    needs_collection = True

    def __init__(self, run_dir: Path, handle: RunHandle) -> None:
        self._run_dir = run_dir
        self._handle = handle
        self._mlflow = client_of(handle)
        self.where = f"MLflow run {handle.run_id} on {handle.tracking_uri}"

    def files(self) -> list[Path]:
        return []

    def rows(self) -> list[MetricRow]:
        with server_errors(self._handle):
            run = self._mlflow.get_run(self._run_id)
            return [
                MetricRow(item.key, item.step, item.timestamp, item.value)
                for name in sorted(run.data.metrics)
                for item in self._mlflow.get_metric_history(self._run_id, name)
            ]

    def artifacts(self) -> list[str]:
        with server_errors(self._handle):
            return artifacts_of(self._mlflow, self._run_id)

    def models(self) -> list[str]:
        with server_errors(self._handle):
            return [str(model.model_id) for model in run_models(self._mlflow, self._handle)]

    def model_files(self) -> list[Path]:
        return []

    def delete_models(self) -> None:
        with server_errors(self._handle):
            for model in run_models(self._mlflow, self._handle):
                delete_model(self._mlflow, model)
            if MODEL_TAG in self._mlflow.get_run(self._run_id).data.tags:
                self._mlflow.delete_tag(self._run_id, MODEL_TAG)

    def rewrite(self, changes: Sequence[MetricChange], artifacts: Mapping[str, Path | None], key: str) -> None:
        with server_errors(self._handle):
            if self._handle.key != key:
                self._delete_all(f"tags.`{KEY_TAG}` = '{key}'")  # what a kill left half logged
                old_key = self._handle.key
                made = self._log_again(changes, artifacts, key)
                tags = {"pilotwave.replaces": old_key}
                for name, value in tags.items():
                    self._mlflow.set_tag(made, name, value)
                self._handle = replace(self._handle, key=key, run_id=made)
                text = json.dumps(asdict(self._handle), indent=2) + "\n"
                write_atomically(self._run_dir / HANDLE_FILE, text.encode())
            replaced = self._mlflow.get_run(self._run_id).data.tags.get("pilotwave.replaces", "")
            self._delete_all(f"tags.`{KEY_TAG}` = '{replaced}'")

    @property
    def _run_id(self) -> str:
        assert self._handle.run_id is not None  # tracked_run() looked
        return self._handle.run_id

    def _delete_all(self, condition: str) -> None:
        for run in self._mlflow.search_runs([str(self._handle.experiment_id)], condition):
            self._mlflow.delete_run(run.info.run_id)

    def _log_again(self, changes: Sequence[MetricChange], artifacts: Mapping[str, Path | None], key: str) -> str:
        from mlflow.entities import Metric, Param

        old = self._mlflow.get_run(self._run_id)
        changed = {(item.key, item.step, item.timestamp): item.value for item in changes}
        rows = [
            replace(row, value=value)
            for row in self.rows()
            if (value := changed.get((row.key, row.step, row.timestamp), row.value)) is not None
        ]
        made = self._mlflow.create_run(
            old.info.experiment_id,
            start_time=old.info.start_time,
            tags={**{name: text for name, text in old.data.tags.items() if name != MODEL_TAG}, KEY_TAG: key},
            run_name=old.info.run_name,
        ).info.run_id
        parameters = [Param(name, value) for name, value in old.data.params.items()]
        for start in range(0, len(parameters), _PARAMETERS_PER_CALL):
            self._mlflow.log_batch(made, params=parameters[start : start + _PARAMETERS_PER_CALL])
        metrics = [Metric(row.key, row.value, row.timestamp, row.step) for row in rows]
        for start in range(0, len(metrics), _METRICS_PER_CALL):
            self._mlflow.log_batch(made, metrics=metrics[start : start + _METRICS_PER_CALL])
        self._copy_artifacts(made, artifacts)
        self._mlflow.set_terminated(made, status=old.info.status, end_time=old.info.end_time)
        return str(made)

    def _copy_artifacts(self, made: str, artifacts: Mapping[str, Path | None]) -> None:
        with tempfile.TemporaryDirectory(prefix="pilotwave-") as folder:
            for name in self.artifacts():
                parent = str(Path(name).parent)
                target = None if parent == "." else parent
                source = artifacts.get(name)
                if source is not None:
                    self._mlflow.log_artifact(made, str(source), target)
                elif name not in artifacts:
                    self._mlflow.log_artifact(
                        made, self._mlflow.download_artifacts(self._run_id, name, folder), target
                    )


def client_of(handle: RunHandle) -> MlflowClient:
    """Returns MLflow's client for where a run is tracked.

    Raises:
        MissingDependencyError: mlflow is not installed.
    """
    try:
        return open_client(handle.tracking_uri)
    except ImportError as error:
        raise MissingDependencyError(
            f"the run is tracked on {handle.tracking_uri}; that needs mlflow: pip install 'pilotwave[tracking]'"
        ) from error


def artifacts_of(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    """Returns the paths of a run's artifacts, in a folder of them or all."""
    found: list[str] = []
    for item in client.list_artifacts(run_id, folder):
        found += artifacts_of(client, run_id, item.path) if item.is_dir else [str(item.path)]
    return sorted(found)


def replace_artifacts(client: MlflowClient, run_id: str, uri: str, artifacts: Mapping[str, Path | None]) -> None:
    """Replaces artifacts of a local database that lie in a store of another kind (a bucket)."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with server_errors(RunHandle(uri, "")):
        store: Any = get_artifact_repository(uri)
        for name, source in artifacts.items():
            parent = str(Path(name).parent)
            store.delete_artifacts(name)
            if source is not None:
                client.log_artifact(run_id, str(source), None if parent == "." else parent)


@contextmanager
def server_errors(handle: RunHandle) -> Iterator[None]:
    """Turns whatever MLflow, a store or the network raises into one line."""
    try:
        yield
    except (InfrastructureError, MissingDependencyError):
        raise
    except Exception as error:  # whatever MLflow, a store or the network raises
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise InfrastructureError(f"{handle.tracking_uri}: {line}; start the server, then repeat") from error


__all__ = ["ServerRun", "artifacts_of", "client_of", "replace_artifacts", "server_errors"]
