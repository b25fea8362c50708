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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pilotwave.errors import StorageError
from pilotwave.storage import write_atomically
from pilotwave.tracking.mlflow_database import database_path
from pilotwave.tracking.mlflow_forgetting_server import (
    ServerRun,
    artifacts_of,
    client_of,
    replace_artifacts,
    server_errors,
)
from pilotwave.tracking.mlflow_handle import HANDLE_FILE, RunHandle
from pilotwave.tracking.mlflow_model_rows import (
    ModelRow,
    delete_model_files,
    delete_model_rows,
    local_folder,
    model_rows,
)
from pilotwave.tracking.mlflow_models import delete_model_elsewhere
from pilotwave.tracking.tracked_values import MetricChange, MetricRow, TrackedRun

_BUSY_SECONDS = 30.0


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
        return ServerRun(run_dir, handle)
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
        return [self._database, *found, *self.model_files()]

    def rows(self) -> list[MetricRow]:
        with self._opened() as connection:
            query = "SELECT key, step, timestamp, value FROM metrics WHERE run_uuid = ? ORDER BY timestamp, key"
            return [MetricRow(*row) for row in connection.execute(query, (self._handle.run_id,))]

    def artifacts(self) -> list[str]:
        folder = self._local_artifacts()
        if folder is None:
            return artifacts_of(client_of(self._handle), str(self._handle.run_id))
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def models(self) -> list[str]:
        return [row.model_id for row in self._model_rows()]

    def model_files(self) -> list[Path]:
        folders = [row.folder for row in self._model_rows()]
        return [path for folder in folders if folder for path in sorted(folder.rglob("*")) if path.is_file()]

    def delete_models(self) -> None:
        rows = self._model_rows()
        for row in rows:
            delete_model_files(row)
            if row.folder is None:
                with server_errors(self._handle):
                    delete_model_elsewhere(row.location)
        if not rows:
            return
        with self._opened() as connection:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("BEGIN IMMEDIATE")
            for row in rows:
                delete_model_rows(connection, row)
            connection.execute("COMMIT")

    def _model_rows(self) -> list[ModelRow]:
        with self._opened() as connection:
            return model_rows(connection, self._handle.run_id)

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
            replace_artifacts(client_of(self._handle), str(self._handle.run_id), self._artifact_uri(), artifacts)
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
        return local_folder(self._artifact_uri())

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


__all__ = ["MetricChange", "MetricRow", "TrackedRun", "read_handle", "tracked_run"]
