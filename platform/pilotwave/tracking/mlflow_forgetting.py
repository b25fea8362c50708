"""What a tracked run holds in MLflow, and taking some of it out again for good.

MLflow's interface adds metrics and deletes whole runs; it cannot delete one value. In a local sqlite file this is
done in its tables, and the file is rebuilt so that no free page keeps what was deleted. On a server the run is
logged again without the values and the old one is deleted, which MLflow only marks: ``mlflow gc`` on the server
removes it. May import :mod:`pilotwave.tracking` and :mod:`pilotwave.storage`; mlflow (extra ``tracking``) inside
functions, and for a local file with local artifacts not at all.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from pilotwave.errors import InfrastructureError, MissingDependencyError, StorageError
from pilotwave.storage import write_atomically
from pilotwave.tracking.mlflow_database import database_path
from pilotwave.tracking.mlflow_run import HANDLE_FILE, KEY_TAG, RunHandle, open_client

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_BUSY_SECONDS = 30.0
_PARAMETERS_PER_CALL, _METRICS_PER_CALL = 100, 1000


@dataclass(frozen=True)
class MetricRow:
    """One logged value.

    Attributes:
        key: The metric's name.
        step: Queries spent.
        timestamp: Milliseconds since the epoch.
        value: The value.
    """

    key: str
    step: int
    timestamp: int
    value: float


@dataclass(frozen=True)
class MetricChange:
    """What a logged value becomes; ``value`` None: it goes."""

    key: str
    step: int
    timestamp: int
    value: float | None


class TrackedRun(Protocol):
    """A run in MLflow that can be changed behind the tracker's back; no driver may be at work.

    Attributes:
        where: One line for people.
        needs_collection: Whether an operator has to run ``mlflow gc`` afterwards.
    """

    where: str
    needs_collection: bool

    def files(self) -> list[Path]:
        """Returns the local files that hold the run, for digests; none on a server."""
        ...

    def rows(self) -> list[MetricRow]:
        """Returns every logged value."""
        ...

    def artifacts(self) -> list[str]:
        """Returns the paths of the artifacts, relative to the run's."""
        ...

    def rewrite(self, changes: Sequence[MetricChange], artifacts: Mapping[str, Path | None], key: str) -> None:
        """Changes values and replaces or (None) removes artifacts; doing it again after a kill is safe.

        Args:
            changes: The values.
            artifacts: From an artifact's path to the file that replaces it.
            key: Of this forgetting, unique; a run that is logged again is found by it.

        Raises:
            InfrastructureError: The database or server cannot be written; what is done stays done.
        """
        ...


def tracked_run(run_dir: Path) -> TrackedRun | None:
    """Returns where a run is tracked, or None if it is not, or if its local database is gone.

    Raises:
        MissingDependencyError: It is on a server, and mlflow is not installed.
    """
    handle = read_handle(run_dir)
    if handle is None or handle.run_id is None:
        return None
    database = database_path(handle.tracking_uri)
    if database is None:
        return _ServerRun(run_dir, handle)
    return _DatabaseRun(database, handle) if database.is_file() else None


def read_handle(run_dir: Path) -> RunHandle | None:
    """Returns where a run is tracked, as its directory says, or None."""
    try:
        fields = json.loads((run_dir / HANDLE_FILE).read_text(encoding="utf-8"))
        return RunHandle(**{key: fields[key] for key in ("tracking_uri", "key", "experiment_id", "run_id")})
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _DatabaseRun:
    """A run in a local sqlite file."""

    needs_collection = False

    def __init__(self, database: Path, handle: RunHandle) -> None:
        self._database = database
        self._handle = handle
        self.where = f"MLflow run {handle.run_id} in {database}"

    def files(self) -> list[Path]:
        folder = self._local_artifacts()
        found = [] if folder is None else [folder / name for name in self.artifacts()]
        return [self._database, *found]

    def rows(self) -> list[MetricRow]:
        with self._opened() as connection:
            query = "SELECT key, step, timestamp, value FROM metrics WHERE run_uuid = ? ORDER BY timestamp, key"
            return [MetricRow(*row) for row in connection.execute(query, (self._handle.run_id,))]

    def artifacts(self) -> list[str]:
        folder = self._local_artifacts()
        if folder is None:
            return _artifacts_of(_client(self._handle), str(self._handle.run_id))
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def rewrite(self, changes: Sequence[MetricChange], artifacts: Mapping[str, Path | None], key: str) -> None:
        del key
        with self._opened() as connection:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("BEGIN IMMEDIATE")
            for change in changes:
                self._change(connection, change)
            for name in {change.key for change in changes}:
                self._renew_latest(connection, name)
            connection.execute("COMMIT")
            # Values that MLflow itself overwrote earlier may still lie in half-used pages.
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        folder = self._local_artifacts()
        if folder is None:
            _replace_artifacts(_client(self._handle), str(self._handle.run_id), self._artifact_uri(), artifacts)
            return
        for name, source in artifacts.items():
            if source is None:
                (folder / name).unlink(missing_ok=True)
            else:
                write_atomically(folder / name, source.read_bytes())
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def _change(self, connection: sqlite3.Connection, change: MetricChange) -> None:
        place = (self._handle.run_id, change.key, change.step, change.timestamp)
        connection.execute(
            "DELETE FROM metrics WHERE run_uuid = ? AND key = ? AND step = ? AND timestamp = ?", place
        )
        if change.value is not None:
            connection.execute(
                "INSERT INTO metrics (run_uuid, key, step, timestamp, value, is_nan) VALUES (?, ?, ?, ?, ?, 0)",
                (*place, change.value),
            )

    def _renew_latest(self, connection: sqlite3.Connection, name: str) -> None:
        place = (self._handle.run_id, name)
        connection.execute("DELETE FROM latest_metrics WHERE run_uuid = ? AND key = ?", place)
        connection.execute(
            "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
            "SELECT key, value, timestamp, step, is_nan, run_uuid FROM metrics WHERE run_uuid = ? AND key = ? "
            "ORDER BY step DESC, timestamp DESC, value DESC LIMIT 1",
            place,
        )

    def _artifact_uri(self) -> str:
        with self._opened() as connection:
            found = connection.execute(
                "SELECT artifact_uri FROM runs WHERE run_uuid = ?", (self._handle.run_id,)
            ).fetchone()
        return str(found[0]) if found else ""

    def _local_artifacts(self) -> Path | None:
        """The folder of the artifacts, or None if they lie in another kind of store."""
        uri = self._artifact_uri()
        parts = urlsplit(uri)
        if parts.scheme not in ("", "file"):
            return None
        return Path(unquote(parts.path)) if parts.scheme else Path(uri)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(
                sqlite3.connect(self._database, timeout=_BUSY_SECONDS, isolation_level=None)
            ) as connection:
                yield connection
        except sqlite3.Error as error:
            raise StorageError(
                f"{self._database}: the MLflow database cannot be read or written: {error}; "
                "end what holds it (an MLflow server, another campaign), then repeat"
            ) from error


class _ServerRun:
    """A run on a server: values cannot be taken out of it, so it is logged again without them."""

    needs_collection = True

    def __init__(self, run_dir: Path, handle: RunHandle) -> None:
        self._run_dir = run_dir
        self._handle = handle
        self._mlflow = _client(handle)
        self.where = f"MLflow run {handle.run_id} on {handle.tracking_uri}"

    def files(self) -> list[Path]:
        return []

    def rows(self) -> list[MetricRow]:
        with _server_errors(self._handle):
            run = self._mlflow.get_run(self._run_id)
            return [
                MetricRow(item.key, item.step, item.timestamp, item.value)
                for name in sorted(run.data.metrics)
                for item in self._mlflow.get_metric_history(self._run_id, name)
            ]

    def artifacts(self) -> list[str]:
        with _server_errors(self._handle):
            return _artifacts_of(self._mlflow, self._run_id)

    def rewrite(self, changes: Sequence[MetricChange], artifacts: Mapping[str, Path | None], key: str) -> None:
        with _server_errors(self._handle):
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
            tags={**old.data.tags, KEY_TAG: key},
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


def _client(handle: RunHandle) -> MlflowClient:
    try:
        return open_client(handle.tracking_uri)
    except ImportError as error:
        raise MissingDependencyError(
            f"the run is tracked on {handle.tracking_uri}; that needs mlflow: pip install 'pilotwave[tracking]'"
        ) from error


def _artifacts_of(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    found: list[str] = []
    for item in client.list_artifacts(run_id, folder):
        found += _artifacts_of(client, run_id, item.path) if item.is_dir else [str(item.path)]
    return sorted(found)


def _replace_artifacts(client: MlflowClient, run_id: str, uri: str, artifacts: Mapping[str, Path | None]) -> None:
    """Replaces artifacts of a local database that lie in a store of another kind (a bucket)."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with _server_errors(RunHandle(uri, "")):
        store: Any = get_artifact_repository(uri)
        for name, source in artifacts.items():
            parent = str(Path(name).parent)
            store.delete_artifacts(name)
            if source is not None:
                client.log_artifact(run_id, str(source), None if parent == "." else parent)


@contextmanager
def _server_errors(handle: RunHandle) -> Iterator[None]:
    try:
        yield
    except (InfrastructureError, MissingDependencyError):
        raise
    except Exception as error:  # whatever MLflow, a store or the network raises
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise InfrastructureError(f"{handle.tracking_uri}: {line}; start the server, then repeat") from error


__all__ = ["MetricChange", "MetricRow", "TrackedRun", "read_handle", "tracked_run"]
