"""What a campaign says of itself while it runs: to its log, to metrics, to whoever listens.

A listener hears every event that is in the ledger, and what the ledger does not hold: phases, notes, errors, how
full the queues are. None can stop a campaign: one that raises is left out from then on, and the user is told once.
May import :mod:`pilotwave.archive` and :mod:`pilotwave.execution.job`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Protocol

from pilotwave.archive.ledger import Event
from pilotwave.archive.state import CampaignState
from pilotwave.execution.job import CampaignJob, Observer, Phase, Progress


class Level(IntEnum):
    """How much a line matters, with the numbers of :mod:`logging`."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class Telemetry(Protocol):
    """A listener. It is called in the loop's thread, for every query several times: it must return at once.

    Attributes:
        name: In the warning that it was left out, e.g. ``"the log"``.
    """

    name: str

    def opened(self, job: CampaignJob, state: CampaignState) -> None:
        """A driver takes the campaign up.

        Args:
            job: What is run.
            state: What the ledger says so far; it goes on changing as events happen.
        """
        ...

    def happened(self, event: Event) -> None:
        """An event was written to the ledger and is part of the state."""
        ...

    def entered(self, phase: Phase) -> None:
        """The campaign does something else now."""
        ...

    def noted(self, level: Level, event: str, message: str, proposal: int | None = None) -> None:
        """Something happened that is no event of the ledger.

        Args:
            level: How much it matters.
            event: What kind of thing, one word or two joined by a dash, e.g. ``"generation-failed"``.
            message: One line for people.
            proposal: Which one it is about, if it is about one.
        """
        ...

    def looked(self, progress: Progress) -> None:
        """Somebody looks, at most four times a second."""
        ...

    def close(self, reason: str) -> None:
        """The driver lays the campaign down, or this listener has failed.

        Args:
            reason: ``"finished"``, ``"finished-early"``, ``"interrupted"``, ``"breaker"`` or ``"failed"``.
        """
        ...


class Telemetries:
    """All listeners of a campaign, of whom none can harm it.

    Args:
        listeners: In the order in which they are told.
        warn: Told once of a listener that failed.
    """

    def __init__(self, listeners: Sequence[Telemetry], warn: Callable[[str], None]) -> None:
        self._listeners = tuple(listeners)
        self._warn = warn

    def opened(self, job: CampaignJob, state: CampaignState) -> None:
        self._tell(lambda listener: listener.opened(job, state))

    def happened(self, event: Event) -> None:
        for listener in self._listeners:  # several times a query: no closure
            try:
                listener.happened(event)
            except Exception as error:
                self._leave_out(listener, error)

    def entered(self, phase: Phase) -> None:
        self._tell(lambda listener: listener.entered(phase))

    def noted(self, level: Level, event: str, message: str, proposal: int | None = None) -> None:
        self._tell(lambda listener: listener.noted(level, event, message, proposal))

    def observing(self, observe: Observer) -> Observer:
        """Returns an observer that tells the listeners, too."""

        def both(progress: Progress) -> None:
            observe(progress)
            self._tell(lambda listener: listener.looked(progress))

        return both

    def close(self, reason: str) -> None:
        self._tell(lambda listener: listener.close(reason))
        self._listeners = ()

    def _tell(self, call: Callable[[Telemetry], None]) -> None:
        for listener in self._listeners:
            try:
                call(listener)
            except Exception as error:  # a full disk, a plug-in: whatever it is, the campaign goes on
                self._leave_out(listener, error)

    def _leave_out(self, listener: Telemetry, error: Exception) -> None:
        self._listeners = tuple(other for other in self._listeners if other is not listener)
        with contextlib.suppress(Exception):
            listener.close("failed")  # what it has hold of, files and handlers, it shall let go
        self._warn(f"{listener.name} is off from here on: {type(error).__name__}: {error}")


__all__ = ["Level", "Telemetries", "Telemetry"]
