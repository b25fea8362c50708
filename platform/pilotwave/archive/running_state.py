"""What a driver keeps in memory of its campaign: the details of what is going on, and counts of all that is over.

The ledger has the rest. So a driver needs as much memory for a million queries as for a thousand. May import
:mod:`pilotwave.archive`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pilotwave.archive.ledger import Event, EventKind
from pilotwave.archive.state import CampaignState
from pilotwave.types import Evaluation

LATELY = 64
"""So many times are kept."""


@dataclass
class RunningState(CampaignState):
    """A state without the details of the proposals that it was told to let go of.

    ``proposals``, ``reserved`` and ``settled`` hold what belongs to the other proposals, ``remembered`` what the
    algorithm was not told of, and ``told`` nothing; all counts are those of the whole campaign.

    Attributes:
        warm: How many answers of earlier campaigns were taken over.
        untold: The feasible candidates that the algorithm was not told of, each with its proposal.
        complete: The proposals that are here and whose queries have all ended, in the order in which they did.
        making: How long the last proposals took to make, in seconds.
        lowest: The lowest value so far and the first query that had it, or None.
        highest: Likewise.
    """

    warm: int = 0
    untold: dict[str, int] = field(default_factory=dict)
    complete: dict[int, None] = field(default_factory=dict)
    making: deque[float] = field(default_factory=lambda: deque(maxlen=LATELY))
    lowest: tuple[float, str] | None = None
    highest: tuple[float, str] | None = None
    _unsettled: dict[int, int] = field(default_factory=dict)
    _untold_of: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """Reduces the events of a ledger, in order; of the proposals that are over only the last one is here."""
        state = cls()
        for event in events:
            state.follow(event)
        return state

    def follow(self, event: Event) -> None:
        """Takes one more event into account, as somebody does who only looks on, and lets go of what is over."""
        self.apply(event)
        if event.kind in (EventKind.TOLD, EventKind.GENERATED):
            over = sorted(number for number in self.complete if self.is_told(number))
            for number in over[:-1]:
                self.let_go(number)

    def apply(self, event: Event) -> None:
        """Takes one more event into account."""
        super().apply(event)
        if event.kind is EventKind.GENERATED:
            number, feasible = event.record["proposal"], event.record["feasible"]
            self.making.append(event.record["seconds"])
            self.untold.update(dict.fromkeys(feasible, number))
            self._unsettled[number] = self._untold_of[number] = len(feasible)
            if not feasible:
                self.complete[number] = None
        elif event.kind is EventKind.REMEMBERED:
            self.warm += 1

    def is_told(self, number: int) -> bool:
        """Says whether a proposal was made and the algorithm knows how each of its candidates fared."""
        return self._untold_of.get(number) == 0

    def let_go(self, number: int) -> None:
        """Forgets the details of a proposal that is over."""
        for query_id in self.proposals.pop(number).query_ids:
            self.settled.pop(query_id, None)
            self.reserved.pop(query_id, None)
        for kept in (self.complete, self._unsettled, self._untold_of):
            kept.pop(number, None)

    def _settle(self, evaluation: Evaluation, record: Mapping[str, Any]) -> None:
        super()._settle(evaluation, record)
        number = self.untold.get(evaluation.query_id)
        if number is not None:
            self._unsettled[number] -= 1
            if not self._unsettled[number]:
                self.complete[number] = None
        value = evaluation.value
        if value is not None:
            if self.lowest is None or value < self.lowest[0]:
                self.lowest = (value, evaluation.query_id)
            if self.highest is None or value > self.highest[0]:
                self.highest = (value, evaluation.query_id)

    def _tell(self, query_ids: Sequence[str]) -> None:
        self._learn(query_ids)
        for query_id in query_ids:
            self.remembered.pop(query_id, None)
            number = self.untold.pop(query_id, None)
            if number is not None:
                self._untold_of[number] -= 1


__all__ = ["RunningState"]
