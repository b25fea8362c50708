"""No tracking: the run directory alone keeps what happened (kind ``none``).

May import :mod:`pilotwave.config.components` and :mod:`pilotwave.protocols`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pilotwave.config.components import TrackingConfig
from pilotwave.protocols import Tracker


class NoTrackingConfig(TrackingConfig):
    """``tracking: {kind: none}`` of a campaign file."""

    summary: ClassVar[str] = "nothing besides the run directory"

    kind: Literal["none"]

    def build(self, run_dir: Path) -> Tracker:
        """Returns a tracker that writes nothing."""
        del run_dir
        return NoTracker()


class NoTracker:
    """Takes everything and writes nothing."""

    def start(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None: ...

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def artifact(self, path: str) -> None: ...

    def finish(self, status: str) -> None: ...

    def describe(self) -> str:
        return "no tracking; choose `tracking: {kind: mlflow}` to see campaigns side by side"


__all__ = ["NoTracker", "NoTrackingConfig"]
