"""The evaluator actor: holds one oracle, in a child process that can be killed, and asks it.

It has no state that matters: an answer is in its receipt before it is returned. May import ray and the core.
"""

from __future__ import annotations

from pathlib import Path

from pilotwave.config.components import OracleConfig
from pilotwave.execution.oracle_host import open_oracle_host
from pilotwave.execution.question import OracleIdentity
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.protocols import QueryContext
from pilotwave.types import Evaluation


class Evaluator:
    """One oracle worker; made an actor by :mod:`pilotwave_actors.workers`."""

    def __init__(self, config: OracleConfig, receipts: Path, name: str) -> None:
        self._host = open_oracle_host(config, receipts if receipts.is_dir() else None, name)

    def start(self) -> OracleIdentity:
        """Builds the oracle."""
        return self._host.start()

    def preflight(self) -> None:
        """Asks the known question."""
        self._host.preflight()

    def evaluate(self, request: EvaluationRequest) -> Evaluation:
        """Asks one question; what the oracle does is in the evaluation, never raised."""
        return self._host.evaluate(request.sample, QueryContext(request.query_id, request.attempt))


__all__ = ["Evaluator"]
