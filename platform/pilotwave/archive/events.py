"""The events of a campaign: what can happen, and what is written down of it.

May import :mod:`pilotwave.archive.records` and :mod:`pilotwave.types`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pilotwave.archive.records import evaluation_from_json
from pilotwave.types import Evaluation


class EventKind(StrEnum):
    """What can happen in a campaign; the record of each is stated."""

    STARTED = "started"
    """A driver took the campaign up: ``{"host", "pid", "resumed", "queries", "given", "launched"}``; ``given`` are
    the limits of its budget."""
    ASKED = "asked"
    """The algorithm was asked: ``{"proposal", "count"}``."""
    GENERATED = "generated"
    """A proposal's candidates were made: ``{"proposal", "query_ids", "feasible", "passes", "seconds"}``; and lately
    ``"started"``, ``"worker"``, and how many were ``"infeasible"`` by reason."""
    RESERVED = "reserved"
    """An oracle is about to be asked: ``{"query_id", "attempt", "cost"}``, the cost being the expected one; and
    ``"near": {"distance", "cost"}`` where a project archive holds an answer nearby, ``"time_limit"`` where that is
    learned."""
    ATTEMPTED = "attempted"
    """An attempt failed and will be repeated: an evaluation."""
    SETTLED = "settled"
    """A query ended for good: an evaluation; with ``"saved_cost"`` if it was answered from a project archive."""
    REMEMBERED = "remembered"
    """An earlier campaign's answer was taken over for a warm start: an evaluation under a name such as w0001."""
    TOLD = "told"
    """The algorithm was told, in this order: ``{"query_ids"}``."""
    STOPPED = "stopped"
    """A driver laid the campaign down: ``{"reason", "ended_by", "busy": {...}}``."""
    CONTROLLED = "controlled"
    """A command reached the driver: ``{"id", "command", "argument", "refused"}``, and ``"limits"`` where it changed
    the budget."""
    FORGOTTEN = "forgotten"
    """Records were taken out: ``{"receipt", "queries", "cost"}``, how many of them were paid for and their cost."""


@dataclass(frozen=True)
class Event:
    """One line of the ledger.

    Attributes:
        sequence: Counts up, from 1.
        time: Seconds since the epoch, UTC.
        kind: What happened.
        record: JSON-compatible; see :class:`EventKind`.
    """

    sequence: int
    time: float
    kind: EventKind
    record: Mapping[str, Any]

    def evaluation(self) -> Evaluation:
        """Returns the evaluation of an ``ATTEMPTED`` or ``SETTLED`` event."""
        return evaluation_from_json(self.record)


__all__ = ["Event", "EventKind"]
