"""The log of a campaign: ``RUN_DIR/logs/campaign.jsonl``, a JSON object a line, written while it runs.

It says what the ledger says, in words, with the ids of the worker's actor and node; and what the ledger does not
hold: phases, notes, errors, what the packages log. Nothing waits for it: lines reach the operating system within a
second, at the end, and at once if they are warnings. May import :mod:`pilotwave.archive`,
:mod:`pilotwave.report` and the modules beside it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pilotwave.archive.ledger import Event, EventKind, Ledger
from pilotwave.archive.project.from_run import run_id_from, run_id_of
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.state import CampaignState
from pilotwave.execution.job import CampaignJob, Phase, Progress
from pilotwave.execution.log_capture import (
    ABOUT_FILE,
    CaptureHandler,
    belongs_to,
    belongs_to_none,
    capture,
)
from pilotwave.execution.log_file import LogFile
from pilotwave.execution.telemetry import Level
from pilotwave.report.log_lines import LEVELS, Line, in_order, line_of, rfc3339
from pilotwave.report.redaction import make_redactor
from pilotwave.storage import write_atomically

FILE = "campaign.jsonl"
PROGRESS_SECONDS = 60.0
"""A line on how far it is comes no more often."""
_OFTEN = {EventKind.RESERVED, EventKind.TOLD, EventKind.REMEMBERED}
"""Several a query, and only for those who want every detail."""

PlaceOf = Callable[[str, bool], Mapping[str, Any]]
"""From a worker's name, and whether it has just died, to where it is: ``actor``, ``node``, whatever is known."""


class CampaignLog:
    """See :class:`pilotwave.execution.telemetry.Telemetry`.

    Args:
        place_of: Where a worker is; nothing for threads of this process.
        itself: Where this process is: ``actor``, ``node``.
    """

    name = "the log"

    def __init__(
        self, place_of: PlaceOf = lambda worker, died: {}, itself: Callable[[], Mapping[str, Any]] = lambda: {}
    ) -> None:
        self._place_of = place_of
        self._itself = itself
        self._file: LogFile | None = None
        self._same: Line = {}
        self._own: Mapping[str, Any] = {}
        self._level = 1
        self._undo: list[Callable[[], None]] = []
        self._meta: Mapping[str, str] = {}
        self._logs = Path()
        self._redact: Callable[[str], str] = str
        self._said_progress = 0.0

    def opened(self, job: CampaignJob, state: CampaignState) -> None:
        """Opens the file, and takes over what the packages log, unless the campaign wants no log."""
        level = job.config.runtime.log_level
        if level == "none":
            return
        self._level = LEVELS.index(level)
        run = RunDirectory(job.run_dir)
        self._logs = run.logs
        self._logs.mkdir(exist_ok=True)
        self._own = {"host": socket.gethostname(), "pid": os.getpid(), **self._itself()}
        self._redact = make_redactor()
        self._same = {"campaign": job.config.name}
        with Ledger.open(run.ledger_file, read_only=True) as ledger:
            self._meta = ledger.meta()
            if state.started is not None:
                self._same["run"] = run_id_of(ledger)
        self._introduce()
        self._file = LogFile(self._logs / FILE)
        token = belongs_to(self._logs)
        self._undo = [lambda: belongs_to_none(token), capture(CaptureHandler(self._captured, {}), level)]

    def happened(self, event: Event) -> None:
        """Writes an event of the ledger."""
        if self._file is None or (self._level > 0 and event.kind in _OFTEN):
            return
        if event.kind is EventKind.STARTED and "run" not in self._same:
            self._same["run"] = run_id_from(self._meta, event)
            self._introduce()
        line = line_of(event)
        worker = line.get("worker")
        if worker:
            line |= self._place_of(worker, line.get("stage") == "worker")
        elif event.kind is EventKind.STARTED:
            line |= self._own
        self._write(line)

    def entered(self, phase: Phase) -> None:
        """Writes what it does now."""
        self._say("info", "phase", phase)

    def noted(self, level: Level, event: str, message: str, proposal: int | None = None) -> None:
        """Writes a note."""
        self._say(level.name.lower(), event, message, proposal=proposal)

    def looked(self, progress: Progress) -> None:
        """Hands over what waits; once a minute it says how far the campaign is."""
        if self._file is None:
            return
        now = time.monotonic()
        if progress.phase == "running" and now - self._said_progress >= PROGRESS_SECONDS:
            self._said_progress = now
            self._say("info", "progress", progress_in_words(progress))
        self._file.flush_if_due()

    def close(self, reason: str) -> None:
        """Writes what waits; the reason is a line of its own, the ledger's."""
        for undo in self._undo:
            undo()
        if self._file is not None:
            self._file.close()
        self._file, self._undo = None, []

    def _say(self, level: str, event: str, message: str, **ids: Any) -> None:
        self._write({"time": rfc3339(time.time()), "level": level, "event": event, "message": message, **ids})

    def _captured(self, line: Line, logs: Path | None) -> None:
        """Takes what a package logged in this process, unless a thread of another run did."""
        if logs is None or logs == self._logs:
            self._write(line)

    def _write(self, line: Line) -> None:
        file, level = self._file, LEVELS.index(line["level"])
        if file is None or level < self._level:
            return
        line["message"] = self._redact(line["message"])
        file.write(in_order({**self._same, **line}), now=level >= 2)

    def _introduce(self) -> None:
        about = {**self._same, "level": LEVELS[self._level]}
        write_atomically(self._logs / ABOUT_FILE, (json.dumps(about, indent=2) + "\n").encode())


def progress_in_words(progress: Progress) -> str:
    """Returns one line on how far a campaign is."""
    words = (
        f"{progress.spent} of {progress.queries} queries, {progress.answered} answered, {progress.failed} failed; "
        f"{progress.in_flight} of {progress.evaluators} evaluators at work ({progress.utilisation:.0%} so far), "
        f"{progress.ready} ready, {progress.resting} in back-off"
    )
    if progress.best is not None:
        words += f"; best {progress.best:.6g} ({progress.best_label})"
    return words


__all__ = ["FILE", "CampaignLog", "progress_in_words"]
