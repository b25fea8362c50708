"""The logged models of a run in a local MLflow database: its rows and its files, found and deleted for good.

May import the standard library only: a local file needs no mlflow.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

MODEL_TAG = "pilotwave.model"
"""Of a run: the address of its newest model."""


@dataclass(frozen=True)
class ModelRow:
    """A logged model.

    Attributes:
        model_id: MLflow's.
        location: Address of its files.
    """

    model_id: str
    location: str

    @property
    def folder(self) -> Path | None:
        """Where its files lie, or None if that is another kind of store."""
        return local_folder(self.location)


def model_rows(connection: sqlite3.Connection, run_id: str | None) -> list[ModelRow]:
    """Returns the logged models of a run, deleted ones too: MLflow only marks them."""
    if not _tables(connection) >= {"logged_models"}:
        return []  # made by MLflow 2
    query = "SELECT model_id, artifact_location FROM logged_models WHERE source_run_id = ? ORDER BY model_id"
    return [ModelRow(*row) for row in connection.execute(query, (run_id,))]


def delete_model_files(row: ModelRow) -> None:
    """Deletes a model's local files; doing it again is safe.

    Raises:
        OSError: They cannot be deleted.
    """
    folder = row.folder
    if folder is None or not folder.exists():
        return
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # somebody else's file lies beside it
        folder.parent.rmdir()


def delete_model_rows(connection: sqlite3.Connection, row: ModelRow) -> None:
    """Deletes what a database holds of a model; inside a transaction of the caller's."""
    for table in sorted(_tables(connection) & {"logged_model_params", "logged_model_tags", "logged_model_metrics"}):
        connection.execute(f"DELETE FROM {table} WHERE model_id = ?", (row.model_id,))
    connection.execute("DELETE FROM inputs WHERE destination_id = ? OR source_id = ?", (row.model_id, row.model_id))
    connection.execute("DELETE FROM tags WHERE key = ? AND value = ?", (MODEL_TAG, f"models:/{row.model_id}"))
    connection.execute("DELETE FROM logged_models WHERE model_id = ?", (row.model_id,))


def local_folder(uri: str) -> Path | None:
    """Returns the folder of a local address, or None if it is another kind of store."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        return None
    return Path(unquote(parts.path)) if parts.scheme else Path(uri)


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


__all__ = ["MODEL_TAG", "ModelRow", "delete_model_files", "delete_model_rows", "local_folder", "model_rows"]
