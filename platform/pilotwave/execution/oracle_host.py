"""Whoever asks oracles, the inline runtime or a Ray actor, holds an oracle host: one interface, two kinds.

May import pilotwave.execution and pilotwave.config; never ray.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pilotwave.config.components import OracleConfig
from pilotwave.errors import InputError, PilotwaveError, PreflightError
from pilotwave.execution.log_capture import asking
from pilotwave.execution.oracle_child import OracleSource, StartupFailure, ask_for, build_oracle, leave_receipt
from pilotwave.execution.oracle_process import DEFAULT_TIME_LIMIT, OracleProcess
from pilotwave.execution.question import PREFLIGHT_ID, OracleIdentity, ask, check_known_answer, never_asked
from pilotwave.execution.receipts import Asker, hold
from pilotwave.protocols import Oracle, QueryContext
from pilotwave.samples import Sample
from pilotwave.types import Evaluation, Failure, Status

_LOG = logging.getLogger(__name__)


class OracleHost(Protocol):
    """Asks one oracle, one question at a time, and turns whatever happens into an evaluation.

    Attributes:
        name: Who this is, the ``worker`` of its evaluations.
        time_limit: Wall-clock seconds for one question.
    """

    name: str
    time_limit: float

    def start(self) -> OracleIdentity:
        """Builds the oracle if that has not happened; raises a PilotwaveError if it cannot be built."""
        ...

    def evaluate(
        self,
        sample: Sample,
        context: QueryContext,
        time_limit: float | None = None,
        asker: Asker | None = None,
    ) -> Evaluation:
        """Asks one question; never raises for what an oracle does.

        Args:
            sample: What is judged.
            context: The id and attempt.
            time_limit: Seconds for this question; default: the configuration's.
            asker: On whose behalf, if receipts do not all go to one run.
        """
        ...

    def preflight(self) -> Evaluation | None:
        """Asks the known question, if there is one; raises PreflightError if the answer is not the known one."""
        ...

    def close(self) -> None:
        """Ends it; may be called from another thread and twice."""
        ...


class ThreadOracle:
    """Asks an oracle in the caller's own thread: for cheap trusted Python, with nothing to protect from it.

    A time limit cannot be enforced here. An answer that came too late still counts, since it was paid for;
    a warning is logged and the property ``seconds_over_time_limit`` says by how much.

    Attributes:
        name: Who this is, the ``worker`` of its evaluations.
        time_limit: Wall-clock seconds for one question, not enforced.
    """

    def __init__(self, source: OracleSource, *, name: str = "evaluator", receipts_dir: Path | None = None) -> None:
        """Prepares everything; the oracle is built by :meth:`start` or the first question."""
        self.name = name
        self.time_limit = source.longest if isinstance(source, OracleConfig) else DEFAULT_TIME_LIMIT
        self._source = source
        self._receipts_dir = receipts_dir
        self._oracle: Oracle | None = None
        self._held: int | None = None
        self._closed = False

    def start(self) -> OracleIdentity:
        """Builds the oracle if that has not happened.

        Raises:
            PilotwaveError: It could not be built.
        """
        return OracleIdentity.of(self._built())

    def evaluate(
        self,
        sample: Sample,
        context: QueryContext,
        time_limit: float | None = None,
        asker: Asker | None = None,
    ) -> Evaluation:
        """Asks one question; an exception of the oracle becomes a failure with its stage."""
        if self._closed:
            failure = Failure("worker", f"{self.name} was closed", True)
            return never_asked(context, failure, self.name, Status.CANCELLED)
        try:
            oracle = self._built()
        except PilotwaveError as error:
            return never_asked(context, Failure("start", str(error), True), self.name)
        receipts = self._receipts_dir if asker is None else asker.receipts
        with asking(self.name, context.query_id, context.attempt, receipts):
            if asker is not None:
                evaluation = ask_for(asker, oracle, sample, context, self.name)
            else:
                evaluation = ask(oracle, sample, context, self.name)
            evaluation = self._note_lateness(evaluation, self.time_limit if time_limit is None else time_limit)
        if asker is None and self._receipts_dir is not None and context.query_id != PREFLIGHT_ID:
            leave_receipt(self._receipts_dir, evaluation)
        return evaluation

    def preflight(self) -> Evaluation | None:
        """Asks the question whose answer is known; returns the evaluation, or None if there is no such question.

        Raises:
            PreflightError: The answer is wrong, or there is none.
            PilotwaveError: The oracle could not be built.
        """
        oracle = self._built()
        try:
            known = oracle.known_answer()
        except Exception as error:
            raise PreflightError(f"oracle {oracle.name} could not name its known answer: {error!r}") from error
        if known is None:
            return None
        evaluation = self.evaluate(known.sample, QueryContext(PREFLIGHT_ID))
        check_known_answer(self.start(), known, evaluation)
        return evaluation

    def close(self) -> None:
        """Refuses further questions; one in progress cannot be interrupted."""
        self._closed = True
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def _built(self) -> Oracle:
        if self._oracle is None:
            try:
                self._oracle = build_oracle(self._source)
                if self._receipts_dir is not None:
                    self._held = hold(self._receipts_dir)
            except PilotwaveError:
                raise
            except Exception as error:
                failure = StartupFailure.of(error)
                raise InputError(failure.message) from error
        return self._oracle

    def _note_lateness(self, evaluation: Evaluation, limit: float) -> Evaluation:
        seconds = evaluation.timings.seconds if evaluation.timings else 0.0
        if seconds <= limit:
            return evaluation
        _LOG.warning(
            "%s: %s took %.1f s, over its limit of %g s, which isolation: thread cannot enforce",
            self.name,
            evaluation.query_id,
            seconds,
            limit,
        )
        properties = {**evaluation.properties, "seconds_over_time_limit": seconds - limit}
        return replace(evaluation, properties=properties)


def open_oracle_host(config: OracleConfig, receipts_dir: Path | None, name: str) -> OracleHost:
    """Opens the kind of host that the configuration's ``isolation`` asks for; nothing is started yet.

    Args:
        config: The oracle's configuration.
        receipts_dir: Where receipts go before an evaluation is returned, or None for none.
        name: Who this is, e.g. ``"evaluator-1"``.

    Raises:
        InputError: The configuration does not pickle, so it cannot be sent to a process.
    """
    if config.isolation == "thread":
        return ThreadOracle(config, name=name, receipts_dir=receipts_dir)
    return OracleProcess(config, name=name, receipts_dir=receipts_dir)


__all__ = ["OracleHost", "ThreadOracle", "open_oracle_host"]
