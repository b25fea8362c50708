"""The candidates of a campaign on their way from the model: when more are proposed, which are being made.

What a driver forgets when it is killed is read back from the ledger: a proposal that was thought of and not made is
handed over again, and gives the same candidates. May import the modules beside it, :mod:`pilotwave.archive` and
:mod:`pilotwave.config`.
"""

from __future__ import annotations

from collections.abc import Callable

from pilotwave.archive.ledger import EventKind
from pilotwave.config.campaign import CampaignConfig
from pilotwave.errors import BreakerError, InfrastructureError
from pilotwave.execution.accounting import Accounting
from pilotwave.execution.asking import Asking
from pilotwave.execution.memory import CampaignMemory
from pilotwave.execution.telemetry import Level, Telemetries
from pilotwave.execution.workers import GenerationFailed, GenerationRequest, GenerationResult, Workers
from pilotwave.protocols import Algorithm
from pilotwave.types import Proposal

BARREN_PROPOSALS = 3
"""So many proposals in a row without one feasible candidate stop the campaign."""
ATTEMPTS = 3
"""How often a proposal is handed to a generator while the generators' workers are lost."""


class Generating:
    """The proposals of one driver.

    Args:
        config: Of the campaign.
        memory: Where each proposal is written down before it is made.
        workers: Who makes candidates.
        asking: Where candidates wait to be asked about.
        accounting: Told of the time that it takes.
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
        show: Callable[[str], None],
        telemetry: Telemetries,
    ) -> None:
        self._config = config
        self._memory = memory
        self._workers = workers
        self._asking = asking
        self._accounting = accounting
        self._show = show
        self._telemetry = telemetry
        self._algorithm: Algorithm
        self._answers_are_reused = False
        self._making: dict[int, Proposal] = {}
        self._attempts: dict[int, int] = {}
        self._barren = 0

    def restore(self, algorithm: Algorithm) -> None:
        """Takes up the proposals that an earlier driver left unmade.

        Args:
            algorithm: Brought to where the ledger ends.
        """
        self._algorithm = algorithm
        self._making = {proposal.number: proposal for proposal in self._memory.unfinished}

    def begin(self, *, answers_are_reused: bool) -> None:
        """Hands those over.

        Args:
            answers_are_reused: Whether a sample whose answer is known need not be asked about again.
        """
        self._answers_are_reused = answers_are_reused
        for proposal in self._making.values():
            self._hand_over(proposal)

    @property
    def in_progress(self) -> bool:
        """Whether candidates are being made."""
        return bool(self._making)

    def left(self) -> int:
        """Returns how many queries are neither asked nor promised to a candidate or a proposal on its way."""
        return self._asking.left(sum(proposal.count for proposal in self._making.values()))

    def propose(self) -> int | None:
        """Thinks of a proposal, if it is time for one, and has it made; returns its number."""
        left = self.left() if self._is_time() else 0
        if not left:
            return None
        proposal = self._algorithm.ask(min(self._config.budget.batch_size, left))
        self._memory.append(EventKind.ASKED, {"proposal": proposal.number, "count": proposal.count})
        self._hand_over(proposal)
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

    def _is_time(self) -> bool:
        if self._making:
            return False
        if self._config.runtime.mode == "synchronous":
            return not self._asking.waiting and not self._asking.in_flight
        return len(self._asking.ready) <= self._workers.evaluators

    def _hand_over(self, proposal: Proposal) -> None:
        known = self._memory.known.now() if self._answers_are_reused else frozenset[str]()
        self._making[proposal.number] = proposal
        self._attempts[proposal.number] = self._attempts.get(proposal.number, 0) + 1
        self._workers.generate(
            GenerationRequest(proposal, self._config.seed, self._config.generation.redraws, known)
        )

    def _made(self, result: GenerationResult) -> None:
        del self._making[result.proposal]
        self._attempts.pop(result.proposal, None)
        self._memory.generated(result)
        self._accounting.generating.append((result.started, result.finished))
        self._asking.ready.extend(result.feasible)
        self._barren = 0 if result.feasible else self._barren + 1
        if self._barren >= BARREN_PROPOSALS:
            reasons = sorted({candidate.infeasible or "" for candidate in result.candidates})
            raise BreakerError(
                f"no feasible candidate in {self._barren} proposals in a row ({'; '.join(reasons[:3])}); "
                "loosen the constraints or raise generation.redraws"
            )

    def _failed(self, event: GenerationFailed) -> None:
        proposal = self._making.pop(event.proposal)
        self._telemetry.noted(Level.WARNING, "generation-failed", event.message, event.proposal)
        if not event.retryable or self._attempts[event.proposal] >= ATTEMPTS:
            raise InfrastructureError(f"the model failed on proposal {event.proposal}: {event.message}")
        self._show(f"generator lost ({event.message}); proposal {event.proposal} is handed over again")
        self._hand_over(proposal)


__all__ = ["ATTEMPTS", "BARREN_PROPOSALS", "Generating"]
