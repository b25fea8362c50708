"""Whether one more question may be asked: the limits of a budget against what the ledger says was spent.

It has no numbers of its own: everything is read off the state that the ledger reduces to, so whatever order things
happen in, and wherever a driver was killed, nothing is counted twice or not at all. May import
:mod:`pilotwave.archive`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from pilotwave.archive.spending import SECONDS_PER_HOUR, GivenLimits, Limits
from pilotwave.archive.state import CampaignState


@dataclass(frozen=True)
class Budgets:
    """The budgets of one campaign.

    Attributes:
        state: What the ledger says; it changes as events are written.
        given: The limits that this driver was started with.
        declared_cost: What the oracle's configuration expects an attempt to cost, or None.
        launched: When the user began to wait for this driver.
        clock: Seconds since the epoch.
    """

    state: CampaignState
    given: Limits
    declared_cost: float | None
    launched: float
    clock: Callable[[], float]
    _held: list[tuple[GivenLimits, Limits]] = field(default_factory=list, compare=False, repr=False)

    @property
    def limits(self) -> Limits:
        """What holds, with all that was added while it ran."""
        given = self.state.limits
        if not self._held or self._held[0][0] != given:  # it is asked several times a query
            self._held[:] = [(replace(given), given.after(self.given))]
        return self._held[0][1]

    @property
    def expected_cost(self) -> float:
        """Of the next attempt."""
        return self.state.spending.expected(self.declared_cost)

    def active_seconds(self) -> float:
        """Returns how long drivers have been at work until now, pauses not counted."""
        state = self.state
        at_work = state.launched == self.launched and state.stopped is None and not state.paused
        if state.last_time is None or not at_work:
            return state.active_seconds
        return state.active_seconds + max(0.0, self.clock() - state.last_time)

    def refusal(self, query_id: str | None = None) -> str:
        """Returns the name of the budget that forbids an attempt, or an empty text if it may be made.

        Args:
            query_id: Of the question; None for a new one.
        """
        limits, state = self.limits, self.state
        if query_id not in state.reserved and state.spent >= limits.queries:
            return "queries"
        if not state.spending.affords(1, limits.cost, self.declared_cost):
            return "cost"
        if limits.wall_hours is not None and self.active_seconds() >= limits.wall_hours * SECONDS_PER_HOUR:
            return "wall_hours"
        return ""

    def left(self, promised: int, waiting: Collection[str] = ()) -> int:
        """Returns how many new questions may still be thought of.

        Args:
            promised: Candidates and proposals on their way that were not asked about.
            waiting: Queries that were asked and will be again.
        """
        limits, state = self.limits, self.state
        if self.refusal() == "wall_hours":
            return 0
        left = limits.queries - state.spent - promised
        if limits.cost is not None:
            affordable = state.spending.affordable(limits.cost, self.declared_cost)
            if affordable is not None:
                left = min(left, affordable - promised - len(waiting))
        return max(0, left)


__all__ = ["Budgets"]
