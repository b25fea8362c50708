"""An oracle in a process of its own, with a hard wall-clock limit: nothing it does can harm the driver.

A hang, a crash, an exit, a kill by the kernel or a flood of prints each become an evaluation with a status;
the next question gets a new process. May import pilotwave.execution and pilotwave.config; never ray.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from pilotwave.config.components import OracleConfig
from pilotwave.errors import InfrastructureError, InputError, PilotwaveError, PreflightError
from pilotwave.execution.log_capture import asking
from pilotwave.execution.oracle_child import KnownQuestion, OracleSource, Question, Startup, StartupFailure
from pilotwave.execution.question import (
    PREFLIGHT_ID,
    OracleIdentity,
    check_known_answer,
    never_asked,
    one_line,
    unanswered,
)
from pilotwave.execution.receipts import Asker, read_receipt
from pilotwave.execution.worker_process import SINGLE_THREADED, WorkerDiedError, WorkerProcess, deadline_after
from pilotwave.protocols import KnownAnswer, QueryContext
from pilotwave.samples import Sample
from pilotwave.types import Evaluation, Failure, Status

FULL = 0.8
"""A process is replaced before its next question once it has used up this share of the memory that it had left
after its first answer: a leak costs a restart now and then, not an attempt."""

_LOG = logging.getLogger(__name__)
_QUOTED_LINES = 50
"""So many of the last lines of an oracle that failed go into the run's log."""

START_LIMIT = 300.0
"""Seconds that an oracle may take to be imported and built."""

DEFAULT_TIME_LIMIT = 600.0
"""Seconds for one question to an oracle whose source is a plain function."""


class OracleProcess:
    """Asks an oracle in a child process group. One thread asks; :meth:`close` may be called from any.

    Attributes:
        name: Who this is, the ``worker`` of its evaluations.
        time_limit: Wall-clock seconds for one question.
    """

    def __init__(
        self,
        source: OracleSource,
        *,
        name: str = "evaluator",
        receipts_dir: Path | None = None,
        environment: Mapping[str, str] | None = None,
        recycle_after: int | None = None,
        memory_limit: int | None = None,
        start_limit: float = START_LIMIT,
    ) -> None:
        """Prepares everything; the process starts with :meth:`start` or the first question.

        Args:
            source: A configuration, or a function without arguments that returns an oracle; it must pickle.
            name: See the class.
            receipts_dir: Where the child leaves receipts before it replies, or None for none.
            environment: Environment variables of the child, over :data:`SINGLE_THREADED`.
            recycle_after: Replace the process after so many answers; default: what the configuration says.
            memory_limit: Bytes that the child and whatever it starts may hold; default: what the configuration
                says.
            start_limit: Seconds for starting and building.

        Raises:
            InputError: The source does not pickle, or memory cannot be watched here.
        """
        self.name = name
        self.time_limit = DEFAULT_TIME_LIMIT
        if isinstance(source, OracleConfig):
            self.time_limit = source.longest
            recycle_after = source.recycle_after if recycle_after is None else recycle_after
            memory_limit = source.memory_limit if memory_limit is None else memory_limit
        if memory_limit is not None and not Path("/proc/self/status").exists():
            raise InputError("oracle.memory_limit needs Linux, where memory can be watched; remove it")
        self._startup = Startup(_pickled(source), receipts_dir, name)
        self._environment = {**SINGLE_THREADED, **(environment or {})}
        self._recycle_after = recycle_after
        self._memory_limit = memory_limit
        self._memory_at_first = 0
        self._start_limit = start_limit
        self._answers = 0
        self._worker: WorkerProcess | None = None
        self._identity: OracleIdentity | None = None
        self._asking = False
        self._closed = False
        self._lock = threading.Lock()

    def start(self) -> OracleIdentity:
        """Starts the process and builds the oracle, if that has not happened; returns what it is.

        Raises:
            PilotwaveError: The oracle could not be built; of the class and with the line it gave.
            InfrastructureError: The process died or was not ready in time.
        """
        if self._worker is None or self._identity is None:
            self._identity = self._launch()
            self._answers = 0
        return self._identity

    def evaluate(
        self,
        sample: Sample,
        context: QueryContext,
        time_limit: float | None = None,
        asker: Asker | None = None,
    ) -> Evaluation:
        """Asks one question; whatever happens is in the evaluation, nothing is raised.

        A failure to start has the stage ``"start"``, the death of the process ``"worker"``, one for holding too
        much memory ``"memory limit"``; all may be tried again. At the time limit the whole process group is killed:
        ``TIMED_OUT``, stage ``"wall-clock limit"``, not retryable. If a receipt shows that the answer had been
        there before the process died, the answer counts. After :meth:`close` the status is ``CANCELLED``.

        Args:
            sample: What is judged.
            context: The id and attempt.
            time_limit: Seconds for this question; default: the configuration's.
            asker: On whose behalf, if receipts do not all go to one run.
        """
        limit = self.time_limit if time_limit is None else time_limit
        receipts = self._startup.receipts_dir if asker is None else asker.receipts
        with asking(self.name, context.query_id, context.attempt, receipts):
            return self._evaluate(Question(sample, context, asker), limit)

    def _evaluate(self, question: Question, limit: float) -> Evaluation:
        context = question.context
        try:
            worker = self._ready_worker()
        except PilotwaveError as error:
            if self._closed:
                return never_asked(context, self._withdrawn(), self.name, Status.CANCELLED)
            return never_asked(context, Failure("start", one_line(str(error)), True), self.name)
        started, before = time.time(), worker.lines_written
        self._asking = True
        try:
            reply = _exchange(worker, question, limit)
            assert isinstance(reply, Evaluation)
            self._answers += 1
            if self._memory_limit is not None and self._answers == 1:
                self._memory_at_first = worker.memory()
        except TimeoutError:
            failure = Failure("wall-clock limit", f"no answer within {limit:g} s; the oracle's process was killed")
            reply = self._bury(worker, question, failure, started, Status.TIMED_OUT)
        except WorkerDiedError as error:
            stage = "memory limit" if error.over_memory else "worker"
            reply = self._bury(worker, question, Failure(stage, one_line(str(error)), True), started)
        finally:
            self._asking = False
        if reply.failure is not None:
            _quote(worker, before)
        return reply

    def preflight(self) -> Evaluation | None:
        """Asks the question whose answer is known; returns the evaluation, or None if there is no such question.

        Raises:
            PreflightError: The answer is wrong, or there is none.
            PilotwaveError: As :meth:`start` does.
        """
        identity = self.start()
        assert self._worker is not None
        try:
            known = _exchange(self._worker, KnownQuestion(), self.time_limit)
        except (TimeoutError, WorkerDiedError) as error:
            self._drop(self._worker)
            raise PreflightError(f"oracle {identity.name} did not name its known answer: {error}") from error
        if known is None:
            return None
        if isinstance(known, StartupFailure):
            raise PreflightError(f"oracle {identity.name} could not name its known answer: {known.message}")
        assert isinstance(known, KnownAnswer)
        evaluation = self.evaluate(known.sample, QueryContext(PREFLIGHT_ID))
        check_known_answer(identity, known, evaluation)
        return evaluation

    def recent_output(self) -> list[str]:
        """Returns the last lines that the running process wrote, for diagnosis."""
        worker = self._worker
        return [] if worker is None else worker.recent_output()

    def close(self) -> None:
        """Ends the process; a question in progress comes back as cancelled. May be called twice."""
        with self._lock:
            self._closed = True
            worker, self._worker = self._worker, None
        if worker is None:
            return
        if self._asking:
            worker.kill()
        worker.close()

    def _ready_worker(self) -> WorkerProcess:
        """Returns a live worker: a new one if the last one died, has answered often enough, or has grown."""
        worker = self._worker
        if worker is not None and (not worker.is_alive() or self._is_worn(worker)):
            self._retire(worker)
        self.start()
        worker = self._worker
        if worker is None:
            raise InfrastructureError(f"{self.name} is closed")
        return worker

    def _is_worn(self, worker: WorkerProcess) -> bool:
        if self._recycle_after is not None and self._answers >= self._recycle_after:
            return True
        if self._memory_limit is None or self._answers < 2:
            return False
        room = self._memory_limit - self._memory_at_first
        return worker.memory() > self._memory_at_first + FULL * room

    def _launch(self, *, again: bool = True) -> OracleIdentity:
        with self._lock:
            if self._closed:
                raise InfrastructureError(f"{self.name} is closed")
            worker = self._worker = WorkerProcess(self.name, self._environment, self._memory_limit)
        try:
            reply = _exchange(worker, self._startup, self._start_limit)
        except (TimeoutError, WorkerDiedError) as error:
            self._drop(worker)
            _quote(worker)
            if again and isinstance(error, WorkerDiedError) and not error.over_memory:
                return self._launch(again=False)  # somebody may have killed it: once is no reason to give up
            why = f"was not ready within {self._start_limit:g} s" if isinstance(error, TimeoutError) else error
            raise InfrastructureError(f"the oracle of {self.name} could not be started: {why}") from error
        if isinstance(reply, StartupFailure):
            self._drop(worker)
            _quote(worker)
            raise reply.as_error()
        assert isinstance(reply, OracleIdentity)
        return reply

    def _bury(
        self,
        worker: WorkerProcess,
        question: Question,
        failure: Failure,
        started: float,
        status: Status = Status.FAILED,
    ) -> Evaluation:
        """Removes a worker that will not answer, and returns what became of the question."""
        self._drop(worker)
        context, asker = question.context, question.asker
        directory = self._startup.receipts_dir if asker is None else asker.receipts
        if directory is not None and context.query_id != PREFLIGHT_ID:
            receipt = read_receipt(directory, context.query_id, context.attempt)
            if receipt is not None:
                return receipt
        if self._closed:
            status, failure = Status.CANCELLED, self._withdrawn()
        return unanswered(context, failure, self.name, started, status)

    def _withdrawn(self) -> Failure:
        return Failure("worker", f"{self.name} was closed", True)

    def _drop(self, worker: WorkerProcess) -> None:
        """Gets rid of a worker at once."""
        worker.kill()
        self._retire(worker)

    def _retire(self, worker: WorkerProcess) -> None:
        """Lets a worker end by itself."""
        with self._lock:
            if self._worker is worker:
                self._worker = None
        worker.close()


def _exchange(worker: WorkerProcess, message: object, seconds: float) -> object:
    deadline = deadline_after(seconds)
    worker.send(message, deadline)
    return worker.receive(deadline)


def _quote(worker: WorkerProcess, since: int = 0) -> None:
    """Brings what the oracle printed last into the run's log: it often says more than the failure does."""
    lines = worker.recent_output(since)[-_QUOTED_LINES:]
    if lines and _LOG.isEnabledFor(logging.INFO):
        said = f"the oracle wrote {len(lines)} lines" if len(lines) > 1 else f"the oracle wrote: {lines[0]}"
        about = {"event": "oracle-output", "output": lines if len(lines) > 1 else ()}
        _LOG.info(said, extra={"about": about})


def _pickled(source: OracleSource) -> bytes:
    try:
        return pickle.dumps(source)
    except Exception as error:  # pickle raises AttributeError, TypeError, PicklingError, RecursionError
        raise InputError(
            f"expected an oracle that can be sent to a process of its own, but it does not pickle ({error}); "
            "define it at the top level of a module, or choose isolation: thread"
        ) from error


__all__ = ["DEFAULT_TIME_LIMIT", "START_LIMIT", "OracleProcess"]
