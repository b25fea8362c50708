"""No tracking: the ledger alone keeps what happened. May import the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pilotwave.config.components import TrackingConfig


class NoTrackingConfig(TrackingConfig):
    """Tracks nothing."""

    summary: ClassVar[str] = "No tracking; the ledger alone keeps what happened."

    kind: Literal["none"]

    def build(self, run_dir: Path) -> NoTracker:
        del run_dir
        return NoTracker()


class NoTracker:
    """See :class:`pilotwave.protocols.Tracker`; does nothing, on purpose."""

    def start(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Does nothing."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Does nothing."""

    def artifact(self, path: str) -> None:
        """Does nothing."""

    def finish(self, status: str) -> None:
        """Does nothing."""

    def describe(self) -> str:
        """Returns nothing to say."""
        return ""


__all__ = ["NoTracker", "NoTrackingConfig"]
