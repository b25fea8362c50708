"""What a ledger says about a campaign right now: a pure reduction of its events.

The loop, ``resume``, ``status`` and the reports share it, so none of them can count differently. May import
:mod:`pilotwave.archive.ledger`, :mod:`pilotwave.archive.spending` and :mod:`pilotwave.types`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pilotwave.archive.ledger import Event, EventKind
from pilotwave.archive.spending import DEFAULT_COST, GivenLimits, Limits, Spending
from pilotwave.types import Evaluation, Status


@dataclass
class ProposalState:
    """One proposal.

    Attributes:
        number: Its place in the campaign.
        count: How many feasible candidates were wanted.
        query_ids: The feasible ones that were made, in order; empty until generated.
        generated: Whether its candidates are in the ledger.
        drawn: How many candidates were made in all.
        passes: Sampler runs a candidate.
        seconds: How long generating took.
        asked: The event with which it was thought of.
    """

    number: int
    count: int
    query_ids: tuple[str, ...] = ()
    generated: bool = False
    drawn: int = 0
    passes: int = 0
    seconds: float = 0.0
    asked: int = 0


@dataclass
class CampaignState:
    """Everything that can be counted.

    Attributes:
        proposed: How many proposals there were.
        asked: Queries for which an oracle was asked, without those that were forgotten.
        answered: Queries with a value.
        failed: Queries that were paid for and have no value.
        infeasible: Candidates that were made and never asked about.
        reused: Queries that ended with an answer of a project archive, at no cost.
        learned: How many answers with a value the algorithm knows, those of a warm start among them.
        proposals: By number.
        reserved: The last attempt at each query for which an oracle was (about to be) asked.
        settled: The final evaluation of each query.
        remembered: Answers of earlier campaigns that a warm start took over, by the names they have here.
        told: Query ids the algorithm knows, in order; those of a warm start first.
        attempted: How many attempts failed and were repeated.
        resting: The last attempt at each query that failed, is to be repeated, and has not been yet.
        spending: What all attempts cost.
        limits: Which budget holds.
        controls: The ids of the commands that were obeyed or refused.
        paused: Whether nothing new is made or asked.
        draining: Whether nothing new is proposed.
        launched: When the user began to wait for the last driver, or None.
        reused_in_a_row: How many queries ended with an answer of a project archive since one was last paid for.
        saved_cost: What the answers taken from there had cost.
        near: For how many queries that were paid for an answer nearby was known there.
        near_cost: What those answers had cost.
        together: How many samples a generator makes at once because more did not fit into memory, or None.
        forgotten: How many queries were paid for and their records taken out.
        sequence: Of the last event.
        started: Time of the first event, or None.
        stopped: Why the last driver laid it down, or None while one runs (or was killed).
        ended_by: What ended it then: the budget that was spent, ``"drain"``, ``"archive"``, or empty.
        active_seconds: Wall time during which a driver was at work and not paused, kills included up to the last
            event.
    """

    proposed: int = 0
    asked: int = 0
    answered: int = 0
    failed: int = 0
    infeasible: int = 0
    reused: int = 0
    learned: int = 0
    proposals: dict[int, ProposalState] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)
    settled: dict[str, Evaluation] = field(default_factory=dict)
    remembered: dict[str, Evaluation] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    attempted: int = 0
    resting: dict[str, int] = field(default_factory=dict)
    spending: Spending = field(default_factory=Spending)
    limits: GivenLimits = field(default_factory=GivenLimits)
    controls: set[str] = field(default_factory=set)
    paused: bool = False
    draining: bool = False
    launched: float | None = None
    reused_in_a_row: int = 0
    saved_cost: float = 0.0
    near: int = 0
    near_cost: float = 0.0
    together: int | None = None
    forgotten: int = 0
    sequence: int = 0
    started: float | None = None
    stopped: str | None = None
    ended_by: str = ""
    active_seconds: float = 0.0
    last_time: float | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """Reduces the events of a ledger, in order."""
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: Event) -> None:
        """Takes one more event into account."""
        if event.kind is not EventKind.FORGOTTEN:  # no driver was at work then
            self._clock(event)
        record = event.record
        match event.kind:
            case EventKind.STARTED:
                self._start(record)
            case EventKind.ASKED:
                proposal = ProposalState(record["proposal"], record["count"], asked=event.sequence)
                self.proposals[proposal.number] = proposal
                self.proposed += 1
            case EventKind.GENERATED:
                proposal = self.proposals[record["proposal"]]
                proposal.generated = True
                proposal.query_ids = tuple(record["feasible"])
                proposal.drawn = len(record["query_ids"])
                proposal.passes = record["passes"]
                proposal.seconds = record["seconds"]
                self.together = record.get("together", self.together)
                self.infeasible += proposal.drawn - len(proposal.query_ids)
            case EventKind.RESERVED:
                self.asked += record["query_id"] not in self.reserved
                self.reserved[record["query_id"]] = record["attempt"]
                self.resting.pop(record["query_id"], None)
                self.spending.reserve(record["query_id"], record.get("cost", DEFAULT_COST))
                self.reused_in_a_row = 0
                if "near" in record:
                    self.near += 1
                    self.near_cost += record["near"]["cost"]
            case EventKind.ATTEMPTED:
                evaluation = event.evaluation()
                self.attempted += 1
                self.resting[evaluation.query_id] = evaluation.attempt
                self.spending.lose(evaluation.query_id, evaluation.attempt, evaluation.cost)
            case EventKind.SETTLED:
                self._settle(event.evaluation(), record)
            case EventKind.REMEMBERED:
                evaluation = event.evaluation()
                self.remembered[evaluation.query_id] = evaluation
            case EventKind.TOLD:
                self._tell(record["query_ids"])
            case EventKind.STOPPED:
                self.stopped = record["reason"]
                self.ended_by = record.get("ended_by", "")
            case EventKind.CONTROLLED:
                self._obey(record)
            case EventKind.FORGOTTEN:
                self.forgotten += record["queries"]
                self.spending.ended += record.get("cost", 0.0)
        self.sequence = event.sequence

    @property
    def spent(self) -> int:
        """Queries for which an oracle was asked, forgotten ones too; answers taken from memory are free."""
        return self.asked + self.forgotten

    def open_queries(self) -> list[str]:
        """Returns the feasible candidates whose query has not ended, in the order they were proposed."""
        return [
            query_id
            for number in sorted(self.proposals)
            for query_id in self.proposals[number].query_ids
            if query_id not in self.settled
        ]

    def _settle(self, evaluation: Evaluation, record: Mapping[str, Any]) -> None:
        self.settled[evaluation.query_id] = evaluation
        self.resting.pop(evaluation.query_id, None)
        self.answered += evaluation.status is Status.OK
        self.failed += evaluation.status in (Status.FAILED, Status.TIMED_OUT)
        if evaluation.reused_from is None:
            self.spending.end(evaluation.query_id, evaluation.cost, evaluation.attempt)
        else:
            self.reused += 1
            self.reused_in_a_row += 1
            self.saved_cost += record.get("saved_cost", 0.0)

    def _tell(self, query_ids: Sequence[str]) -> None:
        self.told.extend(query_ids)
        self._learn(query_ids)

    def _learn(self, query_ids: Sequence[str]) -> None:
        for query_id in query_ids:
            known = self.settled.get(query_id) or self.remembered.get(query_id)
            self.learned += known is not None and known.value is not None

    def _start(self, record: Mapping[str, Any]) -> None:
        self.stopped, self.ended_by = None, ""
        given = record.get("given", record)
        if "queries" in given:
            self.limits.start(Limits.from_json(given))
        launched = record.get("launched")
        if launched is None or launched != self.launched:
            # A driver that the user began goes on; an optimizer that was made again stays as it was told to be.
            self.paused = self.draining = False
        self.launched = launched

    def _obey(self, record: Mapping[str, Any]) -> None:
        self.controls.add(record["id"])
        if record.get("refused"):
            return
        if "limits" in record:
            self.limits.now = Limits.from_json(record["limits"])
        match record["command"]:
            case "pause":
                self.paused = True
            case "resume":
                self.paused = False
            case "drain":
                self.draining, self.paused = True, False

    def _clock(self, event: Event) -> None:
        if self.started is None:
            self.started = event.time
        if self.last_time is not None and event.kind is not EventKind.STARTED and not self.paused:
            self.active_seconds += max(0.0, event.time - self.last_time)
        self.last_time = event.time


__all__ = ["CampaignState", "ProposalState"]
