"""Whose turn it is when several campaigns share workers: the one with the fewest at work, then who waits longest.

Pure bookkeeping without a clock of its own; may import the standard library.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """What several askers want done.

    Each asker's own items keep their order. Between askers, whoever has the fewest items at work is next; among
    equals, whoever has waited longest: since its oldest item came or since its last turn, whichever is later.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[tuple[int, Item]]] = {}
        self._at_work: dict[str, int] = {}
        self._last_turn: dict[str, int] = {}
        self._moments = itertools.count(1)

    def __len__(self) -> int:
        """How many items wait."""
        return sum(len(items) for items in self._waiting.values())

    def put(self, asker: str, item: Item) -> None:
        """Lets an item wait for its turn."""
        self._waiting.setdefault(asker, deque()).append((next(self._moments), item))

    def next(self, may_go: Callable[[str], bool]) -> tuple[str, Item] | None:
        """Takes whose turn it is out of the queue and counts it as at work.

        Args:
            may_go: Whether an asker may have a turn now.

        Returns:
            The asker and its item, or None if nobody waits who may go.
        """
        waiting = [asker for asker, items in self._waiting.items() if items and may_go(asker)]
        if not waiting:
            return None
        asker = min(waiting, key=self._rank)
        _, item = self._waiting[asker].popleft()
        self._at_work[asker] = self.at_work(asker) + 1
        self._last_turn[asker] = next(self._moments)
        return asker, item

    def ended(self, asker: str) -> None:
        """Counts one item of an asker as done."""
        self._at_work[asker] = self.at_work(asker) - 1
        self._let_go(asker)

    def withdraw(self, asker: str, unwanted: Callable[[Item], bool] = lambda _: True) -> list[Item]:
        """Takes the waiting items of an asker out, or those of them that are unwanted; returns them in order."""
        items = self._waiting.pop(asker, deque())
        kept = deque((moment, item) for moment, item in items if not unwanted(item))
        if kept:
            self._waiting[asker] = kept
        self._let_go(asker)
        return [item for _, item in items if unwanted(item)]

    def at_work(self, asker: str | None = None) -> int:
        """How many items are at work, of one asker or of all."""
        return sum(self._at_work.values()) if asker is None else self._at_work.get(asker, 0)

    def waiting(self, asker: str) -> int:
        """How many items of an asker wait."""
        return len(self._waiting.get(asker, ()))

    def _rank(self, asker: str) -> tuple[int, int]:
        return self.at_work(asker), max(self._waiting[asker][0][0], self._last_turn.get(asker, 0))

    def _let_go(self, asker: str) -> None:
        """Forgets an asker that has nothing here any more."""
        if self._waiting.get(asker) or self.at_work(asker):
            return
        for book in (self._waiting, self._at_work, self._last_turn):
            book.pop(asker, None)


__all__ = ["FairQueue"]
