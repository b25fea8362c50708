"""The oracle behind kind ``command``: what is asked of a program, and what its ending means.

May import pilotwave and pilotwave_oracles.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import weakref
from pathlib import Path

from pilotwave.errors import InputError, OracleFailure
from pilotwave.protocols import KnownAnswer, QueryContext
from pilotwave.samples import Sample
from pilotwave.types import Answer
from pilotwave_oracles.command import PASSED_ON, CommandOracleConfig
from pilotwave_oracles.contract import STAGE as CONTRACT_STAGE
from pilotwave_oracles.contract import parse_reply, read_reply, write_request
from pilotwave_oracles.program import (
    OUTPUT_LIMIT,
    STDERR,
    STDOUT,
    Conversation,
    EndedError,
    Finished,
    run_program,
)
from pilotwave_oracles.reading import STAGE as OUTPUT_STAGE
from pilotwave_oracles.reading import Reading, compiled
from pilotwave_oracles.template import Filling
from pilotwave_oracles.work_folder import WorkFolders

STAGE = "program"
"""The stage of a failure that lies in how the program ended."""

_COMPUTED_BY = {"command", "environment", "inputs", "stdin", "value", "properties", "arrays", "persistent"}
"""Settings that change what is computed, besides the program itself."""

_LAST_BYTES = 65_536


class CommandOracle:
    """See :class:`pilotwave_oracles.command.CommandOracleConfig` and :class:`pilotwave.protocols.Oracle`."""

    def __init__(self, config: CommandOracleConfig) -> None:
        self._config = config
        self._environment = _environment(config)
        self._program = _find_program(config.command[0], self._environment.get("PATH"))
        self._folders = WorkFolders(config.keep, config.folder)
        weakref.finalize(self, self._folders.close)
        self._conversation: Conversation | None = None
        # A process of its own is killed at the limit by its host; in a thread nobody else would do it.
        self._seconds = config.longest if config.isolation == "thread" else None
        self.name = f"command:{Path(config.command[0]).name}"
        self.version = config.version or _digest(config, self._program)
        self.unit = config.unit
        self.media: frozenset[str] = frozenset(config.accepts)
        self.deterministic = config.deterministic

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Asks the program.

        Raises:
            OracleFailure: Stage ``"media"``, ``"parse"`` or ``"encode"``: the sample cannot be passed on;
                ``"program"``: it could not be started, exited with another code than 0, was killed or wrote too
                much; ``"output"``: the number is not there; ``"contract"``: a reply that is none; any stage that
                the program or ``failures`` names.
        """
        if sample.media not in self.media:
            accepted = ", ".join(sorted(self.media))
            raise OracleFailure(f"{self.name} takes {accepted} samples, got {sample.media}", stage="media")
        try:
            with self._folders.opened(context) as folder:
                return self._asked(sample, context, folder)
        except OracleFailure as failure:
            if not self._folders.keeps(failed=True):
                raise
            raise OracleFailure(
                f"{failure}; kept in {folder}", stage=failure.stage, retryable=failure.retryable, cost=failure.cost
            ) from failure
        except OSError as error:
            raise OracleFailure(f"{self.name} could not be run: {error}", stage=STAGE, retryable=True) from error

    def known_answer(self) -> KnownAnswer | None:
        """Returns what the configuration gives."""
        return self._config.known.as_known_answer() if self._config.known else None

    def _asked(self, sample: Sample, context: QueryContext, folder: Path) -> Answer:
        if self._config.persistent:
            return self._converse(sample, context, folder)
        filling = Filling(sample, context, folder)
        arguments = [self._program, *map(filling.fill, self._config.command[1:])]
        for name, text in self._config.inputs.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(filling.fill(text))
        finished = run_program(
            arguments,
            folder=folder,
            environment=self._environment,
            stdin=self._stdin(sample, context, folder, filling),
            seconds=self._seconds,
        )
        if self._config.value is None:
            return self._replied(finished, folder, context)
        self._check_ending(finished, folder)
        return self._read(self._config.value, folder)

    def _stdin(self, sample: Sample, context: QueryContext, folder: Path, filling: Filling) -> Path | None:
        path = folder / "stdin.txt"
        if self._config.value is None:
            path.write_text(f"{write_request(sample, context, folder, self._config.arrays)}\n")
        elif self._config.stdin is not None:
            path.write_text(filling.fill(self._config.stdin))
        else:
            return None
        return path

    def _replied(self, finished: Finished, folder: Path, context: QueryContext) -> Answer:
        """Takes the reply of a program that speaks the contract; its own word about a failure counts first."""
        try:
            line = _last_object(_text(folder / STDOUT))
            failed = parse_reply(line).failure is not None
        except OracleFailure:
            self._check_ending(finished, folder)
            raise
        if not failed:
            self._check_ending(finished, folder)
        return read_reply(line, context.query_id, self.unit)

    def _converse(self, sample: Sample, context: QueryContext, folder: Path) -> Answer:
        request = write_request(sample, context, folder, self._config.arrays)
        if self._conversation is None:
            self._conversation = Conversation(
                [self._program, *self._config.command[1:]],
                folder=self._folders.home,
                environment=self._environment,
            )
            weakref.finalize(self, self._conversation.end)
        conversation = self._conversation
        try:
            line = conversation.exchange(request, self._seconds)
        except TimeoutError as error:
            self._end(conversation)
            raise self._overdue() from error
        except EndedError as error:
            code = self._end(conversation)
            message = f"{describe_exit(code)} instead of replying{_last_words(conversation.stderr)}"
            raise OracleFailure(f"{self.name} {message}", stage=STAGE, retryable=True) from error
        try:
            if parse_reply(line).query_id is None:
                raise OracleFailure(
                    "expected query_id in the reply of a persistent program, found none", stage=CONTRACT_STAGE
                )
            return read_reply(line, context.query_id, self.unit)
        except OracleFailure as failure:
            if failure.stage == CONTRACT_STAGE:  # it may be out of step: the next question gets a new program
                self._end(conversation)
            raise

    def _end(self, conversation: Conversation) -> int:
        self._conversation = None
        return conversation.end()

    def _check_ending(self, finished: Finished, folder: Path) -> None:
        if finished.overdue:
            raise self._overdue()
        for stage, pattern in self._config.failures.items():
            for name in (STDOUT, STDERR):
                found = compiled(pattern).search(_text(folder / name))
                if found:
                    raise OracleFailure(f"{self.name} wrote {found.group(0)!r:.200}", stage=stage)
        if finished.flooded:
            raise OracleFailure(f"{self.name} wrote more than {OUTPUT_LIMIT // 2**20} MiB of output", stage=STAGE)
        if finished.code:
            retryable = finished.code < 0 or finished.code in self._config.retry_exit_codes
            message = f"{self.name} {describe_exit(finished.code)}{_last_words(folder / STDERR)}"
            raise OracleFailure(message, stage=STAGE, retryable=retryable)

    def _overdue(self) -> OracleFailure:
        return OracleFailure(f"no answer within {self._seconds:g} s; killed", stage="wall-clock limit")

    def _read(self, reading: Reading, folder: Path) -> Answer:
        texts = {"stdout": folder / STDOUT, "stderr": folder / STDERR}

        def find(one: Reading) -> float:
            return one.find(_text(texts.get(one.file, folder / one.file)))

        properties = {name: find(one) for name, one in self._config.properties.items()}
        return Answer(find(reading), properties, self._config.fidelity or "standard")


def describe_exit(code: int) -> str:
    """Puts an exit code, or the negative number of a signal, into words."""
    if code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"


def _environment(config: CommandOracleConfig) -> dict[str, str]:
    missing = [name for name in config.pass_environment if name not in os.environ]
    if missing:
        raise InputError(f"expected the environment variable {missing[0]} (pass_environment), but it is not set")
    passed = {name: os.environ[name] for name in (*PASSED_ON, *config.pass_environment) if name in os.environ}
    return {**passed, **config.environment}


def _find_program(program: str, path: str | None) -> str:
    found = shutil.which(program, path=path)
    if found is None and Path(program).is_file():
        raise InputError(f"expected a program that may be executed, got {program}; run: chmod +x {program}")
    if found is None:
        raise InputError(f"expected a program {program!r} on PATH, found none; install it or give its full path")
    return str(Path(found).absolute())


def _digest(config: CommandOracleConfig, program: str) -> str:
    settings = config.model_dump(mode="json", include=_COMPUTED_BY)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for item in (program, *config.command[1:]):
        if item.startswith("/") and Path(item).is_file():
            with Path(item).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256 {digest.hexdigest()[:12]}"


def _text(path: Path) -> str:
    """Returns what a program wrote.

    Raises:
        OracleFailure: Stage ``"output"``: there is no such file, or it is too long to be searched.
    """
    try:
        with path.open("rb") as file:
            data = file.read(OUTPUT_LIMIT + 1)
    except OSError as error:
        raise OracleFailure(
            f"expected the program to write {path.name}: {error.strerror}", stage=OUTPUT_STAGE
        ) from error
    if len(data) > OUTPUT_LIMIT:
        raise OracleFailure(f"{path.name} is longer than {OUTPUT_LIMIT // 2**20} MiB", stage=OUTPUT_STAGE)
    return data.decode(errors="replace")


def _last_object(text: str) -> str:
    """Returns the reply among what a program printed: all of it, or else the last line that begins like one."""
    whole = text.strip()
    if whole.startswith("{"):
        try:
            json.loads(whole)
        except (ValueError, RecursionError):
            pass
        else:
            return whole
    lines = [line for line in whole.splitlines() if line.lstrip().startswith("{")]
    return lines[-1] if lines else whole


def _last_words(stderr: Path) -> str:
    """Returns the last line that a program wrote to stderr, as the end of a message."""
    try:
        with stderr.open("rb") as file:
            file.seek(max(0, stderr.stat().st_size - _LAST_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    words = [" ".join(line.split()) for line in lines if line.strip()]
    return f": {words[-1][:300]}" if words else ""


__all__ = ["STAGE", "CommandOracle", "describe_exit"]
