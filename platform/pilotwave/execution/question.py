"""One question to an oracle, from the sample to the evaluation: the same in a process and in a thread.

Whatever an oracle does, what comes out is an :class:`Evaluation`; nothing is raised. May import
:mod:`pilotwave.types`, :mod:`pilotwave.protocols`, :mod:`pilotwave.errors` and the standard library.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from pilotwave.errors import OracleFailure, PreflightError
from pilotwave.protocols import KnownAnswer, Oracle, QueryContext
from pilotwave.samples import Sample
from pilotwave.types import Answer, Evaluation, Failure, Status, Timings

ATTEMPT_COST = 1.0
"""What an attempt costs that the oracle was asked and did not answer: it was paid for all the same."""

PREFLIGHT_ID = "preflight"
"""The query id of the question with a known answer; it leaves no receipt."""


@dataclass(frozen=True)
class OracleIdentity:
    """What an oracle says of itself, see :class:`pilotwave.protocols.Oracle`."""

    name: str
    version: str
    unit: str
    media: frozenset[str]
    deterministic: bool

    @classmethod
    def of(cls, oracle: Oracle) -> OracleIdentity:
        """Reads it off a live oracle."""
        return cls(oracle.name, oracle.version, oracle.unit, frozenset(oracle.media), oracle.deterministic)


def ask(oracle: Oracle, sample: Sample, context: QueryContext, worker: str) -> Evaluation:
    """Asks once and returns how it ended; an exception of the oracle becomes a failure with its stage.

    An exception that is no :class:`OracleFailure` has the stage ``"oracle"``. It is retryable if the
    surroundings are the likely cause (``OSError``: network, disk, time-outs; ``MemoryError``).
    """
    started = time.time()
    cost = ATTEMPT_COST
    try:
        answer = oracle.evaluate(sample, context)
        if not isinstance(answer, Answer):
            raise TypeError(f"expected evaluate to return an Answer, got {type(answer).__name__}")
    except OracleFailure as error:
        failure = Failure(error.stage, one_line(str(error)), error.retryable)
        cost = ATTEMPT_COST if error.cost is None else float(error.cost)
    except Exception as error:
        retryable = isinstance(error, OSError | MemoryError)
        failure = Failure("oracle", one_line(f"{type(error).__name__}: {error}"), retryable)
    else:
        return Evaluation(
            context.query_id,
            Status.OK,
            float(answer.value),
            attempt=context.attempt,
            cost=float(answer.cost),
            fidelity=answer.fidelity,
            timings=Timings(started, time.time()),
            properties={str(name): float(number) for name, number in answer.properties.items()},
            worker=worker,
        )
    return unanswered(context, failure, worker, started, cost=cost)


def unanswered(
    context: QueryContext,
    failure: Failure,
    worker: str,
    started: float,
    status: Status = Status.FAILED,
    cost: float = ATTEMPT_COST,
) -> Evaluation:
    """Returns the evaluation of an attempt that was made and got no value; it ends now."""
    return Evaluation(
        context.query_id,
        status,
        attempt=context.attempt,
        cost=cost,
        timings=Timings(started, time.time()),
        failure=failure,
        worker=worker,
    )


def never_asked(context: QueryContext, failure: Failure, worker: str, status: Status = Status.FAILED) -> Evaluation:
    """Returns the evaluation of a question that did not reach the oracle: no cost, no times."""
    return Evaluation(context.query_id, status, attempt=context.attempt, failure=failure, worker=worker)


def withdrawn(context: QueryContext, worker: str) -> Evaluation:
    """Returns the evaluation of a question that its driver does not want asked any more."""
    failure = Failure("worker", "withdrawn before it was asked", retryable=True)
    return never_asked(context, failure, worker, Status.CANCELLED)


def check_known_answer(identity: OracleIdentity, known: KnownAnswer, evaluation: Evaluation) -> None:
    """Compares the answer to the known question with what is known.

    Raises:
        PreflightError: It failed or differs by more than the tolerance; the line says how to mend it.
    """
    label = f"oracle {identity.name} ({identity.version}) on its known candidate {known.sample.label()}"
    expected = "a finite value" if known.value is None else f"{known.value:.8g} ± {known.tolerance:.2g}"
    unit = f" {identity.unit}" if identity.unit else ""
    if evaluation.value is None:
        failure = evaluation.failure or Failure("unknown", str(evaluation.status))
        raise PreflightError(
            f"{label}: expected {expected}{unit}, but it failed in stage {failure.stage!r}: {failure.message}; "
            "mend the oracle's installation or configuration (`pilotwave doctor` helps); no query was paid"
        )
    if known.value is not None and not abs(evaluation.value - known.value) <= known.tolerance:
        raise PreflightError(
            f"{label}: expected {expected}{unit}, got {evaluation.value:.8g}{unit}; "
            "check the oracle's version, property and unit; no query was paid"
        )


def one_line(text: str, limit: int = 500) -> str:
    """Returns the text on one line, cut to a length that fits a table and a ledger."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


__all__ = [
    "ATTEMPT_COST",
    "PREFLIGHT_ID",
    "OracleIdentity",
    "ask",
    "check_known_answer",
    "never_asked",
    "one_line",
    "unanswered",
    "withdrawn",
]
