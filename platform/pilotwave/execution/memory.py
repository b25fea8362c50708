"""The loop's memory: the ledger, its reduction, and the algorithm rebuilt from both.

What happens in one turn of the loop is written together, with one synchronisation of the disk; what follows from it
(an oracle is asked, a receipt is discarded, listeners are told) is put off until it is on the disk.

An algorithm is restored from its newest checkpoint and then taken through the ledger's later events in their
order, so it stands exactly where it stood. May import :mod:`pilotwave.archive`, :mod:`pilotwave.types` and
:mod:`pilotwave.storage`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pilotwave.archive.ledger import Event, EventKind, Ledger
from pilotwave.archive.records import evaluation_to_json
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.running_state import RunningState
from pilotwave.archive.spending import DEFAULT_COST
from pilotwave.config.campaign import Objective
from pilotwave.errors import RunDirectoryError, StorageError
from pilotwave.execution.checkpoints import Checkpoints, first_unmade
from pilotwave.execution.known import KnownSamples
from pilotwave.execution.receipts import discard_receipt, read_receipts
from pilotwave.execution.replay import observation_of, replay
from pilotwave.execution.workers import GenerationResult
from pilotwave.protocols import Algorithm
from pilotwave.types import Candidate, Evaluation, Proposal, Status

WRITER_SECONDS = 180.0
"""How long an earlier optimizer may take to be gone before a new one gives up: one that is cut off from the rest of
its cluster lives on until its node has noticed, a minute with Ray, and some seconds more."""


class CampaignMemory:
    """Writes every event to the ledger first and takes it into account second.

    It grows by some 20 bytes a query (``known``) and otherwise only with what is going on.

    Args:
        run: Whose ledger it is.
        objective: Of the campaign.
        listen: Told of every event once it is on the disk.

    Attributes:
        state: What the ledger says so far, without the details of what is over.
        candidates: The candidates whose query has not ended or that the algorithm was not told of.
        known: All samples that were asked about or are about to be.
        unfinished: Proposals that were asked for and not generated.
    """

    def __init__(
        self, run: RunDirectory, objective: Objective, listen: Callable[[Event], None] = lambda event: None
    ) -> None:
        self._run = run
        self._listen = listen
        self._writer = run.become_writer(WRITER_SECONDS)
        self._objective = objective
        self._ledger = Ledger.open(run.ledger_file)
        self.state = RunningState.of(self._ledger.events())
        self.candidates: dict[str, Candidate] = {}
        self.known = KnownSamples()
        self.unfinished: list[Proposal] = []
        self._untold: dict[str, None] = {}
        self._recent: list[Evaluation] = []
        self._is_together = False
        self._written: list[Event | Evaluation] = []
        self._orders: list[Callable[[], object]] = []
        self._checkpoints = Checkpoints(run)

    def close(self) -> None:
        """Closes the ledger and lets the next writer in."""
        self._ledger.close()
        os.close(self._writer)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Writes all that happens inside to the disk at once, at its end; an error of the loop ends it as well.

        Raises:
            StorageError: It cannot be written; then nothing of it was, and nothing that was to follow has happened.
        """
        self._is_together = True
        try:
            with self._ledger.together():
                yield
        except StorageError:
            self._written.clear()
            self._orders.clear()
            raise
        except BaseException:
            self._orders.clear()
            raise
        finally:
            self._is_together = False
            self._catch_up()

    def once_written(self, order: Callable[[], object]) -> None:
        """Has something done once all that has happened so far is on the disk; not if an error comes first."""
        if self._is_together:
            self._orders.append(order)
        else:
            order()

    def write_down(self) -> None:
        """Brings to the disk what has happened so far, also inside :meth:`together`."""
        if self._is_together:
            self._ledger.commit()
            self._catch_up()

    def adopt_receipts(self) -> int:
        """Takes over the answers that reached the disk but not the ledger; returns how many."""
        adopted = 0
        for evaluation in read_receipts(self._run.receipts):
            known = evaluation.query_id in self.state.reserved and evaluation.query_id not in self.state.settled
            if known and evaluation.status is Status.OK:
                self.settle(evaluation)
                adopted += 1
            discard_receipt(self._run.receipts, evaluation)
        return adopted

    def check_resumable(self, facts: Mapping[str, str]) -> None:
        """Refuses to go on with another model or oracle than the run began with.

        Args:
            facts: ``{"backbone": fingerprint, "oracle": ..., "oracle_version": ...}``.

        Raises:
            RunDirectoryError: They differ from those of the first start.
        """
        for event in self._ledger.events():
            if event.kind is not EventKind.STARTED:
                continue
            for key, now in facts.items():
                then = event.record["facts"][key]
                if then != now:
                    raise RunDirectoryError(
                        f"{self._run.path} was begun with {key} {then}, but it is {now} now; "
                        "go on with the former or begin a new run"
                    )
            return

    def append(self, kind: EventKind, record: Mapping[str, Any]) -> None:
        """Writes an event down."""
        self._take_note(self._ledger.append(kind, record))

    def events(self, latest: int | None = None) -> Iterator[Event]:
        """Yields what has happened, in order: all of it, or so many of the latest events."""
        return self._ledger.events(0 if latest is None else max(0, self.state.sequence - latest))

    def reserve(
        self,
        query_id: str,
        attempt: int,
        cost: float = DEFAULT_COST,
        *,
        near: Mapping[str, float] | None = None,
        time_limit: float | None = None,
    ) -> None:
        """Writes down that an oracle is about to be asked.

        Args:
            query_id: About what.
            attempt: 1 for the first.
            cost: What it is expected to cost.
            near: An answer nearby that is known, if one is.
            time_limit: Seconds, where that is learned.
        """
        record: dict[str, Any] = {"query_id": query_id, "attempt": attempt, "cost": cost}
        if near is not None:
            record["near"] = dict(near)
        if time_limit is not None:
            record["time_limit"] = time_limit
        self.append(EventKind.RESERVED, record)

    def settle(self, evaluation: Evaluation, saved_cost: float | None = None) -> None:
        """Writes the end of a query down, then lets go of its receipt.

        Args:
            evaluation: How it ended.
            saved_cost: What the answer had cost that was taken from a project archive, if it was.
        """
        record = evaluation_to_json(evaluation)
        self.append(EventKind.SETTLED, record if saved_cost is None else {**record, "saved_cost": saved_cost})
        self._untold[evaluation.query_id] = None
        self._recent.append(evaluation)
        self._discard_receipt(evaluation)

    def attempted(self, evaluation: Evaluation) -> None:
        """Writes down an attempt that will be repeated."""
        self._take_note(self._ledger.settle(EventKind.ATTEMPTED, evaluation))
        self._discard_receipt(evaluation)

    def generated(self, result: GenerationResult) -> None:
        """Writes a proposal's candidates down."""
        record = {
            "proposal": result.proposal,
            "query_ids": [candidate.query_id for candidate in result.candidates],
            "feasible": list(result.feasible),
            "passes": result.passes,
            "seconds": result.finished - result.started,
            "started": result.started,
            "worker": result.worker,
            **({} if result.together is None else {"together": result.together}),
            "infeasible": dict(
                Counter(item.infeasible.partition(":")[0] for item in result.candidates if item.infeasible)
            ),
        }
        self._take_note(self._ledger.add_candidates(result.candidates, record))
        self._take_up(result.candidates)

    def remember(self, answers: Sequence[tuple[Candidate, Evaluation]]) -> None:
        """Writes answers of earlier campaigns down; they are told by :meth:`tell_remembered`."""
        candidates, evaluations = [item for item, _ in answers], [item for _, item in answers]
        for event in self._ledger.remember(candidates, evaluations):
            self._take_note(event)
        self._take_up(candidates)

    def tell_remembered(self, algorithm: Algorithm) -> None:
        """Tells the answers of earlier campaigns, unless the algorithm knows them."""
        self.tell(algorithm, list(self.state.remembered))

    def tell(self, algorithm: Algorithm, query_ids: Sequence[str]) -> None:
        """Tells the algorithm how these candidates fared, and writes down that it knows."""
        fresh = [query_id for query_id in query_ids if query_id in self.candidates]
        if not fresh:
            return
        ends = [self.state.settled.get(query_id) or self.state.remembered[query_id] for query_id in fresh]
        told = zip([self.candidates[query_id] for query_id in fresh], ends, strict=True)
        algorithm.tell([observation_of(candidate, end, self._objective) for candidate, end in told])
        self.append(EventKind.TOLD, {"query_ids": fresh})
        self._checkpoints.differs = True
        for query_id in fresh:
            self._untold.pop(query_id, None)
            self.candidates.pop(query_id)

    def is_open(self, query_id: str) -> bool:
        """Says whether a query may still end: not so for an answer that comes a second time."""
        return query_id in self.state.untold and query_id not in self.state.settled

    def identities(self) -> set[str]:
        """Returns the identities of all samples that were asked about or are about to be, from the ledger."""
        return self._ledger.feasible_identities()

    def untold(self) -> list[str]:
        """Returns the query ids that have ended and that the algorithm does not know, in settled order."""
        return list(self._untold)

    def recently_settled(self) -> list[Evaluation]:
        """Returns how the queries ended that ended since the last call."""
        recent, self._recent = self._recent, []
        return recent

    def label(self, query_id: str) -> str:
        """Returns the short text of a candidate's sample."""
        candidate = self.candidates.get(query_id) or self._ledger.candidate(query_id)
        return candidate.sample.label() if candidate.sample is not None else ""

    def checkpoint(self, algorithm: Algorithm, *, is_last: bool = False) -> None:
        """Saves the algorithm's state, unless saving would take too large a share of the time.

        Args:
            algorithm: As it stands.
            is_last: Saves it in any case, if it is not saved already.
        """
        if self._checkpoints.is_due or (is_last and self._checkpoints.differs):
            self.write_down()  # a checkpoint must not know what the ledger does not
            self._checkpoints.save(algorithm, self.state)

    def restore(self, algorithm: Algorithm) -> None:
        """Brings a fresh algorithm, and this memory, to where the ledger ends."""
        first = first_unmade(self.state)
        asked = replay(self._run, self._ledger, self.state, self._objective, algorithm, before=first)
        unmade = sorted(number for number, item in self.state.proposals.items() if not item.generated)
        self.unfinished = [asked[number] for number in unmade]
        self.known = KnownSamples(self._ledger.each_feasible_identity())
        open_ids = [*self.state.untold, *self.state.remembered]
        self.candidates = {candidate.query_id: candidate for candidate in self._ledger.candidates(open_ids)}
        self._untold = {query_id: None for query_id in self.state.settled if query_id in self.state.untold}

    def _discard_receipt(self, evaluation: Evaluation) -> None:
        self._written.append(evaluation)
        self._catch_up_unless_together()

    def _take_note(self, event: Event) -> None:
        self.state.apply(event)
        self._written.append(event)
        self._catch_up_unless_together()

    def _catch_up_unless_together(self) -> None:
        if not self._is_together:
            self._catch_up()

    def _catch_up(self) -> None:
        """Does what had to wait until it was written: listeners first, then receipts and orders."""
        written, self._written = self._written, []
        orders, self._orders = self._orders, []
        for item in written:
            if isinstance(item, Event):
                self._listen(item)
            else:
                discard_receipt(self._run.receipts, item)
        for order in orders:
            order()

    def _take_up(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            if candidate.infeasible is None and candidate.sample is not None:
                self.known.add(candidate.sample.identity())
                self.candidates[candidate.query_id] = candidate


__all__ = ["CampaignMemory"]
