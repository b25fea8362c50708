"""The candidates of a campaign on their way from the model: when more are proposed, which are being made.

What a driver forgets when it is killed is read back from the ledger: a proposal that was thought of and not made is
handed over again, and gives the same candidates. May import the modules beside it, :mod:`pilotwave.archive` and
:mod:`pilotwave.config`.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pilotwave.archive.ledger import EventKind
from pilotwave.config.campaign import CampaignConfig
from pilotwave.errors import BreakerError, InfrastructureError
from pilotwave.execution.accounting import Accounting
from pilotwave.execution.asking import Asking
from pilotwave.execution.forecasting import RecentTimes
from pilotwave.execution.generation import REPEAT
from pilotwave.execution.memory import CampaignMemory
from pilotwave.execution.telemetry import Level, Telemetries
from pilotwave.execution.workers import GenerationFailed, GenerationRequest, GenerationResult, Workers
from pilotwave.protocols import Algorithm
from pilotwave.types import Proposal

BARREN_PROPOSALS = 3
"""So many proposals in a row without one feasible candidate stop the campaign."""
LEAD_QUANTILE = 0.9
"""A proposal is expected to take no longer than this share of the last ones did."""
ATTEMPTS = 3
"""How often a proposal is handed to a generator while the generators' workers are lost."""


@dataclass(frozen=True)
class Making:
    """A proposal in the making.

    Attributes:
        proposal: It.
        since: When it was begun to be thought of, seconds since the epoch.
    """

    proposal: Proposal
    since: float


class Generating:
    """The proposals of one driver.

    Args:
        config: Of the campaign.
        memory: Where each proposal is written down before it is made.
        workers: Who makes candidates.
        asking: Where candidates wait to be asked about.
        accounting: Told of the time that it takes.
        clock: Seconds since the epoch.
        show: Shows one line of what telemetry knows already.
        telemetry: Told of what is tried again.
    """

    def __init__(
        self,
        config: CampaignConfig,
        memory: CampaignMemory,
        workers: Workers,
        asking: Asking,
        accounting: Accounting,
        clock: Callable[[], float],
        show: Callable[[str], None],
        telemetry: Telemetries,
    ) -> None:
        self._config = config
        self._memory = memory
        self._workers = workers
        self._asking = asking
        self._accounting = accounting
        self._clock = clock
        self._show = show
        self._telemetry = telemetry
        self._algorithm: Algorithm
        self._answers_are_reused = False
        self._unmade: deque[Proposal] = deque()
        self._making: dict[int, Making] = {}
        self._attempts: dict[int, int] = {}
        self._took = RecentTimes()
        self._together: int | None = None
        self._barren = 0

    def restore(self, algorithm: Algorithm) -> None:
        """Takes up the proposals that an earlier driver left unmade.

        Args:
            algorithm: Brought to where the ledger ends.
        """
        self._algorithm = algorithm
        self._unmade = deque(self._memory.unfinished)
        self._together = self._memory.state.together
        for seconds in self._memory.state.making:
            self._took.add(seconds)

    def begin(self, *, answers_are_reused: bool) -> None:
        """Hands those over.

        Args:
            answers_are_reused: Whether a sample whose answer is known need not be asked about again.
        """
        self._answers_are_reused = answers_are_reused
        self._hand_over_unmade()

    @property
    def in_progress(self) -> bool:
        """Whether candidates are being made."""
        return bool(self._making or self._unmade)

    def left(self) -> int:
        """Returns how many queries are neither asked nor promised to a candidate or a proposal on its way."""
        return self._asking.left(self._promised())

    def propose(self) -> int | None:
        """Thinks of a proposal, if it is time for one, and has it made; returns its number."""
        left = self.left() if self._is_time() else 0
        if not left:
            return None
        since = self._clock()
        proposal = self._algorithm.ask(min(self._config.budget.batch_size, left))
        self._memory.append(EventKind.ASKED, {"proposal": proposal.number, "count": proposal.count})
        self._hand_over(proposal, since)
        return proposal.number

    def ended(self, event: GenerationResult | GenerationFailed) -> None:
        """Takes note of what came of a proposal.

        Raises:
            BreakerError: No candidate may be asked about, again and again.
            InfrastructureError: The model failed.
        """
        if isinstance(event, GenerationResult):
            self._made(event)
        else:
            self._failed(event)

    def _promised(self) -> int:
        """Returns how many candidates are on their way."""
        proposals = (*self._unmade, *(making.proposal for making in self._making.values()))
        return sum(proposal.count for proposal in proposals)

    def _is_time(self) -> bool:
        if self._config.runtime.mode == "synchronous":
            return not self.in_progress and not self._asking.waiting and not self._asking.in_flight
        if self._unmade or len(self._making) >= self._workers.generators:
            return False
        return self._would_run_dry()

    def _would_run_dry(self) -> bool:
        """Says whether evaluators would wait if another proposal were not begun now.

        What is at hand, with what is being made, has to last until it could be there. Before both rates were
        measured it is enough that every evaluator finds a candidate ready when it ends.
        """
        promised, evaluators = self._promised(), self._workers.evaluators
        at_most = evaluators + (2 * self._workers.generators - 1) * self._config.budget.batch_size
        if len(self._asking.ready) + promised > at_most:
            return False
        lead_seconds = self._took.quantile(LEAD_QUANTILE) if self._took else None
        wanted = None if lead_seconds is None else self._asking.wanted_within(lead_seconds)
        if lead_seconds is None or wanted is None:
            return len(self._asking.ready) + promised <= evaluators
        # Candidates are whole: half of one more is where the next whole number begins.
        return self._asking.at_hand_within(lead_seconds) + promised + 0.5 < wanted

    def _hand_over(self, proposal: Proposal, since: float) -> None:
        known = self._memory.known.now() if self._answers_are_reused else frozenset[str]()
        self._making[proposal.number] = Making(proposal, since)
        self._attempts[proposal.number] = self._attempts.get(proposal.number, 0) + 1
        redraws = self._config.generation.redraws
        request = GenerationRequest(proposal, self._config.seed, redraws, known, self._together)
        self._memory.once_written(partial(self._workers.generate, request))

    def _hand_over_unmade(self) -> None:
        while self._unmade and len(self._making) < self._workers.generators:
            self._hand_over(self._unmade.popleft(), self._clock())

    def _made(self, result: GenerationResult) -> None:
        making = self._making.pop(result.proposal)
        self._took.add(self._clock() - making.since)
        self._attempts.pop(result.proposal, None)
        result = self._without_repeats(result)
        if result.together is not None:
            self._make_together(result.together, result.proposal)
            result = dataclasses.replace(result, together=self._together)
        self._memory.generated(result)
        self._accounting.generating.append((result.started, result.finished))
        self._asking.ready.extend(result.feasible)
        self._hand_over_unmade()
        self._barren = 0 if result.feasible else self._barren + 1
        if self._barren >= BARREN_PROPOSALS:
            reasons = sorted({candidate.infeasible or "" for candidate in result.candidates})
            raise BreakerError(
                f"no feasible candidate in {self._barren} proposals in a row ({'; '.join(reasons[:3])}); "
                "loosen the constraints or raise generation.redraws"
            )

    def _make_together(self, most: int, proposal: int) -> None:
        """Lets generators make so many samples at once from now on, unless it is fewer already."""
        if self._together is not None and self._together <= most:
            return
        self._together = most
        line = f"memory is short: samples are made {most} at a time from now on, a batch in parts"
        self._telemetry.noted(Level.WARNING, "memory-short", line, proposal)
        self._show(line)

    def _without_repeats(self, result: GenerationResult) -> GenerationResult:
        """Takes out what another proposal, made at the same time, came to as well: it is asked about once."""
        if not self._answers_are_reused:
            return result
        known = self._memory.known
        repeated = {
            candidate.query_id
            for candidate in result.candidates
            if candidate.infeasible is None
            and candidate.sample is not None
            and candidate.sample.identity() in known
        }
        if not repeated:
            return result
        return dataclasses.replace(
            result,
            candidates=tuple(
                dataclasses.replace(candidate, infeasible=REPEAT) if candidate.query_id in repeated else candidate
                for candidate in result.candidates
            ),
            feasible=tuple(query_id for query_id in result.feasible if query_id not in repeated),
        )

    def _failed(self, event: GenerationFailed) -> None:
        proposal = self._making.pop(event.proposal).proposal
        self._telemetry.noted(Level.WARNING, "generation-failed", event.message, event.proposal)
        if event.out_of_memory and self._together != 1:
            self._attempts[event.proposal] -= 1  # with fewer at once it is another attempt
            self._make_together(max(1, (self._together or proposal.count) // 2), event.proposal)
        if not event.retryable or self._attempts[event.proposal] >= ATTEMPTS:
            raise InfrastructureError(f"the model failed on proposal {event.proposal}: {event.message}")
        self._show(f"generator lost ({event.message}); proposal {event.proposal} is handed over again")
        self._hand_over(proposal, self._clock())


__all__ = ["ATTEMPTS", "BARREN_PROPOSALS", "Generating"]
