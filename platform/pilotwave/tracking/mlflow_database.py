"""A local MLflow database: found to be usable, or made so that a kill never leaves half of one.

May import the standard library and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

from pilotwave.errors import StorageError

SCHEME = "sqlite:///"
CREATE_SECONDS, BUSY_SECONDS = 180.0, 5.0
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
"""MLflow does not call home."""


def database_path(tracking_uri: str) -> Path | None:
    """Returns the file of a ``sqlite:///`` address, or None for a server's address."""
    if not tracking_uri.startswith(SCHEME):
        return None
    return Path(tracking_uri.removeprefix(SCHEME).partition("?")[0]).absolute()


def prepare_database(path: Path) -> None:
    """Makes sure that there is a whole MLflow database that can be written to now.

    MLflow makes its tables in some sixty steps; killed in between, it can never open the file again. So they
    are made in another file, in a process of its own, and appear under this name when they are complete.

    Raises:
        StorageError: It cannot be made or written, or another process holds it.
    """
    if not path.exists():
        _create(path)
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise StorageError(f"{path}: the MLflow database cannot be written: {error}") from error


def _create(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "mlflow", "db", "upgrade", f"{SCHEME}{temporary}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CREATE_SECONDS,
            check=False,
            env={**os.environ, **QUIET},
        )
        if done.returncode != 0:
            line = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
            raise StorageError(f"{path}: MLflow could not make its database: {line}")
        _publish(temporary, path)
    except subprocess.TimeoutExpired as error:
        raise StorageError(f"{path}: MLflow did not make its database in {CREATE_SECONDS:.0f} s") from error
    except OSError as error:
        raise StorageError(f"{path}: the MLflow database cannot be made: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path) -> None:
    """Gives the file its name unless another campaign was faster."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not path.exists():
            os.replace(temporary, path)


__all__ = ["QUIET", "SCHEME", "database_path", "prepare_database"]
