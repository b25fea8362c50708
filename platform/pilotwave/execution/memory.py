"""The loop's memory: the ledger, its reduction, and the algorithm rebuilt from both.

An algorithm is restored from its newest checkpoint and then taken through the ledger's later events in their
order, so it stands exactly where it stood. May import :mod:`pilotwave.archive`, :mod:`pilotwave.types` and
:mod:`pilotwave.storage`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pilotwave.archive.ledger import Event, EventKind, Ledger
from pilotwave.archive.records import evaluation_to_json
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.spending import DEFAULT_COST
from pilotwave.archive.state import CampaignState, ProposalState
from pilotwave.config.campaign import Objective
from pilotwave.errors import RunDirectoryError
from pilotwave.execution.known import KnownSamples
from pilotwave.execution.receipts import discard_receipt, read_receipts
from pilotwave.execution.replay import checkpoints_of, observation_of, replay, standing_at
from pilotwave.execution.workers import GenerationResult
from pilotwave.protocols import Algorithm
from pilotwave.storage import save_checkpoint
from pilotwave.types import Candidate, Evaluation, Proposal, Status

WRITER_SECONDS = 180.0
"""How long an earlier optimizer may take to be gone before a new one gives up: one that is cut off from the rest of
its cluster lives on until its node has noticed, a minute with Ray, and some seconds more."""


class CampaignMemory:
    """Writes every event to the ledger first and takes it into account second.

    Args:
        run: Whose ledger it is.
        objective: Of the campaign.
        listen: Told of every event once both is done.

    Attributes:
        state: What the ledger says so far.
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
        self.state = CampaignState.of(self._ledger.events())
        self.candidates: dict[str, Candidate] = {}
        self.known = KnownSamples()
        self.unfinished: list[Proposal] = []
        self._told = set(self.state.told)
        self._unmade: dict[int, int] = {}  # from a proposal to the event with which it was thought of
        self._untold: list[str] = []
        self._recent: list[str] = []

    def close(self) -> None:
        """Closes the ledger and lets the next writer in."""
        self._ledger.close()
        os.close(self._writer)

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

    def events(self) -> Iterator[Event]:
        """Yields all that has happened, in order."""
        return self._ledger.events()

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
        self._untold.append(evaluation.query_id)
        self._recent.append(evaluation.query_id)
        discard_receipt(self._run.receipts, evaluation)

    def attempted(self, evaluation: Evaluation) -> None:
        """Writes down an attempt that will be repeated."""
        self._take_note(self._ledger.settle(EventKind.ATTEMPTED, evaluation))
        discard_receipt(self._run.receipts, evaluation)

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
        fresh = [query_id for query_id in query_ids if query_id not in self._told]
        if not fresh:
            return
        told = [self.candidates[query_id] for query_id in fresh]
        algorithm.tell([observation_of(candidate, self.state, self._objective) for candidate in told])
        self.append(EventKind.TOLD, {"query_ids": fresh})
        self._told.update(fresh)
        self._untold = [query_id for query_id in self._untold if query_id not in self._told]
        for query_id in fresh:
            self.candidates.pop(query_id, None)

    def is_told(self, proposal: ProposalState) -> bool:
        """Says whether a proposal was generated and the algorithm knows how each of its candidates fared."""
        return proposal.generated and all(query_id in self._told for query_id in proposal.query_ids)

    def identities(self) -> set[str]:
        """Returns the identities of all samples that were asked about or are about to be, from the ledger."""
        return self._ledger.feasible_identities()

    def untold(self) -> list[str]:
        """Returns the query ids that have ended and that the algorithm does not know, in settled order."""
        return list(self._untold)

    def recently_settled(self) -> list[str]:
        """Returns the query ids settled since the last call."""
        recent, self._recent = self._recent, []
        return recent

    def label(self, query_id: str) -> str:
        """Returns the short text of a candidate's sample."""
        candidate = self.candidates.get(query_id) or self._ledger.candidate(query_id)
        return candidate.sample.label() if candidate.sample is not None else ""

    def checkpoint(self, algorithm: Algorithm) -> None:
        """Saves the algorithm's state; the last two are kept, and the last before the oldest unmade proposal.

        From there such a proposal is thought of again, when a driver that was killed is followed by another.
        """
        path = self._run.checkpoints / f"{self.state.sequence:010d}.pt"
        state = {"sequence": self.state.sequence, "algorithm": algorithm.name, "state": algorithm.state_dict()}
        save_checkpoint(path, state)
        checkpoints = checkpoints_of(self._run)
        oldest = min(self._unmade.values(), default=self.state.sequence + 1)
        needed = [path for path in checkpoints if standing_at(path) < oldest][-1:]
        for path in checkpoints[:-2]:
            if path not in needed:
                path.unlink(missing_ok=True)

    def restore(self, algorithm: Algorithm) -> None:
        """Brings a fresh algorithm, and this memory, to where the ledger ends."""
        unmade = {number for number, item in self.state.proposals.items() if not item.generated}
        if unmade:
            self._unmade = {
                event.record["proposal"]: event.sequence
                for event in self._ledger.events()
                if event.kind is EventKind.ASKED and event.record["proposal"] in unmade
            }
        oldest = min(self._unmade.values(), default=None)
        asked = replay(self._run, self._ledger, self.state, self._objective, algorithm, before=oldest)
        self.unfinished = [asked[number] for number in sorted(unmade)]
        self.known = KnownSamples(self._ledger.feasible_identities())
        open_ids = [
            query_id
            for item in self.state.proposals.values()
            for query_id in item.query_ids
            if query_id not in self._told
        ]
        open_ids += [query_id for query_id in self.state.remembered if query_id not in self._told]
        self.candidates = {candidate.query_id: candidate for candidate in self._ledger.candidates(open_ids)}
        self._untold = [query_id for query_id in self.state.settled if query_id not in self._told]

    def _take_note(self, event: Event) -> None:
        self.state.apply(event)
        if event.kind is EventKind.ASKED:
            self._unmade[event.record["proposal"]] = event.sequence
        elif event.kind is EventKind.GENERATED:
            self._unmade.pop(event.record["proposal"], None)
        self._listen(event)

    def _take_up(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            if candidate.infeasible is None and candidate.sample is not None:
                self.known.add(candidate.sample.identity())
                self.candidates[candidate.query_id] = candidate


__all__ = ["CampaignMemory"]
