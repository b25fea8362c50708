"""A real MLflow server on this machine that can be killed and started again, on sqlite or on PostgreSQL.

For tests of what a campaign does while its server is away. May import the standard library and
:mod:`pilotwave.tracking`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pilotwave.tracking.mlflow_database import QUIET

START_SECONDS = 180.0


class MlflowServer:
    """An MLflow server; not started yet.

    Args:
        folder: For artifacts and the log.
        backend: Address of its database.

    Attributes:
        uri: Of the server, the same after it was started again.
    """

    def __init__(self, folder: Path, backend: str) -> None:
        self.folder = folder
        self.backend = backend
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def artifacts(self) -> Path:
        """Where it keeps artifacts."""
        return self.folder / "artifacts"

    def launch(self) -> None:
        """Starts it without waiting for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.backend]
        command += ["--artifacts-destination", str(self.artifacts), "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--workers", "1"]
        strays = ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
        environment = {key: value for key, value in os.environ.items() if key not in strays}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, **QUIET},
                start_new_session=True,
            )

    def wait(self) -> None:
        """Waits until it answers.

        Raises:
            TimeoutError: It does not; the end of its log is in the message.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise TimeoutError(f"the MLflow server did not start: {(self.folder / 'log').read_text()[-3000:]}")
            time.sleep(0.1)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self.launch()
        self.wait()

    def answers(self) -> bool:
        """Says whether it is up."""
        try:
            return bool(urllib.request.urlopen(f"{self.uri}/health", timeout=2).read())
        except OSError:
            return False

    def kill(self) -> None:
        """Kills it and all its workers at once; its database and artifacts stay."""
        if self._process is None:
            return
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


def postgres_programs() -> Path | None:
    """Returns the folder of PostgreSQL's server programs, the newest installed, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    return None if on_path is None else Path(on_path).resolve().parent


@contextmanager
def postgres_cluster() -> Iterator[str]:
    """Runs a PostgreSQL cluster of its own in a temporary folder; yields the address of a database.

    PostgreSQL refuses to run as root, so then it runs as the user ``postgres`` of Debian's package.

    Raises:
        RuntimeError: It cannot be started; the end of its log is in the message.
    """
    programs = postgres_programs()
    if programs is None:
        raise RuntimeError("PostgreSQL is not installed: apt-get install postgresql")
    user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="pilotwave-postgres-"))
    if os.getuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    port, log = free_port(), folder / "log"
    process: subprocess.Popen[bytes] | None = None
    try:
        with log.open("ab") as written:
            initdb = [str(programs / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "pilotwave"]
            _run([*initdb, "--no-sync", "--encoding=UTF8", "--locale=C"], written, folder, user)
            command = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port), "-k", str(folder)]
            command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
            process = subprocess.Popen(command, cwd=folder, stdout=written, stderr=written, **user)
            createdb = [str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "pilotwave", "mlflow"]
            deadline = time.monotonic() + 60
            while subprocess.run(createdb, cwd=folder, stdout=written, stderr=written, check=False).returncode:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-2000:]}")
                time.sleep(0.2)
        yield f"postgresql+psycopg2://pilotwave:secret@127.0.0.1:{port}/mlflow"
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # its fast shutdown
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Returns a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(command: list[str], log: IO[bytes], folder: Path, user: dict[str, Any]) -> None:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, **user
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(folder / 'log').read_text()[-2000:]}")


__all__ = ["MlflowServer", "free_port", "postgres_cluster", "postgres_programs"]
