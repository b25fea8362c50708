"""A study's directory and its ledger: which points were suggested, how they stood, how they ended.

::

    STUDY_DIR/
        study.yaml           the resolved study
        study.jsonl          the ledger: one event a line, synchronised to disk
        trials/0001/         of each trial, a run directory per campaign, with a ledger of its own
        references/          what each task does unguided
        results.*, best.yaml for people

What was asked and answered stands in the ledgers of the campaigns; here stands only what they do not know. A driver
writes, anybody reads. May import :mod:`pilotwave.archive`, :mod:`pilotwave.storage` and the modules beside it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pilotwave.errors import RunDirectoryError, StorageError
from pilotwave.storage import held_folder, write_atomically
from pilotwave.tuning.config import StudyConfig, check_study, to_yaml
from pilotwave.tuning.space import Point
from pilotwave.tuning.standing import Reference, Standing

FORMAT = 1
WRITER_SECONDS = 20.0
"""How long a killed driver may take to be gone."""


class StudyDirectory:
    """Where a study lies; nothing is made until :meth:`create`."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @property
    def study_file(self) -> Path:
        """The resolved study."""
        return self.path / "study.yaml"

    @property
    def ledger_file(self) -> Path:
        """What happened."""
        return self.path / "study.jsonl"

    @property
    def best_file(self) -> Path:
        """The best campaign, ready to run."""
        return self.path / "best.yaml"

    def trial(self, number: int) -> Path:
        """Returns the folder of a trial."""
        return self.path / "trials" / f"{number:04d}"

    def exists(self) -> bool:
        """Says whether a study was begun here."""
        return self.ledger_file.exists()

    def create(self, study: StudyConfig) -> None:
        """Makes the directory, the resolved study and an empty ledger.

        Raises:
            RunDirectoryError: It holds something already.
            StorageError: It cannot be written.
        """
        if self.exists():
            raise RunDirectoryError(
                f"{self.path} holds a study already; go on with: pilotwave tune --resume {self.path}"
            )
        if self.path.is_dir() and any(item.name != ".lock" for item in self.path.iterdir()):
            raise RunDirectoryError(f"{self.path} is not empty and holds no study; choose another --study-dir")
        write_atomically(self.study_file, to_yaml(study).encode())
        begun = {
            "kind": "begun",
            "format": FORMAT,
            "study": study.identity(),
            "name": study.name,
            "time": time.time(),
        }
        write_atomically(self.ledger_file, (json.dumps(begun) + "\n").encode())

    def config(self) -> StudyConfig:
        """Reads the resolved study back.

        Raises:
            RunDirectoryError: There is no study here.
            ConfigError: Its file was damaged.
        """
        from pilotwave.config.loading import read_yaml

        if not self.exists():
            raise RunDirectoryError(f"{self.path}: no study here; give the directory of one, e.g. runs/my-study")
        fields, lines = read_yaml(self.study_file)
        return check_study(fields, source=str(self.study_file), lines=lines)

    def holds(self, study: StudyConfig) -> bool:
        """Says whether this very study was begun here."""
        begun = next(read_events(self.ledger_file), {}) if self.exists() else {}
        return begun.get("study") == study.identity()

    def adopt(self, study: StudyConfig) -> None:
        """Lets a study go on here, with more samples or budget if it has them.

        Raises:
            RunDirectoryError: Another study was begun here.
        """
        if not self.holds(study):
            raise RunDirectoryError(
                f"{self.path} belongs to another study; choose another --study-dir, or undo the change (samples, "
                "concurrent_trials, budget, scheduler, runtime and tracking may be changed)"
            )
        write_atomically(self.study_file, to_yaml(study).encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the directory for one driver; the lock goes with the process.

        Raises:
            RunDirectoryError: Another process holds it.
        """
        with held_folder(self.path, RunDirectoryError):
            yield

    def reference(self, task: str, seed: int) -> Reference | None:
        """Returns what a task does unguided with a seed, if that is known."""
        try:
            fields = json.loads(self._reference_file(task, seed).read_text(encoding="utf-8"))
            return Reference(float(fields["mean"]), float(fields["spread"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self._reference_file(task, seed)} cannot be read: {error}") from error

    def keep_reference(self, task: str, seed: int, found: Reference) -> Reference:
        """Keeps what a task does unguided; the first to know decides for all trials.

        Returns:
            What holds from now on.
        """
        path = self._reference_file(task, seed)
        mine = path.with_name(f".{path.name}.{os.getpid()}-{time.monotonic_ns()}")
        write_atomically(mine, json.dumps(asdict(found)).encode())
        try:
            os.link(mine, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links: the last of two at the same moment would win
            if not path.exists():
                os.replace(mine, path)
        finally:
            mine.unlink(missing_ok=True)
        return self.reference(task, seed) or found

    def _reference_file(self, task: str, seed: int) -> Path:
        return self.path / "references" / f"{task}-seed-{seed}.json"


@dataclass
class TrialRecord:
    """What a study knows of a trial.

    Attributes:
        number: Counts up, from 1.
        point: What it tries.
        cost: What it may spend.
        standings: As they were compared, in order.
        ended: The last standing, once it has ended for good.
        tracked: Whether the tracker knows its end.
    """

    number: int
    point: Point
    cost: int
    standings: list[Standing] = field(default_factory=list)
    ended: Standing | None = None
    tracked: bool = False

    @property
    def status(self) -> str:
        """``"finished"``, ``"stopped"``, ``"failed"``, or ``"open"``."""
        return "open" if self.ended is None else self.ended.over

    @property
    def last(self) -> Standing | None:
        """How it stood last."""
        return self.ended or (self.standings[-1] if self.standings else None)


class StudyLedger:
    """The open ledger of a study; one driver writes.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.trials: dict[int, TrialRecord] = {}
        self.events: list[dict[str, Any]] = []
        """Those that a searcher and a scheduler are taken through again, in order."""
        self._path = path
        try:
            self._file = path.open("r+b")
            self._hold(path)
            whole = 0
            for event in read_events(path):
                self._apply(event)
                whole = event["end"]
            self._file.truncate(whole)  # a line that a kill cut short was acknowledged to nobody
            self._file.seek(whole)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}; make it writable, then repeat") from error

    def close(self) -> None:
        """Closes the file and lets the next writer in."""
        self._file.close()

    def _hold(self, path: Path) -> None:
        """Waits until no other driver writes, here or on a cluster: a killed one is gone in a moment."""
        deadline = time.monotonic() + WRITER_SECONDS
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self._file.close()
                    raise RunDirectoryError(
                        f"{path.parent}: another driver is at work on this study; wait for it or stop it first"
                    ) from None
                time.sleep(0.1)

    def suggested(self, trial: int, point: Point, cost: int) -> TrialRecord:
        """Writes down that a point is tried."""
        self._append({"kind": "suggested", "trial": trial, "point": point, "cost": cost})
        return self.trials[trial]

    def stood(self, standing: Standing) -> None:
        """Writes down how a trial stood when it was compared."""
        self._append({"kind": "stood", "trial": standing.trial, "standing": standing.to_json()})

    def ended(self, standing: Standing) -> None:
        """Writes down how a trial ended for good."""
        self._append({"kind": "ended", "trial": standing.trial, "standing": standing.to_json()})

    def retried(self, trial: int) -> None:
        """Writes down that a failed trial is taken up again."""
        self._append({"kind": "retried", "trial": trial})

    def tracked(self, trial: int) -> None:
        """Writes down that the tracker knows how a trial ended."""
        self._append({"kind": "tracked", "trial": trial})

    def _append(self, event: dict[str, Any]) -> None:
        try:
            self._file.write((json.dumps({**event, "time": time.time()}) + "\n").encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}; free space, then resume the study") from error
        self._apply(json.loads(json.dumps(event)))

    def _apply(self, event: dict[str, Any]) -> None:
        apply_event(self.trials, event)
        if event["kind"] in ("suggested", "stood", "ended", "retried"):
            self.events.append(event)


def apply_event(trials: dict[int, TrialRecord], event: dict[str, Any]) -> None:
    """Takes one more event into account."""
    if "trial" not in event:
        return
    number = int(event["trial"])
    match event["kind"]:
        case "suggested":
            trials[number] = TrialRecord(number, event["point"], int(event["cost"]))
        case "stood":
            standing = Standing.from_json(event["standing"])
            record = trials[number]
            # A trial that was taken up again is compared anew, at the same numbers of questions.
            record.standings = [item for item in record.standings if item.queries < standing.queries] + [standing]
        case "ended":
            trials[number].ended = Standing.from_json(event["standing"])
        case "retried":
            trials[number].ended, trials[number].tracked = None, False
        case "tracked":
            trials[number].tracked = True


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the whole lines of a ledger, each with where it ends in the file.

    Raises:
        StorageError: It cannot be read.
        RunDirectoryError: It is of another format.
    """
    end = 0
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                event: dict[str, Any] = json.loads(line)
                if event.get("kind") == "begun" and event.get("format") != FORMAT:
                    raise RunDirectoryError(
                        f"{path}: expected format {FORMAT}, got {event.get('format')}; use a newer pilotwave"
                    )
                yield {**event, "end": end}
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: the ledger of the study cannot be read: {error}") from error


def read_trials(path: Path) -> dict[int, TrialRecord]:
    """Returns the trials of a study that may be at work."""
    trials: dict[int, TrialRecord] = {}
    for event in read_events(path):
        apply_event(trials, event)
    return trials


__all__ = ["FORMAT", "StudyDirectory", "StudyLedger", "TrialRecord", "read_events", "read_trials"]
