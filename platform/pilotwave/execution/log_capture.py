"""What the packages say through :mod:`logging`, brought into the run's log with the ids of what they were doing.

In the driver's process the lines go into the campaign's own file. A worker of its own (an actor, perhaps on another
node) writes a file of its own beside it, as it writes receipts, so that its lines are there even if it dies before
it can answer; where the run directory is not seen they go nowhere but to Ray's log of the worker. May import
:mod:`pilotwave.report` and the modules beside it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar, Token
from pathlib import Path
from typing import Any

from pilotwave.execution.log_file import LogFile
from pilotwave.report.log_lines import LEVELS, Line, in_order, proposal_of, rfc3339
from pilotwave.report.redaction import make_redactor

PACKAGES = ("pilotwave", "pilotwave_actors", "pilotwave_oracles")
ABOUT_FILE = "about.json"
"""In the folder of the logs: ``{"campaign", "run", "level"}``, for workers."""
WORKER_BYTES = 1 << 20
"""Of one file of a worker, of which there are two."""
_FORMATTER = logging.Formatter()
_NOTHING: Mapping[str, Any] = {}

_doing: ContextVar[Mapping[str, Any]] = ContextVar("pilotwave_doing", default=_NOTHING)


@contextlib.contextmanager
def doing(logs: Path | None, **ids: Any) -> Iterator[None]:
    """Within it, what this thread logs belongs to this run and bears these ids.

    Args:
        logs: The folder of the run's logs; None leaves it as it is.
        ids: Of :data:`pilotwave.report.log_lines.FIELDS`, e.g. ``worker``, ``query``, ``attempt``, ``proposal``.
    """
    token = _doing.set({**_doing.get(), **ids, **({} if logs is None else {"logs": logs})})
    try:
        yield
    finally:
        _doing.reset(token)


def asking(
    worker: str, query_id: str, attempt: int, receipts: Path | None
) -> contextlib.AbstractContextManager[None]:
    """Within it, what this thread logs is about one question; the run's logs lie beside its receipts."""
    logs = None if receipts is None else receipts.parent / "logs"
    return doing(logs, worker=worker, query=query_id, attempt=attempt, proposal=proposal_of(query_id))


def belongs_to(logs: Path) -> Token[Mapping[str, Any]]:
    """From now on, what this thread logs belongs to this run; undone by :func:`belongs_to_none`."""
    return _doing.set({**_doing.get(), "logs": logs})


def belongs_to_none(token: Token[Mapping[str, Any]]) -> None:
    """Undoes :func:`belongs_to`; in another thread there is nothing to undo."""
    with contextlib.suppress(ValueError):
        _doing.reset(token)


class CaptureHandler(logging.Handler):
    """Turns records of :mod:`logging` into lines.

    Args:
        write: Takes a line and the folder of the logs that it belongs to, or None if the thread did not say.
        ids: What all lines bear.
    """

    def __init__(self, write: Callable[[Line, Path | None], None], ids: Mapping[str, Any]) -> None:
        super().__init__()
        self._write = write
        self._ids = dict(ids)
        self._redact = make_redactor()

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record; a log that cannot be written never disturbs who logs."""
        try:
            said = {**_doing.get(), **getattr(record, "about", {})}
            logs = said.pop("logs", None)
            output = [*said.pop("output", ())]
            if record.exc_info:
                output += _FORMATTER.formatException(record.exc_info).splitlines()
            line: Line = {
                "event": "log",
                **self._ids,
                **said,
                "time": rfc3339(record.created),
                "level": level_name(record.levelno),
                "message": self._redact(record.getMessage()),
                "logger": record.name,
                "output": [self._redact(text) for text in output] or None,
            }
            self._write(line, logs)
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the name is logging's)
        """Says nothing: logging would print a traceback for every line."""


def level_name(number: int) -> str:
    """Returns the word for a level of :mod:`logging`."""
    return LEVELS[min(max(number // 10, 1), 4) - 1]


def capture(handler: logging.Handler, level: str) -> Callable[[], None]:
    """Lets a handler hear what the packages log from a level on.

    Args:
        handler: Hears it.
        level: One of :data:`pilotwave.report.log_lines.LEVELS`.

    Returns:
        A function that undoes it.
    """
    number = (LEVELS.index(level) + 1) * 10
    handler.setLevel(number)
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        if logger.getEffectiveLevel() > number:
            logger.setLevel(number)

    def undo() -> None:
        for logger, old in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            if not any(isinstance(other, CaptureHandler) for other in logger.handlers):
                logger.setLevel(old)

    return undo


class WorkerLogs:
    """The files of one worker, one per run that it works for; opened when there is something to write.

    Args:
        worker: Its name, e.g. ``"evaluator-3"``.
        logs: Where lines go of which nobody said to which run they belong.
        ids: What all lines bear, e.g. ``actor`` and ``node``.
    """

    def __init__(self, worker: str, logs: Path, ids: Mapping[str, Any]) -> None:
        self._worker = worker
        self._default = logs
        self._ids = {"worker": worker, "host": socket.gethostname(), "pid": os.getpid(), **ids}
        self._files: dict[Path, LogFile] = {}
        self._known: dict[Path, Mapping[str, Any]] = {}

    def install(self) -> Callable[[], None]:
        """Takes over what the packages log in this process; returns what undoes it."""
        level = self._about(self._default).get("level", "info")
        undo = capture(CaptureHandler(self.write, self._ids), "error" if level == "none" else level)

        def close() -> None:
            undo()
            for file in self._files.values():
                file.close()
            self._files.clear()

        return close

    def write(self, line: Line, logs: Path | None) -> None:
        """Writes a line into the file of the run that it belongs to, if that run keeps such lines and is seen."""
        folder = logs or self._default
        about = self._about(folder)
        level = about.get("level", "none")
        if level == "none" or LEVELS.index(line["level"]) < LEVELS.index(level):
            return
        if folder not in self._files:
            self._files[folder] = LogFile(folder / f"{self._worker}.jsonl", WORKER_BYTES, 2)
        named = {name: about.get(name) for name in ("campaign", "run")}
        self._files[folder].write(in_order({**named, **line}), now=True)

    def _about(self, folder: Path) -> Mapping[str, Any]:
        """Returns what the run says of itself; it has a name once it has begun."""
        known = self._known.get(folder, {})
        if not known.get("run"):
            with contextlib.suppress(OSError, ValueError):
                known = self._known[folder] = json.loads((folder / ABOUT_FILE).read_text())
        return known


__all__ = [
    "ABOUT_FILE",
    "CaptureHandler",
    "WorkerLogs",
    "asking",
    "belongs_to",
    "belongs_to_none",
    "capture",
    "doing",
    "level_name",
]
