"""Writes a study down with any tracker: one run for the study, a child of it for every trial.

The campaigns of a trial have no runs of their own: their figures are the trial's, their ledgers have the rest. A
trial that is taken up again goes on in its run. May import :mod:`pilotwave.config` and the modules beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pilotwave.config.components import TrackingConfig
from pilotwave.protocols import Tracker
from pilotwave.tuning.ledger import TrialRecord
from pilotwave.tuning.standing import Standing

STATUSES = {"finished": "finished", "stopped": "finished", "interrupted": "killed"}
"""From how a trial ended to how its run does; one that was stopped early has done its part."""


@runtime_checkable
class ParentTracker(Tracker, Protocol):
    """A tracker whose run may have children."""

    def child_tags(self) -> Mapping[str, str]:
        """Returns the tags that make another run a child of this one; none where this one could not be opened."""
        ...

    def tag(self, tags: Mapping[str, str]) -> None:
        """Adds tags to the run."""


class TrackedStudy:
    """The runs of a study; fails open: what goes wrong is a warning.

    Args:
        config: Of the study.
        study_dir: Its directory.
        name: Its name.

    Attributes:
        warnings: What went wrong.
    """

    def __init__(self, config: TrackingConfig, study_dir: Path, name: str) -> None:
        self.warnings: list[str] = []
        self._config = config
        self._study_dir = study_dir
        self._name = name
        self._study: Tracker | None = None
        self._trials: dict[int, Tracker] = {}

    def open(self, parameters: Mapping[str, Any]) -> None:
        """Opens the study's run, the one before if it is resumed."""
        self._study = self._opened(self._config, self._study_dir, parameters, {"pilotwave.study": self._name})

    def trial(self, record: TrialRecord, folder: Path) -> None:
        """Opens a trial's run."""
        if self._study is None or record.number in self._trials:
            return
        config = self._config.nested(self._study_dir, self._name, f"trial-{record.number:04d}")
        tags = {"pilotwave.study": self._name, "pilotwave.trial": str(record.number), "run_dir": str(folder)}
        folder.mkdir(parents=True, exist_ok=True)
        tracker = self._opened(config, folder, {"trial": record.number, **record.point}, {**tags, **self._parent()})
        if tracker is not None:
            self._trials[record.number] = tracker

    def stood(self, standing: Standing) -> None:
        """Logs how a trial stood when it was compared."""
        if standing.trial in self._trials:
            self._trials[standing.trial].log(_metrics(standing), step=standing.queries)

    def ended(self, standing: Standing) -> bool:
        """Closes the run of a trial; says whether it has one."""
        tracker = self._trials.pop(standing.trial, None)
        if tracker is None:
            return self._study is None
        figures = {f"final.{name}": value for name, value in _metrics(standing).items()}
        tracker.log(figures, step=standing.queries)
        for each in standing.campaigns:
            place = f"{each.task}.seed-{each.seed}"
            shown = {"spent": each.spent, "best": each.best, "queries_to_target": each.reached}
            known = {f"{what}.{place}": float(value) for what, value in shown.items() if value is not None}
            tracker.log(known, step=standing.queries)
        if isinstance(tracker, ParentTracker):
            tracker.tag({"pilotwave.ended": standing.over, **self._parent()})
        self._finish(tracker, STATUSES.get(standing.over, "failed"))
        return True

    def progress(self, best: float | None, spent: int, ended: int) -> None:
        """Logs how far the study is."""
        if self._study is not None:
            figures = {"spent": float(spent), "trials": float(ended)}
            self._study.log(figures if best is None else {**figures, "best_loss": best}, step=ended)

    def attach(self, files: Mapping[str, Path]) -> None:
        """Attaches the files of the study."""
        for path in files.values():
            if self._study is not None and path.exists():
                self._study.artifact(str(path))

    def close(self, status: str) -> str:
        """Closes all runs and returns one line: where they are."""
        for tracker in self._trials.values():
            self._finish(tracker, "killed")
        self._trials.clear()
        if self._study is None:
            return ""
        self._finish(self._study, status)
        return self._study.describe()

    def _opened(
        self, config: TrackingConfig, folder: Path, parameters: Mapping[str, Any], tags: Mapping[str, str]
    ) -> Tracker | None:
        try:
            tracker = config.build(folder)
            tracker.start(self._name, parameters, tags)
        except Exception as error:  # tracking fails open, whatever a plug-in raises
            self.warnings.append(f"tracking {config.kind!r} is off: {error}")
            return None
        return tracker

    def _parent(self) -> Mapping[str, str]:
        return self._study.child_tags() if isinstance(self._study, ParentTracker) else {}

    def _finish(self, tracker: Tracker, status: str) -> None:
        try:
            tracker.finish(status)
        except Exception as error:
            self.warnings.append(f"a tracked run could not be closed: {error}")


def _metrics(standing: Standing) -> dict[str, float]:
    return {"loss": standing.loss, "reached": float(standing.reached), "spent": float(standing.spent)}


__all__ = ["TrackedStudy"]
