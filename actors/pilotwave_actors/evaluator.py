"""The evaluator actor: holds one or several oracles, each in a child process that can be killed, and asks them.

It has no state that matters: an answer is in its receipt before it is returned. May import ray and the core.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from pilotwave.config.components import OracleConfig
from pilotwave.execution.oracle_host import OracleHost, open_oracle_host
from pilotwave.execution.question import OracleIdentity
from pilotwave.execution.receipts import Asker, read_receipt
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.protocols import QueryContext
from pilotwave.types import Evaluation, Status
from pilotwave_actors.places import NO_LOGS, keep_log


class Evaluator:
    """One or several oracle workers; made an actor by :mod:`pilotwave_actors.evaluator_crew`.

    Args:
        config: Of the oracle.
        receipts: Where receipts go, or None if each question says so itself.
        names: Of the workers, one for each question that may be asked at once.
    """

    def __init__(self, config: OracleConfig, receipts: Path | None, names: Sequence[str]) -> None:
        keep_log(names[0], NO_LOGS if receipts is None else receipts.parent / "logs")
        self._config = config
        self._receipts = receipts if receipts is not None and receipts.is_dir() else None
        self._names = tuple(names)
        self._hosts = [self._open(name) for name in names]
        self._asking: dict[int, EvaluationRequest] = {}
        self._lock = threading.Lock()

    def start(self) -> OracleIdentity:
        """Builds the first oracle; the others are built when they are asked."""
        return self._hosts[0].start()

    def preflight(self) -> None:
        """Asks the known question."""
        self._hosts[0].preflight()

    def evaluate(self, place: int, request: EvaluationRequest, asker: Asker | None = None) -> Evaluation:
        """Asks one question; what the oracle does is in the evaluation, never raised.

        An earlier attempt that was lost with its actor may have been answered all the same: its oracle's
        process outlives the actor for a moment and leaves a receipt, which is used instead of asking again.

        Args:
            place: Which of the workers asks; at most one question at a time each.
            request: What is asked.
            asker: On whose behalf, if receipts do not all go to one run.
        """
        if asker is not None and not asker.receipts.is_dir():
            asker = None  # this node does not see the run
        receipts = self._receipts if asker is None else asker.receipts
        if receipts is not None:
            for attempt in range(1, request.attempt):
                receipt = read_receipt(receipts, request.query_id, attempt)
                if receipt is not None and receipt.status is Status.OK:
                    return receipt
        context = QueryContext(request.query_id, request.attempt)
        with self._lock:
            host, self._asking[place] = self._hosts[place], request
        return host.evaluate(request.sample, context, request.time_limit, asker)

    def cancel(self, place: int, query_id: str, attempt: int) -> None:
        """Kills what a worker is asking, if it is still this; it comes back as cancelled.

        The worker's next question gets a new process.
        """
        with self._lock:
            asking = self._asking.get(place)
            if asking is None or (asking.query_id, asking.attempt) != (query_id, attempt):
                return
            host, self._hosts[place] = self._hosts[place], self._open(self._names[place])
        host.close()

    def stay(self) -> None:
        """Never returns: whoever waits for it learns when the actor is gone."""
        threading.Event().wait()

    def _open(self, name: str) -> OracleHost:
        return open_oracle_host(self._config, self._receipts, name)


__all__ = ["Evaluator"]
