"""One MLflow database for the session, made by the product's own code and copied for each test."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilotwave.tracking.mlflow_database import prepare_database


@dataclass(frozen=True)
class MadeDatabase:
    """A database, and the sizes under which its name was ever seen while it was made."""

    path: Path
    sizes: frozenset[int]


@pytest.fixture(scope="session")
def made_database(tmp_path_factory: pytest.TempPathFactory) -> MadeDatabase:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    sizes: set[int] = set()
    made = threading.Event()

    def look() -> None:
        while not made.wait(0.01):
            if path.exists():
                sizes.add(path.stat().st_size)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        prepare_database(path)
    finally:
        made.set()
        looker.join()
    return MadeDatabase(path, frozenset(sizes))


@pytest.fixture
def place_database(made_database: MadeDatabase) -> Callable[[Path], Path]:
    """Returns a function that puts an empty database beside a run directory."""

    def place(run_dir: Path) -> Path:
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir.parent / "mlflow.db"
        if not path.exists():
            shutil.copyfile(made_database.path, path)
        return path

    return place
