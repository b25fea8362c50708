"""The driver's side of :mod:`pilotwave.execution.control`: obeys commands, and writes down that it did.

May import the modules beside it and :mod:`pilotwave.archive`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pilotwave.archive.ledger import EventKind
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.errors import InputError
from pilotwave.execution.budgets import Budgets
from pilotwave.execution.control import Command, pending
from pilotwave.execution.memory import CampaignMemory

LOOK_SECONDS = 0.2
"""The folder is looked at no more often than this."""


class Controls:
    """Obeys what is sent to one run.

    Args:
        run: Where it is sent to.
        memory: Where it is written down; what a command changes is read off its state.
        budgets: Which limits hold.
        launched: When the user began to wait for this driver: to stop an earlier one is not to stop this one.
        note: Told what was obeyed.

    Attributes:
        stopping: Whether the campaign was told to save and stop.
    """

    def __init__(
        self,
        run: RunDirectory,
        memory: CampaignMemory,
        budgets: Budgets,
        launched: float,
        note: Callable[[str], None],
    ) -> None:
        self.stopping = False
        self._run = run
        self._memory = memory
        self._budgets = budgets
        self._launched = launched
        self._note = note
        self._next_look = float("-inf")

    def look(self) -> None:
        """Obeys what has come since the last time.

        Raises:
            StorageError: The ledger cannot be written.
        """
        now = self._budgets.clock()
        if 0 <= self._next_look - now <= LOOK_SECONDS:  # a clock that was set back must not make it deaf
            return
        self._next_look = now + LOOK_SECONDS
        for path, command in pending(self._run):
            record = _unreadable(path) if command is None else self._record(command)
            if record["id"] not in self._memory.state.controls:
                self._memory.append(EventKind.CONTROLLED, record)
                self._say(record)
                if record["command"] == "stop" and not record["refused"]:
                    self.stopping = True
            path.unlink(missing_ok=True)

    def _record(self, command: Command) -> dict[str, Any]:
        record: dict[str, Any] = {"id": command.id, "command": command.verb, "argument": command.argument}
        try:
            limits = command.limits(self._budgets.limits)
        except InputError as error:
            return {**record, "refused": str(error)}
        if limits is not None:
            return {**record, "refused": "", "limits": limits.to_json()}
        stale = command.sent < self._launched
        return {**record, "refused": "it was sent to an earlier driver" if stale else ""}

    def _say(self, record: dict[str, Any]) -> None:
        words = f"{record['command']} {record['argument']}".strip()
        refused = record["refused"]
        self._note(f"{words}: refused: {refused}" if refused else f"{words}: obeyed")


def _unreadable(path: Path) -> dict[str, Any]:
    return {"id": path.stem, "command": "", "argument": "", "refused": f"{path.name} holds no command"}


__all__ = ["Controls"]
