"""What a campaign may spend and what it has spent: limits, and the cost of every attempt from asking to its end.

Both are a pure reduction of ledger events, so that the loop, a resumed loop and ``status`` never count
differently. May import the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

DEFAULT_COST = 1.0
"""What an attempt is expected to cost before one was seen and where the oracle's configuration does not say."""
TOLERANCE = 1e-9
"""Of a sum of costs, relative to the limit: ten times 0.1 is within 1."""
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Limits:
    """The budget of a campaign.

    Attributes:
        queries: How many candidates the oracle may be asked about.
        cost: What all attempts together may cost, in the oracle's unit, or None for no limit.
        wall_hours: For how long drivers may be at work in all, or None for no limit.
    """

    queries: int
    cost: float | None = None
    wall_hours: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns what the ledger keeps."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Inverts :meth:`to_json`; what is missing is unlimited."""
        return cls(int(record["queries"]), record.get("cost"), record.get("wall_hours"))


@dataclass
class GivenLimits:
    """Which limits hold, when some were given with the campaign and others while it ran.

    What was added while a campaign ran survives a ``resume``: a value that a later start gives counts only if it is
    a new one, that is neither the campaign file's nor the one given at the last start.

    Attributes:
        first: Of the first start: the campaign file's.
        last: Given at the last start.
        now: What holds.
    """

    first: Limits | None = None
    last: Limits | None = None
    now: Limits | None = None

    def after(self, given: Limits) -> Limits:
        """Returns what holds once a driver starts with these."""
        if self.first is None or self.last is None or self.now is None:
            return given
        chosen = {}
        for item in fields(Limits):
            value = getattr(given, item.name)
            is_old = value in (getattr(self.first, item.name), getattr(self.last, item.name))
            chosen[item.name] = getattr(self.now, item.name) if is_old else value
        return Limits(**chosen)

    def start(self, given: Limits) -> None:
        """Takes note of a driver that started with these."""
        self.now = self.after(given)
        self.first = self.first or given
        self.last = given


@dataclass
class Spending:
    """The cost of all attempts.

    An attempt holds its expected cost from when it is reserved until it ends; then it costs what it cost. One whose
    end never came (the driver was killed) was perhaps billed: it costs what was expected once it is made again. One
    that was taken for lost, and whose answer is found after all, costs once.

    Attributes:
        ended: Of all attempts that ended, lost ones included.
        held: Of those that have not, by query.
        held_in_all: Their sum.
        lost: What attempts cost that ended without an answer, by query and attempt, until the query ends.
        largest: The largest cost of one attempt so far, or None before one cost anything.
    """

    ended: float = 0.0
    held: dict[str, float] = field(default_factory=dict)
    held_in_all: float = 0.0
    lost: dict[str, dict[int, float]] = field(default_factory=dict)
    largest: float | None = None

    @property
    def committed(self) -> float:
        """What was spent or may turn out to be."""
        return self.ended + self.held_in_all

    def expected(self, declared: float | None = None) -> float:
        """Returns what the next attempt is taken to cost: the largest seen, and no less than what is declared."""
        if self.largest is None:
            return DEFAULT_COST if declared is None else declared
        return self.largest if declared is None else max(self.largest, declared)

    def reserve(self, query_id: str, cost: float) -> None:
        """Takes note that an attempt begins."""
        self.ended += self._let_go(query_id)  # an earlier one that was lost
        self.held[query_id] = cost
        self.held_in_all += cost

    def lose(self, query_id: str, attempt: int, cost: float) -> None:
        """Takes note that an attempt ended without an answer and will be repeated."""
        self._charge(query_id, cost)
        self.lost.setdefault(query_id, {})[attempt] = cost

    def end(self, query_id: str, cost: float, attempt: int = 1) -> None:
        """Takes note that a query ended with this attempt; an answer nobody asked for costs what it says."""
        self._charge(query_id, cost)
        self.ended -= self.lost.pop(query_id, {}).get(attempt, 0.0)  # it was taken for lost, and had answered

    def _charge(self, query_id: str, cost: float) -> None:
        self._let_go(query_id)
        self.ended += cost
        if cost > 0:  # one that never reached the oracle says nothing of what the next will cost
            self.largest = max(cost, self.largest or 0.0)

    def _let_go(self, query_id: str) -> float:
        """Stops holding an attempt's cost; returns it."""
        cost = self.held.pop(query_id, 0.0)
        # Nothing is held by nobody, whatever the rounding of a million sums.
        self.held_in_all = self.held_in_all - cost if self.held else 0.0
        return cost

    def affords(self, attempts: int, limit: float | None, declared: float | None = None) -> bool:
        """Says whether so many more attempts fit under a limit, if each costs what is expected."""
        if limit is None:
            return True
        return self.committed + attempts * self.expected(declared) <= limit * (1.0 + TOLERANCE)

    def affordable(self, limit: float, declared: float | None = None) -> int | None:
        """Returns how many more attempts fit under a limit; None for any number, if they are free."""
        expected = self.expected(declared)
        left = limit * (1.0 + TOLERANCE) - self.committed
        if expected <= 0:
            return None if left >= 0 else 0
        return max(0, int(left / expected))


__all__ = ["DEFAULT_COST", "SECONDS_PER_HOUR", "GivenLimits", "Limits", "Spending"]
