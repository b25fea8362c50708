"""Oracles that misbehave on purpose, and one that records: for tests of whatever asks oracles.

Each is a configuration like any other (pass it where an ``OracleConfig`` is expected) and scores the sum of an
:class:`ArraySample` or, for other samples, a number from the identity. In a campaign file they are reached
through ``kind: python`` with ``function: pilotwave.testing.faulty_oracles:score`` and the like. May import
pilotwave and the standard library.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from pilotwave.config.components import OracleConfig
from pilotwave.errors import InputError, OracleFailure
from pilotwave.protocols import KnownAnswer, Oracle, QueryContext
from pilotwave.samples import SAMPLE_TYPES, ArraySample, Sample
from pilotwave.types import Answer

Fault = Literal[
    "none",
    "raise",
    "refuse",
    "bug",
    "not a number",
    "hang",
    "segfault",
    "exit 137",
    "print",
    "orphan",
    "wrong answer",
    "garbage",
    "out of memory",
    "leak",
    "big program",
]


def score(sample: Sample) -> float:
    """Returns a deterministic value: the sum of a finite array, else a number in [0, 1) from the identity."""
    if isinstance(sample, ArraySample) and np.isfinite(sample.array).all():
        return float(np.sum(sample.array, dtype=np.float64))
    digest = hashlib.sha256(sample.identity().encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2.0**48


class FaultyOracleConfig(OracleConfig):
    """Scores well, except that every ``every``-th call commits a fault.

    Attributes:
        fault: What goes wrong. ``raise``: an OracleFailure, stage ``"injected"``, retryable. ``refuse``: an
            InputError. ``bug``: any other exception. ``hang``: sleeps for an hour. ``exit 137``: as after a
            kill for lack of memory. ``print``: writes a megabyte to each standard stream, through Python and
            below it, then answers. ``orphan``: starts a process in a session of its own, then crashes. ``garbage``:
            writes into every socket that it finds open, as a library does that has its descriptors wrong, then
            answers. ``out of memory``: takes ``megabytes`` and keeps them for a second. ``leak``: takes them, keeps
            them for ever, and answers. ``big program``: starts a program that takes them, and waits for it.
        every: 1 for every call. Calls are counted per process.
        rate: Instead of ``every``: the share of calls, chosen at random by query and attempt, 0 to 1.
        megabytes: Of ``out of memory``, ``leak`` and ``big program``.
        knows: Whether it has a question whose answer is known.
        at_build: The fault is committed when the oracle is built.
        delay: Mean of a random pause before each answer, seconds, uniform from 0 to twice that.
        seed: Of the pauses; with the query id and attempt it fixes each of them.
        pid_file: Where the oracle's process id is written when it is built, and that of an orphan appended.
    """

    media: ClassVar[frozenset[str]] = frozenset(SAMPLE_TYPES)
    summary: ClassVar[str] = "Misbehaves on purpose."

    kind: Literal["faulty"] = "faulty"
    fault: Fault = "none"
    every: int = Field(1, ge=1)
    rate: float | None = Field(None, ge=0, le=1)
    megabytes: int = Field(64, ge=1)
    knows: bool = True
    at_build: bool = False
    delay: float = Field(0.0, ge=0)
    seed: int = 0
    pid_file: Path | None = None

    def build(self) -> Oracle:
        """Builds it."""
        return FaultyOracle(self)


class FaultyOracle:
    """See :class:`FaultyOracleConfig`."""

    name = "faulty"
    version = "1"
    unit = ""
    media = frozenset(SAMPLE_TYPES)
    deterministic = True

    def __init__(self, config: FaultyOracleConfig) -> None:
        self._config = config
        self._calls = 0
        self._leaked: list[bytearray] = []
        self._note_pid(os.getpid())
        if config.at_build:
            self._commit_fault(0.0)

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Pauses, commits the fault if it is due, and scores."""
        self._calls += 1
        time.sleep(_pause(self._config, context))
        value = score(sample)
        if self._calls % self._config.every == 0 if self._config.rate is None else is_due(self._config, context):
            value = self._commit_fault(value)
        return Answer(value)

    def known_answer(self) -> KnownAnswer | None:
        """Asks for 1 + 2."""
        if not self._config.knows:
            return None
        return KnownAnswer(ArraySample(np.array([1.0, 2.0], dtype=np.float32)), 3.0, 1e-9)

    def _commit_fault(self, value: float) -> float:
        match self._config.fault:
            case "raise":
                raise OracleFailure("this call was chosen to fail", stage="injected", retryable=True)
            case "refuse":
                raise InputError("expected a licence, found none; buy one")
            case "bug":
                raise KeyError("no such thing")
            case "not a number":
                return float("nan")
            case "hang":
                time.sleep(3600)
            case "segfault":
                print("about to crash", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit 137":
                os._exit(137)
            case "print":
                _flood()
            case "orphan":
                orphan = subprocess.Popen(["sleep", "3600"], start_new_session=True)
                self._note_pid(orphan.pid)
                os.kill(os.getpid(), signal.SIGSEGV)
            case "garbage":
                _write_garbage()
            case "out of memory":
                held = _taken(self._config.megabytes)
                time.sleep(1.0)
                del held
            case "leak":
                self._leaked.append(_taken(self._config.megabytes))
            case "big program":
                take = f"import time; held = bytearray(b'x' * 2**20) * {self._config.megabytes}; time.sleep(3600)"
                subprocess.run([sys.executable, "-S", "-c", take], start_new_session=True, check=False)
            case "wrong answer":
                return value + 1000.0
        return value

    def _note_pid(self, pid: int) -> None:
        if self._config.pid_file is not None:
            append_line(self._config.pid_file, str(pid))


class RecordingOracleConfig(OracleConfig):
    """Scores well and writes down, durably, every question that it starts and every answer that it finishes.

    Attributes:
        started_file: One line ``query_id`` for each question, before any work.
        finished_file: One line ``query_id`` for each answer, flushed to the disk before it is returned.
        delay: Mean pause, see :class:`FaultyOracleConfig`.
        seed: Of the pauses.
    """

    media: ClassVar[frozenset[str]] = frozenset(SAMPLE_TYPES)
    summary: ClassVar[str] = "Writes down what it was asked."

    kind: Literal["recording"] = "recording"
    started_file: Path
    finished_file: Path
    delay: float = Field(0.0, ge=0)
    seed: int = 0

    def build(self) -> Oracle:
        """Builds it."""
        return RecordingOracle(self)


class RecordingOracle:
    """See :class:`RecordingOracleConfig`."""

    name = "recording"
    version = "1"
    unit = ""
    media = frozenset(SAMPLE_TYPES)
    deterministic = True

    def __init__(self, config: RecordingOracleConfig) -> None:
        self._config = config

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Records, pauses, scores, records."""
        append_line(self._config.started_file, context.query_id)
        time.sleep(_pause(self._config, context))
        answer = Answer(score(sample))
        append_line(self._config.finished_file, context.query_id)
        return answer

    def known_answer(self) -> None:
        """Has none, so that every line is a question of the campaign."""
        return None


def is_due(config: FaultyOracleConfig, context: QueryContext) -> bool:
    """Says whether an oracle with a ``rate`` commits its fault at this attempt."""
    fate = random.Random(f"{config.seed}/fault/{context.query_id}/{context.attempt}").random()
    return config.rate is not None and fate < config.rate


def append_line(path: Path, line: str) -> None:
    """Appends a line in one write and flushes it to the disk, so that a kill leaves it whole or absent."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pause(config: FaultyOracleConfig | RecordingOracleConfig, context: QueryContext) -> float:
    randomness = random.Random(f"{config.seed}/{context.query_id}/{context.attempt}")
    return config.delay * randomness.uniform(0.0, 2.0)


def _taken(megabytes: int) -> bytearray:
    """Takes memory, really: every page of it is written to."""
    return bytearray(b"x" * (1 << 20)) * megabytes


def _write_garbage() -> None:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                os.write(int(name), b"Segmentation fault? No: a warning that went astray.\n")


def _flood() -> None:
    for _ in range(1000):
        print("x" * 1000)
        print("y" * 1000, file=sys.stderr)
    sys.stdout.flush()
    os.write(1, b"straight to the descriptor\n")


__all__ = [
    "Fault",
    "FaultyOracle",
    "FaultyOracleConfig",
    "RecordingOracle",
    "RecordingOracleConfig",
    "append_line",
    "is_due",
    "score",
]
