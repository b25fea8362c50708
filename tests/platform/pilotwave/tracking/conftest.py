"""One MLflow database for the session, made by the product's own code and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pilotwave.tracking.mlflow_database import prepare_database


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    prepare_database(path)
    return path


@pytest.fixture
def place_database(empty_database: Path) -> Callable[[Path], Path]:
    """Returns a function that puts an empty database beside a run directory."""

    def place(run_dir: Path) -> Path:
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir.parent / "mlflow.db"
        if not path.exists():
            shutil.copyfile(empty_database, path)
        return path

    return place
