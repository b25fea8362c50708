"""What can be taken out of a tracked run again: the contract, whatever keeps the run.

May import the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class MetricRow:
    """One logged value.

    Attributes:
        key: The metric's name.
        step: Queries spent.
        timestamp: Milliseconds since the epoch.
        value: The value.
    """

    key: str
    step: int
    timestamp: int
    value: float


@dataclass(frozen=True)
class MetricChange:
    """What a logged value becomes; ``value`` None: it goes."""

    key: str
    step: int
    timestamp: int
    value: float | None


class TrackedRun(Protocol):
    """A run in MLflow that can be changed behind the tracker's back; no driver may be at work.

    Attributes:
        where: One line for people.
        needs_collection: Whether an operator has to run ``mlflow gc`` afterwards.
    """

    where: str
    needs_collection: bool

    def files(self) -> list[Path]:
        """Returns the local files that hold the run, for digests; none on a server."""
        ...

    def rows(self) -> list[MetricRow]:
        """Returns every logged value."""
        ...

    def artifacts(self) -> list[str]:
        """Returns the paths of the artifacts, relative to the run's."""
        ...

    def models(self) -> list[str]:
        """Returns the ids of the logged models of the run: what was learned holds the answers that it came from."""
        ...

    def model_files(self) -> list[Path]:
        """Returns the local files of these models; none on a server."""
        ...

    def delete_models(self) -> None:
        """Deletes these models, their files first; doing it again after a kill is safe.

        Raises:
            InfrastructureError: The database or server cannot be written.
            OSError: A file cannot be deleted.
        """
        ...

    def rewrite(self, changes: Sequence[MetricChange], artifacts: Mapping[str, Path | None], key: str) -> None:
        """Changes values and replaces or (None) removes artifacts; doing it again after a kill is safe.

        Args:
            changes: The values.
            artifacts: From an artifact's path to the file that replaces it.
            key: Of this forgetting, unique; a run that is logged again is found by it.

        Raises:
            InfrastructureError: The database or server cannot be written; what is done stays done.
        """
        ...


__all__ = ["MetricChange", "MetricRow", "TrackedRun"]
