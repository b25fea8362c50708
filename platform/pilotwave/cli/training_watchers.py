"""Several watchers of one training run, and the one that writes samples down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pilotwave.errors import MissingDependencyError
from pilotwave.report.training_samples import PICTURE_NAME, SDF_NAME, write_training_samples
from pilotwave.training.card import CARD_NAME
from pilotwave.training.progress import TrainingProgress, TrainingWatcher


class Watchers(TrainingWatcher):
    """Tells several watchers, in order; stops if any of them wants to."""

    def __init__(self, *watchers: TrainingWatcher) -> None:
        self._watchers = watchers

    def __call__(self, progress: TrainingProgress) -> None:
        for watcher in self._watchers:
            watcher(progress)

    def announce(self, line: str, *, passing: bool = False) -> None:
        for watcher in self._watchers:
            watcher.announce(line, passing=passing)

    def tick(self, seen: int, total: int, loss: float) -> None:
        for watcher in self._watchers:
            watcher.tick(seen, total, loss)

    def must_stop(self) -> bool:
        return any(watcher.must_stop() for watcher in self._watchers)


class SampleFiles(TrainingWatcher):
    """Writes the samples of each measurement into the output folder.

    Args:
        folder: Of the run.
        say: Takes a line if a package that draws is missing; the training goes on without pictures.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self._said = False

    @staticmethod
    def attached(folder: Path) -> list[Path]:
        """Returns the files of a run that a tracker keeps, whether they exist or not."""
        return [folder / name for name in (PICTURE_NAME, SDF_NAME, CARD_NAME)]

    def __call__(self, progress: TrainingProgress) -> None:
        try:
            write_training_samples(progress.samples, self._folder, progress.seen)
        except MissingDependencyError as error:
            if not self._said:
                self._say(f"no pictures of samples: {error}")
            self._said = True


__all__ = ["SampleFiles", "Watchers"]
