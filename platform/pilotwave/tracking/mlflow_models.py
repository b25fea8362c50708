"""Learned guidance as logged models of an MLflow run: uploaded once, found again, deleted for good.

May import :mod:`pilotwave.tracking`; mlflow (extra ``tracking``) inside the functions.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave.tracking.mlflow_handle import RunHandle
from pilotwave.tracking.mlflow_model_rows import MODEL_TAG
from pilotwave.tracking.model_flavor import MODEL_FILE, NAME, with_model_id

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DIGEST_TAG, STEP_TAG = "pilotwave.digest", "pilotwave.queries"
TYPE = "pilotwave-guidance"


def log_model(client: MlflowClient, handle: RunHandle, folder: Path, step: int) -> None:
    """Logs a model folder for a run; one of the same content that is logged already is left as it is.

    Args:
        client: Of the server.
        handle: Of the run.
        folder: See :mod:`pilotwave.execution.learned_model`.
        step: Queries spent.

    Raises:
        FileNotFoundError: There is no model in the folder.
        Exception: Whatever MLflow, the disk or the network raises; calling again later is safe.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    assert handle.run_id is not None, "only an open run has models"
    assert handle.experiment_id is not None
    with tempfile.TemporaryDirectory(prefix="pilotwave-") as place:
        staged = Path(place) / NAME
        shutil.copytree(folder, staged)  # a resumed campaign may replace it while it is uploaded
        digest = _digest(staged)
        for model in run_models(client, handle):
            if model.status == LoggedModelStatus.READY and model.tags.get(DIGEST_TAG) == digest:
                return
            if model.status != LoggedModelStatus.READY:
                delete_model(client, model)
        made = client.create_logged_model(
            handle.experiment_id,
            name=NAME,
            source_run_id=handle.run_id,
            tags={DIGEST_TAG: digest, STEP_TAG: str(step)},
            model_type=TYPE,
        )
        text = with_model_id(staged, made.model_id, handle.run_id)
        (staged / MODEL_FILE).write_text(text, encoding="utf-8")
        client.log_model_artifacts(made.model_id, str(staged))
        client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
        client.log_outputs(handle.run_id, [LoggedModelOutput(made.model_id, step)])
        client.set_tag(handle.run_id, MODEL_TAG, f"models:/{made.model_id}")


def run_models(client: MlflowClient, handle: RunHandle) -> list[Any]:
    """Returns the logged models of a run, half uploaded ones too, the oldest first."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_logged_models(
            [str(handle.experiment_id)], f"source_run_id = '{handle.run_id}'", page_token=token
        )
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda model: (model.creation_timestamp, model.model_id))


def delete_model(client: MlflowClient, model: Any) -> None:
    """Deletes a model's files for good, then its entry, which a server only marks until ``mlflow gc``."""
    delete_model_elsewhere(model.artifact_location, client.tracking_uri)
    client.delete_logged_model(model.model_id)


def delete_model_elsewhere(location: str, tracking_uri: str | None = None) -> None:
    """Deletes the files of a model wherever they lie, over the server where that stands before them."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    store: Any = get_artifact_repository(location, tracking_uri=tracking_uri)
    for item in store.list_artifacts():
        store.delete_artifacts(item.path)


def _digest(folder: Path) -> str:
    """Of all that a model does; not of when it was written."""
    hashed = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MODEL_FILE:
            name = path.relative_to(folder).as_posix().encode()
            hashed.update(len(name).to_bytes(8, "big") + name + path.stat().st_size.to_bytes(8, "big"))
            hashed.update(path.read_bytes())
    return hashed.hexdigest()


__all__ = ["delete_model", "delete_model_elsewhere", "log_model", "run_models"]
