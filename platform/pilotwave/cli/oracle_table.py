"""Answers as CSV, each on the disk as soon as it is there: none that was paid for is lost to a later mishap."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pilotwave.report.input_files import NamedSample
    from pilotwave.types import Evaluation

COLUMNS = (
    "name",
    "sample",
    "status",
    "value",
    "unit",
    "fidelity",
    "cost",
    "seconds",
    "attempts",
    "stage",
    "message",
    "properties",
)


class AnswerTable:
    """Writes a line for each answer; without a file it does nothing."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file
        self._writer = None if file is None else csv.writer(file, lineterminator="\n")
        if self._writer is not None:
            self._writer.writerow(COLUMNS)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path | None) -> Iterator[Self]:
        """Opens the table.

        Raises:
            InputError: The file cannot be written.
        """
        from pilotwave.errors import InputError

        with contextlib.ExitStack() as files:
            file = None
            if path is not None:
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    file = files.enter_context(path.open("w", newline="", encoding="utf-8"))
                except OSError as error:
                    raise InputError(f"{path}: cannot be written: {error.strerror}") from error
            yield cls(file)

    def add(self, named: NamedSample, evaluation: Evaluation, unit: str) -> None:
        """Writes a line and flushes it."""
        if self._writer is None or self._file is None:
            return
        failure = evaluation.failure
        self._writer.writerow(
            (
                named.name,
                named.sample.label(),
                evaluation.status,
                "" if evaluation.value is None else repr(evaluation.value),
                unit,
                evaluation.fidelity if failure is None else "",
                evaluation.cost,
                "" if evaluation.timings is None else f"{evaluation.timings.seconds:.6g}",
                evaluation.attempt,
                "" if failure is None else failure.stage,
                "" if failure is None else failure.message,
                json.dumps(dict(evaluation.properties), sort_keys=True) if evaluation.properties else "",
            )
        )
        self._file.flush()


__all__ = ["COLUMNS", "AnswerTable"]
