"""Tracks campaigns with MLflow, on sqlite beside the runs unless told otherwise (kind ``mlflow``).

One background thread does everything that touches MLflow, importing it included, so a slow, locked or absent
database or server neither delays nor fails a campaign: what is to be written waits in an outbox, is tried
again, and what went wrong is said once. May import :mod:`pilotwave.tracking` and
:mod:`pilotwave.config.components`.
"""

from __future__ import annotations

import atexit
import logging
import math
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from pilotwave.config.components import TrackingConfig
from pilotwave.protocols import Tracker
from pilotwave.tracking.environment import environment_tags
from pilotwave.tracking.mlflow_database import SCHEME, database_path
from pilotwave.tracking.mlflow_run import THREAD_NAME, MlflowRun, RunRequest, is_refused
from pilotwave.tracking.outbox import Outbox
from pilotwave.tracking.parameters import without_password
from pilotwave.tracking.system_metrics import SystemMetrics

_log = logging.getLogger("pilotwave.tracking")
_STATUSES = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
OUTBOX_FILE = "mlflow-outbox.jsonl"
_ENTRIES_AT_ONCE = 200
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 60.0


class MlflowTrackingConfig(TrackingConfig):
    """``tracking: {kind: mlflow}`` of a campaign file."""

    packages: ClassVar[tuple[str, ...]] = ("mlflow",)
    extra: ClassVar[str | None] = "tracking"
    summary: ClassVar[str] = "MLflow; in a sqlite file beside the run directories unless told otherwise"

    kind: Literal["mlflow"]
    tracking_uri: str | None = Field(
        None,
        pattern=r"^(sqlite:///|postgresql|mysql|mssql|https?://).+",
        description="Of an MLflow server or database, e.g. http://mlflow:5000; by default a sqlite file "
        "mlflow.db in the folder that holds the run directory.",
    )
    experiment: str | None = Field(
        None, min_length=1, max_length=250, description="The experiment's name; the campaign's by default."
    )
    run_name: str | None = Field(
        None, min_length=1, max_length=250, description="The run's name; the run directory's by default."
    )
    patience: float = Field(
        30.0, ge=0, le=3600, description="Seconds that the end of a campaign may wait for MLflow."
    )
    model: bool = Field(
        True, description="Whether what was learned is logged as a model, which `pilotwave generate` loads, too."
    )
    system_metrics: bool = Field(True, description="Whether the machine's load is logged: CPU, memory, disk, GPU.")
    system_metrics_interval: float = Field(
        10.0, ge=0.1, le=3600, description="Seconds between two measurements of the machine's load."
    )

    def build(self, run_dir: Path) -> Tracker:
        """Builds the tracker of a run; nothing is imported, opened or written yet.

        Raises:
            MissingDependencyError: mlflow is not installed.
        """
        self.check_dependencies()
        run_dir = run_dir.absolute()
        return MlflowTracker(
            run_dir,
            tracking_uri=self.tracking_uri or f"{SCHEME}{run_dir.parent / 'mlflow.db'}",
            experiment=self.experiment,
            run_name=self.run_name or run_dir.name,
            patience=self.patience,
            models=self.model,
            system_metrics=self.system_metrics_interval if self.system_metrics else None,
        )

    def nested(self, parent_dir: Path, experiment: str, run_name: str) -> MlflowTrackingConfig:
        """Returns the configuration of a child run: in the database and experiment of its parent."""
        place = self.tracking_uri or f"{SCHEME}{parent_dir.absolute().parent / 'mlflow.db'}"
        kept = {"tracking_uri": place, "experiment": self.experiment or experiment, "run_name": run_name}
        return self.model_copy(update={**kept, "system_metrics": False, "model": False})


class MlflowTracker:
    """Implements :class:`pilotwave.protocols.Tracker`.

    Args:
        run_dir: Of the campaign.
        tracking_uri: Of the database or server.
        experiment: Its name; the campaign's if None.
        run_name: The run's name.
        patience: How long :meth:`finish` and :meth:`describe` may wait for MLflow, in seconds.
        models: Whether :meth:`model` logs anything.
        system_metrics: Seconds between two measurements of the machine's load; None for none.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        tracking_uri: str,
        experiment: str | None,
        run_name: str,
        patience: float,
        models: bool = True,
        system_metrics: float | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._run_name = run_name
        self._patience = patience
        self._models = models
        self._load = None if system_metrics is None else SystemMetrics(self.log, system_metrics)
        self._deadline = math.inf  # of trying, on the clock of time.monotonic
        self._outbox = Outbox(run_dir / OUTBOX_FILE)
        self._thread: threading.Thread | None = None
        self._work_waits = threading.Event()
        self._tried = threading.Event()  # opened, or failed for the first time
        self._ending = threading.Event()
        self._status = "FAILED"
        self._run: MlflowRun | None = None
        self._trouble = ""  # for now
        self._lost = ""  # for good
        self._said = False

    def start(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Opens the run, the one before if the campaign is resumed; returns at once."""
        if self._thread is not None:
            return
        request = RunRequest(
            self._run_dir,
            self._tracking_uri,
            self._experiment or name,
            self._run_name,
            dict(parameters),
            dict(tags),
        )
        self._thread = threading.Thread(target=self._work, args=(request,), name=THREAD_NAME, daemon=True)
        self._thread.start()
        atexit.register(self.finish, "killed")  # a campaign that ends with an error must not stay "running"

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Puts metrics into the outbox; returns at once."""
        now = round(time.time() * 1000)
        self._outbox.append({"metrics": dict(metrics), "step": int(step), "time": now})
        self._work_waits.set()

    def artifact(self, path: str) -> None:
        """Puts a file's path into the outbox; the file is read a little later."""
        self._outbox.append({"artifact": str(Path(path).absolute())})
        self._work_waits.set()

    def model(self, folder: str, step: int) -> None:
        """Puts a model folder's path into the outbox; the folder is read a little later."""
        if self._models:
            self._outbox.append({"model": str(Path(folder).absolute()), "step": int(step)})
            self._work_waits.set()

    def tag(self, tags: Mapping[str, str]) -> None:
        """Puts tags into the outbox."""
        self._outbox.append({"tags": dict(tags)})
        self._work_waits.set()

    def child_tags(self) -> Mapping[str, str]:
        """Returns the tag by which MLflow shows a run under this one; none if MLflow cannot be reached."""
        if self._thread is not None:
            self._tried.wait(self._patience)
        return {} if self._run is None else {"mlflow.parentRunId": self._run.run_id}

    def finish(self, status: str) -> None:
        """Waits until all is written, but no longer than the patience, and closes the run."""
        if self._thread is None or self._ending.is_set():
            return
        self._status = _STATUSES.get(status, "FAILED")
        self._deadline = time.monotonic() + self._patience
        if self._load is not None:
            self._load.stop()
        self._ending.set()
        self._work_waits.set()
        self._thread.join(self._patience)
        atexit.unregister(self.finish)
        if self._thread.is_alive():
            self._trouble = self._trouble or f"no answer within {self._patience:.0f} s"
            self._say(self._trouble)

    def describe(self) -> str:
        """Returns where the run is, how to open it, and what went wrong if anything did."""
        if self._thread is not None:
            self._tried.wait(self._patience)
        dropped = f"{self._outbox.dropped} entries left out" if self._outbox.dropped else ""
        problem = "; ".join(filter(None, (self._lost, dropped, self._trouble)))
        trouble = f"; incomplete: {problem}" if problem else ""
        if self._run is None:
            return f"MLflow: nothing was written to {without_password(self._tracking_uri)}{trouble}"
        if database_path(self._tracking_uri) is None and self._tracking_uri.startswith("http"):
            page = f"#/experiments/{self._run.handle.experiment_id}/runs/{self._run.run_id}"
            return f"MLflow run {self._run.run_id}; open {self._tracking_uri.rstrip('/')}/{page}{trouble}"
        command = f"mlflow ui --backend-store-uri {shlex.quote(without_password(self._tracking_uri))}"
        return f"MLflow run {self._run.run_id}; open with: {command}{trouble}"

    def _work(self, request: RunRequest) -> None:
        """Opens, writes and closes; what fails is tried again, ever more rarely. Runs on the thread."""
        request = replace(request, tags={**environment_tags(), **request.tags})
        delay = _FIRST_DELAY
        while True:
            try:
                self._run = self._run or MlflowRun.open(request)
                self._tried.set()
                self._measure_load(self._run)
                self._send(self._run)
                self._trouble, delay = "", _FIRST_DELAY
                if self._ending.is_set() and not len(self._outbox):
                    self._run.close(self._status)
                    return
                self._work_waits.wait()
                self._work_waits.clear()
            except Exception as error:  # whatever MLflow raises, the campaign goes on
                self._trouble = _one_line(error)
                self._say(self._trouble)
                self._tried.set()
                if self._ending.is_set():
                    if time.monotonic() + _FIRST_DELAY > self._deadline:
                        return  # what waits is sent when the campaign is resumed
                    time.sleep(_FIRST_DELAY)
                else:
                    self._ending.wait(delay)
                delay = min(2 * delay, _LONGEST_DELAY)

    def _send(self, run: MlflowRun) -> None:
        while entries := self._outbox.first(_ENTRIES_AT_ONCE):
            metrics = [entry for entry in entries if "metrics" in entry]
            self._try_once(partial(run.write_metrics, metrics))
            for entry in entries:
                if "artifact" in entry:
                    self._try_once(partial(run.write_artifact, entry["artifact"]))
                elif "model" in entry:
                    self._try_once(partial(run.write_model, entry["model"], entry["step"]))
                elif "tags" in entry:
                    self._try_once(partial(run.write_tags, entry["tags"]))
            self._outbox.remove(len(entries))

    def _measure_load(self, run: MlflowRun) -> None:
        if self._load is None or self._ending.is_set():
            return
        try:
            self._load.start(run.started())
        except ImportError as error:
            self._load = None
            self._lost = (
                f"no system metrics, because {error.name} is not installed: pip install 'pilotwave[tracking]'"
            )
            self._say(self._lost)

    def _try_once(self, write: Callable[[], None]) -> None:
        """Writes; what MLflow refuses for good is said and left out, all else is raised to be tried again."""
        try:
            write()
        except Exception as error:
            if not is_refused(error):
                raise
            self._lost = _one_line(error)
            self._say(self._lost)

    def _say(self, problem: str) -> None:
        """Says what went wrong, the first time."""
        if not self._said:
            _log.warning("tracking with MLflow: %s; the campaign goes on, its ledger has everything", problem)
        self._said = True


def _one_line(error: Exception, limit: int = 160) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


__all__ = ["OUTBOX_FILE", "MlflowTracker", "MlflowTrackingConfig"]
