"""Writes a training run down with any tracker: settings, losses, measures, pictures of samples, the model card.

May import :mod:`pilotwave.protocols` and :mod:`pilotwave.training.progress`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pilotwave.protocols import Tracker
from pilotwave.training.progress import TrainingProgress, TrainingWatcher


class TrackedTraining(TrainingWatcher):
    """Tells a tracker what a trainer tells; the run is opened at the first step, so bad input leaves none behind.

    A resumed run goes on in the tracker's run of before, which the tracker finds by the folder.

    Args:
        tracker: Not started yet.
        name: Of the experiment, e.g. ``"train-molecule"``.
        parameters: The settings of the run.
        tags: For the run, e.g. the kind of model.
        files: Attached whenever they changed; those that are not there are left out.
    """

    def __init__(
        self,
        tracker: Tracker,
        name: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        files: Sequence[Path],
    ) -> None:
        self._tracker = tracker
        self._name, self._parameters, self._tags = name, parameters, tags
        self._attached = {path: _version(path) for path in files}
        self._started = False

    def tick(self, seen: int, total: int, loss: float) -> None:
        """Opens the run."""
        if not self._started:
            self._started = True
            self._tracker.start(self._name, self._parameters, self._tags)

    def __call__(self, progress: TrainingProgress) -> None:
        """Logs a report against the examples seen."""
        self.tick(progress.seen, progress.total, progress.loss)
        figures = {"loss": progress.loss, "per_second": progress.per_second, **progress.quality}
        if progress.held_out_loss is not None:
            figures["held_out_loss"] = progress.held_out_loss
        known = {name: value for name, value in figures.items() if math.isfinite(value)}
        self._tracker.log(known, step=progress.seen)
        self._attach()

    def finish(self, status: str) -> str:
        """Closes the run and returns one line: where it is; nothing if it was never opened."""
        if not self._started:
            return ""
        self._attach()
        self._tracker.finish(status)
        return self._tracker.describe()

    def _attach(self) -> None:
        for path, before in self._attached.items():
            now = _version(path)
            if now != before:
                self._attached[path] = now
                self._tracker.artifact(str(path))


def _version(path: Path) -> tuple[int, int] | None:
    """Returns what changes when a file is written anew, or None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


__all__ = ["TrackedTraining"]
