"""Commands to a campaign at work: durable files in its run directory, each obeyed once and acknowledged.

Whoever commands writes ``RUN_DIR/control/<when>-<id>.json`` in one step; whoever drives the campaign, in whatever
process on whatever node, looks there, writes the event ``CONTROLLED`` into the ledger and removes the file. The id
makes a repeated file harmless. May import :mod:`pilotwave.archive` and :mod:`pilotwave.storage`.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.spending import Limits
from pilotwave.errors import InputError, StorageError
from pilotwave.storage import write_atomically

VERBS = ("pause", "resume", "drain", "stop", "add-queries", "set")
"""What can be said."""
MOST_QUERIES = 10_000_000


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        id: Its own; a second command with the same is the same.
        verb: One of :data:`VERBS`.
        argument: ``"40"`` of ``add-queries``, ``"budget.cost=40"`` of ``set``, otherwise empty.
        sent: When, seconds since the epoch.
    """

    id: str
    verb: str
    argument: str
    sent: float

    @classmethod
    def of(cls, verb: str, argument: str | None = None) -> Command:
        """Checks a command and gives it an id.

        Raises:
            InputError: There is no such command, or its argument is missing, superfluous or wrong.
        """
        if verb not in VERBS:
            raise InputError(f"control: expected one of {', '.join(VERBS)}, got {verb!r}")
        needs = {"add-queries": "a number, e.g. add-queries 100", "set": "a budget, e.g. set budget.cost=40"}
        if verb in needs and not argument:
            raise InputError(f"control {verb}: expected {needs[verb]}, got nothing")
        if verb not in needs and argument:
            raise InputError(f"control {verb}: expected nothing after it, got {argument!r}")
        command = cls(secrets.token_hex(6), verb, argument or "", time.time())
        command.limits(Limits(1))  # says what is wrong with the argument
        return command

    def limits(self, now: Limits) -> Limits | None:
        """Returns the budget that holds once it is obeyed, or None if it leaves the budget alone.

        Raises:
            InputError: The argument makes no budget.
        """
        if self.verb == "add-queries":
            if not self.argument.isdecimal() or not int(self.argument):
                raise InputError(
                    f"control add-queries: expected a number above 0, e.g. add-queries 100, got {self.argument!r}"
                )
            return replace(now, queries=_number_of_queries(now.queries + int(self.argument)))
        if self.verb == "set":
            return _with_budget(now, self.argument)
        return None

    def send(self, run: RunDirectory) -> Path:
        """Puts it where the driver looks.

        Raises:
            StorageError: It cannot be written there.
        """
        path = run.control / f"{time.time_ns():020d}-{self.id}.json"
        try:
            run.control.mkdir(exist_ok=True)
            write_atomically(path, json.dumps(asdict(self)).encode())
        except OSError as error:
            raise StorageError(f"{run.control}: {error.strerror}; make it writable, then repeat") from error
        return path


def pending(run: RunDirectory) -> Iterator[tuple[Path, Command | None]]:
    """Yields what was sent and not removed, in the order sent; None for a file that is no command."""
    try:
        files = sorted(run.control.glob("*.json"))
    except OSError:  # a mount that is away for a moment
        return
    for path in files:
        try:
            yield path, _read(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError):
            yield path, None


def _read(path: Path) -> Command:
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    command = Command(**fields)
    words = (command.id, command.verb, command.argument)
    if not all(isinstance(word, str) for word in words) or command.verb not in VERBS:
        raise ValueError("no command")
    float(command.sent)
    return command


def _with_budget(now: Limits, assignment: str) -> Limits:
    key, separator, text = assignment.partition("=")
    name = key.strip().removeprefix("budget.")
    if not separator or name not in ("queries", "cost", "wall_hours"):
        raise InputError(
            "control set: expected budget.queries=N, budget.cost=X or budget.wall_hours=X, "
            f"got {assignment!r}; other fields are changed with: pilotwave resume RUN_DIR --set KEY=VALUE"
        )
    text = text.strip()
    if name == "queries":
        if not text.isdecimal():
            raise InputError(f"control set: budget.queries: expected a number above 0, got {text!r}")
        return replace(now, queries=_number_of_queries(int(text)))
    amount = None if text == "none" else _amount(name, text)
    return replace(now, cost=amount) if name == "cost" else replace(now, wall_hours=amount)


def _number_of_queries(number: int) -> int:
    if not 1 <= number <= MOST_QUERIES:
        raise InputError(f"budget.queries: expected 1 to {MOST_QUERIES}, got {number}")
    return number


def _amount(name: str, text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not (math.isfinite(amount) and amount > 0):
        raise InputError(f"control set: budget.{name}: expected a number above 0, or none, got {text!r}")
    return amount


__all__ = ["VERBS", "Command", "pending"]
