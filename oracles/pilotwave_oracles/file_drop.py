"""People, instruments and queues that take days: candidates out, results back, in a folder (kind ``file-drop``).

May import pydantic, pilotwave and pilotwave_oracles.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pilotwave.config.components import OracleConfig, TimeLimit, path_in_campaign
from pilotwave.errors import InputError, OracleFailure
from pilotwave.protocols import Oracle, QueryContext
from pilotwave.samples import SAMPLE_TYPES, Sample
from pilotwave.types import Answer
from pilotwave_oracles.exchange_folder import open_folder
from pilotwave_oracles.results_file import Columns, Result

DAY = 86_400.0


class FileDropOracleConfig(OracleConfig):
    """Writes candidates into a folder and waits, for days if need be, until their results lie there.

    A waiting question is a sleeping thread. ``runtime.evaluators`` says how many candidates may be out at once.
    """

    media: ClassVar[frozenset[str]] = frozenset(SAMPLE_TYPES)
    summary: ClassVar[str] = "Candidates out and results back in a folder: wet labs, instruments, queues."

    kind: Literal["file-drop"] = "file-drop"
    isolation: Literal["process", "thread"] = Field(
        "thread", description="Where questions wait: a thread is enough, and thousands may wait at once."
    )
    folder: Path = Field(
        description="Where candidates go and results are looked for (in its results folder); relative to the "
        "campaign file. Every campaign needs one of its own."
    )
    accepts: tuple[Literal["array", "image", "molecule"], ...] = Field(
        ("array", "image", "molecule"), min_length=1, description="The kinds of sample that are measured."
    )
    id_column: str = Field("id", min_length=1, description="Column or SD field with the id; else an SD title.")
    value_column: str = Field("value", min_length=1, description="Column or SD field with the measured value.")
    unit: str = Field("", description="Unit of the values; a result in another one is refused.")
    poll_seconds: float = Field(10.0, gt=0, le=DAY, description="How often results are looked for.")
    settle_seconds: float = Field(
        5.0, ge=0, le=DAY, description="A file counts once it was not changed for so long: it may still be copied."
    )
    time_limit: TimeLimit = Field(
        30 * DAY,
        description="Seconds after a candidate was written until it is given up; restarts do not begin anew.",
    )
    deterministic: bool = Field(False, description="Whether a result may be reused for the same sample.")
    version: str = Field("1", min_length=1, description="Name of the protocol by which is measured.")

    @field_validator("folder")
    @classmethod
    def _resolve(cls, folder: Path, info: ValidationInfo) -> Path:
        return path_in_campaign(folder, info)

    @model_validator(mode="after")
    def _has_a_limit(self) -> FileDropOracleConfig:
        if self.time_limit == "auto":
            raise ValueError("time_limit: auto learns seconds, and people take days; expected a number of seconds")
        if self.id_column.lower() == self.value_column.lower():
            raise ValueError(f"expected two columns, got {self.id_column!r} for both id and value")
        return self

    def build(self) -> Oracle:
        """Makes sure that the folder can be written to.

        Raises:
            InputError: It cannot.
        """
        return FileDropOracle(self)


class FileDropOracle:
    """See :class:`FileDropOracleConfig` and :class:`pilotwave.protocols.Oracle`."""

    def __init__(self, config: FileDropOracleConfig) -> None:
        self._config = config
        columns = Columns(config.id_column, config.value_column, config.unit)
        self._folder = open_folder(config.folder, columns, config.settle_seconds, config.poll_seconds)
        try:
            (config.folder / "results").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{config.folder}: {error.strerror}; choose another folder") from error
        self.name = f"file-drop:{config.folder.name}"
        self.version = config.version
        self.unit = config.unit
        self.media: frozenset[str] = frozenset(config.accepts)
        self.deterministic = config.deterministic

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Writes the candidate, unless an earlier attempt or process did, and waits for its result.

        Raises:
            OracleFailure: Stage ``"media"``, ``"parse"`` or ``"encode"``: it cannot be written; ``"folder"``: the
                disk refuses, or another campaign's candidate has this id; ``"measurement"``: the result is a
                failure; ``"wall-clock limit"``: no result in time.
        """
        if sample.media not in self.media:
            accepted = ", ".join(sorted(self.media))
            raise OracleFailure(f"{self.name} takes {accepted} samples, got {sample.media}", stage="media")
        entry = self._folder.put(context.query_id, sample)
        limit = self._config.longest
        while True:
            result = self._folder.result(context.query_id)
            if result is not None:
                return _answer(result)
            left = entry.written + limit - time.time()
            if left <= 0:
                raise OracleFailure(f"no result within {limit / DAY:.3g} days", stage="wall-clock limit")
            time.sleep(min(left, self._config.poll_seconds))

    def known_answer(self) -> None:
        """Has none: nobody measures for free."""
        return None


def _answer(result: Result) -> Answer:
    if result.value is None:
        message = f"{result.failure} ({result.place})"
        raise OracleFailure(" ".join(message.split()), stage="measurement", cost=result.cost)
    cost = 1.0 if result.cost is None else result.cost
    return Answer(result.value, dict(result.properties), result.fidelity or "standard", cost)


__all__ = ["FileDropOracle", "FileDropOracleConfig"]
