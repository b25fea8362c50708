"""What runs in an oracle's own process: build it once, then question by question, receipt before reply.

May import pilotwave; heavy libraries come with the oracle that needs them.
"""

from __future__ import annotations

import io
import pickle
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pilotwave import errors
from pilotwave.config.components import OracleConfig
from pilotwave.errors import InfrastructureError, InputError, PilotwaveError
from pilotwave.execution.frames import receive_frame, send_frame
from pilotwave.execution.question import PREFLIGHT_ID, OracleIdentity, ask, one_line, withdrawn
from pilotwave.execution.receipts import Asker, hold, write_receipt
from pilotwave.protocols import Oracle, QueryContext
from pilotwave.samples import Sample
from pilotwave.types import Evaluation

OracleSource = OracleConfig | Callable[[], Oracle]
"""What an oracle is built from: its configuration, or any function without arguments that returns one."""


@dataclass(frozen=True)
class Startup:
    """The first message to a worker.

    Attributes:
        source: A pickled :data:`OracleSource`; pickled apart, so that a failure to read it can be reported.
        receipts_dir: Where receipts go, or None for none.
        worker: Its name in evaluations.
    """

    source: bytes
    receipts_dir: Path | None
    worker: str


@dataclass(frozen=True)
class StartupFailure:
    """The reply if the oracle could not be built: an error's class in :mod:`pilotwave.errors`, and its line."""

    error: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> StartupFailure:
        """Describes any exception; what is not of the error family is the user's to mend."""
        name = type(error).__name__
        if isinstance(error, InputError | InfrastructureError) and getattr(errors, name, None) is type(error):
            return cls(name, str(error))
        return cls("InputError", one_line(f"the oracle could not be built: {name}: {error}"))

    def as_error(self) -> PilotwaveError:
        """Returns the exception to raise in the driver."""
        kind: type[PilotwaveError] = getattr(errors, self.error, InputError)
        return kind(self.message)


@dataclass(frozen=True)
class Question:
    """A request for one evaluation; the reply is an :class:`Evaluation`.

    Attributes:
        sample: What is judged.
        context: The id and attempt.
        asker: Where its receipt goes, if not where all of this worker's go.
    """

    sample: Sample
    context: QueryContext
    asker: Asker | None = None


@dataclass(frozen=True)
class KnownQuestion:
    """A request for the oracle's known answer; the reply is a ``KnownAnswer``, None or a StartupFailure."""


def build_oracle(source: OracleSource) -> Oracle:
    """Builds the oracle that a source describes."""
    return source.build() if isinstance(source, OracleConfig) else source()


def serve(channel: socket.socket) -> None:
    """Answers requests until the driver closes the channel."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # what it said before it was killed shall be known
    startup: Startup = receive_frame(channel)
    if startup.receipts_dir is not None:
        hold(startup.receipts_dir)
    try:
        oracle = build_oracle(pickle.loads(startup.source))
        identity = OracleIdentity.of(oracle)
    except Exception as error:
        send_frame(channel, StartupFailure.of(error))
        return
    send_frame(channel, identity)
    while True:
        try:
            request = receive_frame(channel)
        except EOFError:
            return
        reply = _known_answer(oracle) if isinstance(request, KnownQuestion) else _answer(oracle, request, startup)
        send_frame(channel, reply)


def _known_answer(oracle: Oracle) -> object:
    try:
        return oracle.known_answer()
    except Exception as error:
        return StartupFailure.of(error)


def _answer(oracle: Oracle, question: Question, startup: Startup) -> Evaluation:
    if question.asker is not None:
        return ask_for(question.asker, oracle, question.sample, question.context, startup.worker)
    evaluation = ask(oracle, question.sample, question.context, startup.worker)
    if startup.receipts_dir is not None and question.context.query_id != PREFLIGHT_ID:
        leave_receipt(startup.receipts_dir, evaluation)
    return evaluation


def ask_for(asker: Asker, oracle: Oracle, sample: Sample, context: QueryContext, worker: str) -> Evaluation:
    """Asks on behalf of a driver, with the receipt in its run, unless a newer driver has taken the question up."""
    with asker.asking() as wanted:
        if not wanted:
            return withdrawn(context, worker)
        evaluation = ask(oracle, sample, context, worker)
        leave_receipt(asker.receipts, evaluation)
        return evaluation


def leave_receipt(directory: Path, evaluation: Evaluation) -> None:
    """Writes the receipt; if the disk refuses, says so and goes on: the answer still reaches the ledger."""
    try:
        write_receipt(directory, evaluation)
    except OSError as error:
        print(f"no receipt for {evaluation.query_id}: {error}", file=sys.stderr, flush=True)


__all__ = [
    "KnownQuestion",
    "OracleSource",
    "Question",
    "Startup",
    "StartupFailure",
    "ask_for",
    "build_oracle",
    "leave_receipt",
    "serve",
]
