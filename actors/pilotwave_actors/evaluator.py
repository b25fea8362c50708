"""The evaluator actor: holds one oracle, in a child process that can be killed, and asks it.

It has no state that matters: an answer is in its receipt before it is returned. May import ray and the core.
"""

from __future__ import annotations

from pathlib import Path

from pilotwave.config.components import OracleConfig
from pilotwave.execution.oracle_host import open_oracle_host
from pilotwave.execution.question import OracleIdentity
from pilotwave.execution.receipts import read_receipt
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.protocols import QueryContext
from pilotwave.types import Evaluation, Status
from pilotwave_actors.places import keep_log


class Evaluator:
    """One oracle worker; made an actor by :mod:`pilotwave_actors.evaluator_pool`."""

    def __init__(self, config: OracleConfig, receipts: Path, name: str) -> None:
        keep_log(name, receipts.parent / "logs")
        self._receipts = receipts
        self._host = open_oracle_host(config, receipts if receipts.is_dir() else None, name)

    def start(self) -> OracleIdentity:
        """Builds the oracle."""
        return self._host.start()

    def preflight(self) -> None:
        """Asks the known question."""
        self._host.preflight()

    def evaluate(self, request: EvaluationRequest) -> Evaluation:
        """Asks one question; what the oracle does is in the evaluation, never raised.

        An earlier attempt that was lost with its actor may have been answered all the same: its oracle's
        process outlives the actor for a moment and leaves a receipt, which is used instead of asking again.
        """
        for attempt in range(1, request.attempt):
            receipt = read_receipt(self._receipts, request.query_id, attempt)
            if receipt is not None and receipt.status is Status.OK:
                return receipt
        context = QueryContext(request.query_id, request.attempt)
        return self._host.evaluate(request.sample, context, request.time_limit)


__all__ = ["Evaluator"]
