"""The evaluators of the inline runtime: oracle hosts in this process, each asked by a thread, as many as needed.

May import the core.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from pilotwave.config.components import OracleConfig, RuntimeConfig
from pilotwave.errors import PilotwaveError
from pilotwave.execution.backoff import rest_seconds
from pilotwave.execution.oracle_host import OracleHost, open_oracle_host
from pilotwave.execution.question import OracleIdentity
from pilotwave.execution.sizing import PoolSizing
from pilotwave.execution.workers import EvaluationRequest
from pilotwave.protocols import QueryContext
from pilotwave.types import Evaluation

REVIEW_SECONDS = 0.1
"""How often it is looked at whether there are enough, and not too many."""
REST_SECONDS = 2.0
"""How long none is added after one could not start; it doubles each time."""

_LOG = logging.getLogger(__name__)


class InlineEvaluators:
    """A pool of oracle hosts.

    Args:
        oracle: What each asks.
        runtime: How many there are.
        receipts: Where answers are left.
        deliver: Given every answer, in a thread of its evaluator.
    """

    def __init__(
        self, oracle: OracleConfig, runtime: RuntimeConfig, receipts: Path, deliver: Callable[[Evaluation], None]
    ) -> None:
        self._oracle = oracle
        self._receipts = receipts
        self._deliver = deliver
        self._sizing = PoolSizing(runtime.fewest_evaluators, runtime.evaluators, runtime.evaluators_idle_seconds)
        self._lock = threading.Lock()
        self._hosts = {number: self._open(number) for number in range(self._sizing.fewest)}
        self._starts: dict[int, Future[OracleIdentity]] = {}
        self._idle: list[tuple[int, float]] = []
        self._busy: dict[int, float] = {}
        self._failed_starts = 0
        self._rest_until = 0.0
        self._next_review = 0.0
        self._closed = False

    @property
    def up(self) -> int:
        """How many questions can be in flight now."""
        with self._lock:
            return len(self._idle) + len(self._busy)

    def launch(self) -> None:
        """Begins to start the fewest."""
        for number in list(self._hosts):
            self._start(number)

    def ready(self) -> OracleIdentity:
        """Waits until all of those are up.

        Raises:
            PilotwaveError: One cannot be built.
        """
        identities = [start.result() for start in list(self._starts.values())]
        return identities[0]

    def preflight(self) -> None:
        """Asks the first one the known question."""
        self._hosts[0].preflight()

    def evaluate(self, request: EvaluationRequest) -> None:
        """Hands a question to an idle evaluator's thread."""
        with self._lock:
            number, _ = heapq.heappop(self._idle)
            self._busy[number] = time.monotonic()
        # Daemon threads: an interrupted driver must not wait for an answer.
        threading.Thread(target=self._ask, args=(number, request), daemon=True).start()

    def backlog(self, waiting: int) -> None:
        """Starts more, or lets some go; most calls do nothing.

        Args:
            waiting: How many questions no evaluator takes.
        """
        now = time.monotonic()
        if now < self._next_review or self._sizing.fewest == self._sizing.most:
            return
        self._next_review = now + REVIEW_SECONDS
        with self._lock:
            needed = self._sizing.needed(waiting, [now - since for since in self._busy.values()])
            spare = [self._hosts.pop(number) for number in self._spare(needed, now)]
            free = (number for number in range(self._sizing.most) if number not in self._hosts)
            new = [next(free) for _ in range(needed - len(self._hosts))] if now >= self._rest_until else []
            for number in new:
                self._hosts[number] = self._open(number)
        for host in spare:
            threading.Thread(target=host.close, daemon=True).start()  # it may take two seconds to go
        for number in new:
            self._start(number)

    def close(self) -> None:
        """Kills the oracle processes."""
        with self._lock:
            self._closed = True
            hosts, self._hosts = list(self._hosts.values()), {}
        for host in hosts:
            host.close()

    def _spare(self, needed: int, now: float) -> list[int]:
        """Takes those out of the idle that may go, the largest numbers first."""
        spare: list[int] = []
        for number, since in sorted(self._idle, reverse=True):
            if self._sizing.is_spare(len(self._hosts) - len(spare), needed, now - since):
                spare.append(number)
        self._idle = [item for item in self._idle if item[0] not in spare]
        heapq.heapify(self._idle)
        return spare

    def _open(self, number: int) -> OracleHost:
        return open_oracle_host(self._oracle, self._receipts, f"evaluator-{number}")

    def _start(self, number: int) -> None:
        start = self._starts[number] = Future()
        host = self._hosts[number]
        threading.Thread(target=self._bring_up, args=(number, host, start), daemon=True).start()

    def _bring_up(self, number: int, host: OracleHost, start: Future[OracleIdentity]) -> None:
        began = time.monotonic()
        try:
            identity = host.start()
        except PilotwaveError as error:
            start.set_exception(error)
            self._did_not_start(number, error)
            return
        now = time.monotonic()
        with self._lock:
            self._failed_starts = 0
            self._sizing.came_up(now - began)
            heapq.heappush(self._idle, (number, now))
        start.set_result(identity)

    def _did_not_start(self, number: int, error: PilotwaveError) -> None:
        with self._lock:
            self._hosts.pop(number, None)
            self._failed_starts += 1
            rest = rest_seconds(REST_SECONDS, 0, f"evaluator-{number}", self._failed_starts)
            self._rest_until = time.monotonic() + rest
            closed = self._closed
        if not closed:
            _LOG.warning("evaluator-%d could not be started (%s); another one in %.0f s", number, error, rest)

    def _ask(self, number: int, request: EvaluationRequest) -> None:
        host = self._hosts.get(number)
        if host is None:  # closed meanwhile: nobody listens any more
            return
        context = QueryContext(request.query_id, request.attempt)
        evaluation = host.evaluate(request.sample, context, request.time_limit)
        now = time.monotonic()
        with self._lock:
            self._sizing.answered(now - self._busy.pop(number))
            heapq.heappush(self._idle, (number, now))
        self._deliver(evaluation)


__all__ = ["InlineEvaluators"]
