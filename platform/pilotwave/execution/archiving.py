"""A campaign's ties to a project archive: what it takes from there, and what it leaves there.

Before a question is paid for, the archive is asked for its answer (:mod:`pilotwave.execution.recall`); a new
campaign may begin with earlier answers (:mod:`pilotwave.execution.warm_start`); all that the campaign pays for is
copied there (:mod:`pilotwave.execution.archive_recorder`). What is taken is written into the run's own ledger, so a
resumed campaign never asks the archive again about it. An archive that stops working costs savings, never answers.

How it ends: questions that are answered from the archive do not count against the budget, so a campaign also ends
once ``budget.queries`` of them in a row were. A campaign that is run a second time therefore costs nothing and
ends as the first one did.

May import :mod:`pilotwave.archive`, :mod:`pilotwave.config` and the modules beside it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.project.record import AnswerRecord
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.config.campaign import Archive, CampaignConfig
from pilotwave.config.loading import read_yaml
from pilotwave.errors import InputError, MissingDependencyError, PilotwaveError, StorageError
from pilotwave.execution.archive_recorder import ArchiveRecorder
from pilotwave.execution.recall import Question, Recall, Recalled
from pilotwave.execution.warm_start import Answer, compatible_elsewhere, earlier_answers
from pilotwave.execution.workers import WorkerFacts
from pilotwave.types import Candidate, Evaluation

if TYPE_CHECKING:
    from pilotwave.archive.project import ProjectArchive

CLOSING_SECONDS = 15.0
"""How long the end of a campaign waits for its last answers to reach the archive."""
CREATING_SECONDS = 2.0
"""How long another campaign may take to make the same archive."""
UNVERSIONED = ("callable",)
"""Oracles whose version says nothing unless it was given: any function of that name is version 1."""


def check_archive(section: Archive) -> None:
    """Makes sure that an archive can be here: that this version can read it, or that its folder is free.

    Raises:
        MissingDependencyError: A package is not installed.
        InputError: The path is a file, or a folder that holds something else; the archive is of another format.
    """
    needed = [
        "pyarrow",
        *(["duckdb"] if section.warm_start else []),
        *(["numba"] if section.reuse == "near" else []),
    ]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"archive needs {', '.join(missing)}, which is not installed; run: pip install 'pilotwave[archive]'"
        )
    from pilotwave.archive.project import ProjectArchive

    path = section.path
    if path.exists() and not path.is_dir():
        raise InputError(f"archive.path: expected a folder, but {path} is a file; choose another path")
    deadline = time.monotonic() + CREATING_SECONDS
    while not _is_archive(path) and not _is_free(path):
        if time.monotonic() > deadline:  # else another campaign may be making it just now
            raise InputError(
                f"archive.path: {path} is not empty and holds no archive; choose another one, e.g. {path / 'all'}"
            )
        time.sleep(0.05)
    if _is_archive(path):
        ProjectArchive.open(path, read_only=True).close()


def ensure_archive(section: Archive) -> None:
    """Makes an empty archive if there is none.

    Raises:
        InputError: See :func:`check_archive`.
        StorageError: It cannot be made.
    """
    from pilotwave.archive.project import ArchiveError, ProjectArchive

    check_archive(section)
    if _is_archive(section.path):
        return
    try:
        ProjectArchive.create(section.path, latents=section.latents).close()
    except OSError as error:
        raise StorageError(f"{section.path}: {error.strerror}; choose another archive.path") from error
    except ArchiveError:  # another campaign was faster
        check_archive(section)


class Archiving:
    """One driver's ties to the archive.

    Args:
        config: With an ``archive`` section.
        run: The run's directory.
        note: Told what does not work, from any thread.
    """

    def __init__(self, config: CampaignConfig, run: RunDirectory, note: Callable[[str], None]) -> None:
        assert config.archive is not None
        self._config = config
        self._section = config.archive
        self._run = run
        self._note = note
        self._archive: ProjectArchive | None = None
        self._recall: Recall | None = None
        self._recorder: ArchiveRecorder | None = None
        self._question: Question
        self._noise_shape: tuple[int, ...]
        self._told: dict[str, Any]
        self._trouble = ""

    def open(self) -> None:
        """Opens the archive to read.

        Raises:
            InputError: It cannot be seen from here, or not be read.
        """
        from pilotwave.archive.project import ProjectArchive

        if not _is_archive(self._section.path):
            raise InputError(
                f"archive.path: the optimizer cannot see {self._section.path}; put the archive on storage that all "
                "nodes share"
            )
        self._archive = ProjectArchive.open(self._section.path, read_only=True)

    def begin(self, facts: WorkerFacts) -> None:
        """Takes up work for a run whose start is in its ledger."""
        from pilotwave.archive.project import parameters_digest, run_id_of

        oracle = read_yaml(self._run.campaign_file)[0]["oracle"]
        parameters = parameters_digest(oracle)
        self._question = Question(facts.oracle, facts.oracle_version, parameters, facts.backbone)
        self._noise_shape = (facts.steps + 1, *facts.latent_shape)
        with Ledger.open(self._run.ledger_file, read_only=True) as ledger:
            run_id = run_id_of(ledger)
        self._told = {
            "campaign": self._config.name,
            "run_id": run_id,
            "contributor": self._section.contributor,
            "backbone": facts.backbone,
            "oracle": facts.oracle,
            "oracle_version": facts.oracle_version,
            "oracle_parameters": parameters,
            "deterministic": facts.deterministic,
        }
        reuse = self._section.reuse or self._default_reuse(facts)
        if reuse != "off":
            near = self._section.near if reuse == "near" else None
            self._recall = Recall(self._question, run_id, near, self._section.radius or 0.0)
            self._learn_what_the_ledger_has()
        self._recorder = ArchiveRecorder(self._section.path, self._run.ledger_file, self._told, self._note)
        self._recorder.wake()  # what an earlier driver did not get to

    def earlier_answers(self) -> list[Answer]:
        """Returns what a new campaign begins with; nothing if none is wanted or there is nothing that fits."""
        section = self._section
        if not section.warm_start or self._archive is None:
            return []
        try:
            answers = earlier_answers(
                self._archive,
                self._question,
                self._config.objective,
                section.warm_start,
                self._config.seed,
                self._noise_shape,
            )
            elsewhere = 0 if answers else compatible_elsewhere(self._archive, self._question)
        except (PilotwaveError, OSError) as error:
            self._say_once(f"no warm start: {error}")
            return []
        if answers:
            self._note(f"warm start with {len(answers)} earlier answers")
        else:
            why = f"; {elsewhere} were made by other backbones" if elsewhere else ""
            self._note(f"no warm start: the archive has no answers to this question on this backbone{why}")
        return answers

    def recall(self, candidate: Candidate) -> Recalled:
        """Looks for an answer before it is paid for."""
        if self._recall is None or self._archive is None:
            return Recalled()
        try:
            return self._recall(self._archive, candidate)
        except (PilotwaveError, OSError) as error:
            self._say_once(f"the archive cannot be read, so the oracle is asked: {error}")
            return Recalled()

    def learn(self, candidate: Candidate, evaluation: Evaluation) -> None:
        """Takes note of an answer that was paid for, for questions near it."""
        if self._recall is not None and self._recall.near is not None and evaluation.reused_from is None:
            lighter = dataclasses.replace(candidate, noise_sequence=torch.zeros(0), sample=None)
            self._recall.own.add([AnswerRecord.of(lighter, evaluation, **self._told)])

    def wake(self) -> None:
        """Says that answers have been settled; returns at once."""
        if self._recorder is not None:
            self._recorder.wake()

    def close(self, seconds: float = CLOSING_SECONDS) -> str:
        """Copies what is left and lets go; a second call does nothing.

        Returns:
            One line about answers that are not in the archive, or an empty text.
        """
        recorder, self._recorder = self._recorder, None
        left = "" if recorder is None else recorder.close(seconds)
        archive, self._archive = self._archive, None
        if archive is not None:
            archive.close()
        return left

    def _learn_what_the_ledger_has(self) -> None:
        if self._recall is None or self._recall.near is None:
            return
        with Ledger.open(self._run.ledger_file, read_only=True) as ledger:
            for event in ledger.events():
                if event.kind is EventKind.SETTLED:
                    evaluation = event.evaluation()
                    self.learn(ledger.candidate(evaluation.query_id), evaluation)

    def _default_reuse(self, facts: WorkerFacts) -> str:
        oracle = self._config.oracle
        if oracle.kind in UNVERSIONED and "version" not in oracle.model_fields_set:
            self._note(
                "a function has no version, so its answers are not reused; say archive.reuse: exact if it is"
            )
            return "off"
        return "exact" if facts.deterministic else "off"

    def _say_once(self, line: str) -> None:
        if line != self._trouble:
            self._trouble = line
            self._note(line)


def _is_archive(path: Path) -> bool:
    return (path / "manifest.json").exists()


def _is_free(path: Path) -> bool:
    return not path.is_dir() or all(item.name == ".lock" for item in path.iterdir())


__all__ = ["Archiving", "check_archive", "ensure_archive"]
