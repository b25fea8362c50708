"""A study from Python: load, run, resume, look at the best.

::

    from pilotwave import Study
    result = Study.from_yaml("study.yaml").run()
    print(result.best.point, result.best.loss)

May import :mod:`pilotwave.config`, :mod:`pilotwave.archive` and the modules beside it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave.campaign import Campaign, free_run_dir
from pilotwave.errors import PilotwaveError
from pilotwave.execution.job import Interrupt, never
from pilotwave.tuning.checks import check_campaigns
from pilotwave.tuning.config import StudyConfig, check_study, load_study, with_campaign
from pilotwave.tuning.ledger import StudyDirectory, TrialRecord, read_trials
from pilotwave.tuning.results import FILES, best_of, ranked
from pilotwave.tuning.space import Point
from pilotwave.tuning.tuner import Observer, StudyJob, StudyOutcome, StudyProgress, open_tuner


@dataclass(frozen=True)
class BestTrial:
    """The best of a study.

    Attributes:
        number: Its own.
        point: What it tried.
        loss: What was minimised.
    """

    number: int
    point: Point
    loss: float


@dataclass(frozen=True)
class StudyResult:
    """What a study left behind.

    Attributes:
        study_dir: Where its ledger, its trials and its results are.
        outcome: How this driver ended.
    """

    study_dir: Path
    outcome: StudyOutcome

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials, the best first."""
        return ranked(read_trials(StudyDirectory(self.study_dir).ledger_file).values())

    @property
    def best(self) -> BestTrial | None:
        """The best trial, or None if none has ended."""
        found = best_of(self.trials)
        if found is None or found.ended is None:
            return None
        return BestTrial(found.number, found.point, found.ended.loss)

    @property
    def spent(self) -> int:
        """Questions of all trials."""
        return sum(0 if record.last is None else record.last.spent for record in self.trials)

    @property
    def files(self) -> dict[str, Path]:
        """What was written for people, by what it is."""
        return {what: self.study_dir / name for what, name in FILES.items() if (self.study_dir / name).exists()}


class Study:
    """One study: a checked search that can be run and resumed.

    Args:
        config: Checked in itself; :meth:`check` looks at its campaigns.
        source: What to call it in messages.
        study_dir: Where it lies, if it was begun.
    """

    def __init__(self, config: StudyConfig, source: str = "study", study_dir: Path | None = None) -> None:
        self.config = config
        self.study_dir = study_dir
        self._source = source

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> Study:
        """Reads a study file.

        Raises:
            ConfigError: One line that says what is wrong and where.
        """
        return cls(load_study(Path(path), overrides), str(path))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Study:
        """Takes the fields of a study file.

        Raises:
            ConfigError: One line that says what is wrong and where.
        """
        return cls(check_study(with_campaign(fields, Path(), "study")))

    @classmethod
    def of_directory(cls, study_dir: str | Path, overrides: Sequence[str] = ()) -> Study:
        """Reads the study of a directory.

        Args:
            study_dir: Where it lies.
            overrides: Changes to samples, budget, runtime and the like.

        Raises:
            RunDirectoryError: There is none.
        """
        directory = StudyDirectory(Path(study_dir))
        directory.config()
        return cls(load_study(directory.study_file, overrides), str(directory.study_file), directory.path)

    def check(self) -> None:
        """Makes sure, without paying for anything, that all that may be tried is right and can run here.

        Raises:
            InputError: One line that says what is wrong and where.
        """
        plan = check_campaigns(self.config, self._source)
        for campaign in plan.campaigns:
            Campaign(campaign.config).check()
        open_tuner().check(self.config)

    def run(
        self,
        study_dir: str | Path | None = None,
        *,
        observe: Observer | None = None,
        interrupt: Interrupt | None = None,
        launched: float | None = None,
    ) -> StudyResult:
        """Runs the study; in a directory that holds it already, it goes on.

        Args:
            study_dir: ``runs/<name>`` by default, with a number if another one is there.
            observe: Told of progress.
            interrupt: Saves and stops when set.
            launched: When the user began to wait, seconds since the epoch; now by default.

        Raises:
            PilotwaveError: It is wrong, could not start, or could not go on.
        """
        launched = time.time() if launched is None else launched
        self.check()
        place = study_dir or self.study_dir or self._place()
        directory = StudyDirectory(Path(place))
        with directory.lock():
            new = not directory.exists()
            if new:
                directory.create(self.config)
            else:
                directory.adopt(self.config)
            job = StudyJob(self.config, directory.path, launched)
            try:
                outcome = open_tuner().run(job, observe or _ignore, interrupt or never())
            except PilotwaveError:
                if new and not read_trials(directory.ledger_file):
                    _clear(directory)  # nothing was tried: the user can mend and repeat
                raise
        return StudyResult(directory.path, outcome)

    def resume(self, study_dir: str | Path, **options: Any) -> StudyResult:
        """Goes on where the ledger of a study stands; see :meth:`run`.

        Raises:
            RunDirectoryError: There is no study here, or another one.
        """
        StudyDirectory(Path(study_dir)).config()
        return self.run(study_dir, **options)

    def _place(self) -> Path:
        """``runs/<name>`` if it is free or holds this very study, otherwise with a number."""
        usual = Path("runs") / self.config.name
        return usual if StudyDirectory(usual).holds(self.config) else free_run_dir(self.config.name)


def _clear(directory: StudyDirectory) -> None:
    for item in directory.path.iterdir():
        if item.is_dir():
            shutil.rmtree(item, ignore_errors=True)
        elif item.name != ".lock":
            item.unlink(missing_ok=True)


def _ignore(progress: StudyProgress) -> None:
    del progress


__all__ = ["BestTrial", "Study", "StudyResult"]
