"""Copies a run's answers from its ledger into a project archive, behind the campaign's back.

The ledger has every answer first, so nothing depends on the archive: it may be full, gone, or in another owner's
hands, and is then written later. A thread of its own reads the ledger from where it last stood, leaves out what the
archive holds, and appends the rest; the archive is owned only for as long as that takes. A fresh recorder begins at
the ledger's start, so after a crash a resumed run adds what is missing. May import :mod:`pilotwave.archive`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave.archive.ledger import Event, EventKind, Ledger
from pilotwave.archive.project.errors import ArchiveError
from pilotwave.archive.project.record import AnswerRecord
from pilotwave.types import Status

if TYPE_CHECKING:
    from pilotwave.archive.project import ProjectArchive

PATIENCE_SECONDS = 30.0
"""How long an archive that cannot be written is tried again before it is said; then the next batch tries anew."""
PAUSE_SECONDS = 0.1
"""Between two tries."""
TOGETHER = 64
"""Records in memory at once: each carries its whole noise sequence."""
NOT_ANSWERS = (Status.CANCELLED,)
"""What says nothing about a candidate."""


class ArchiveRecorder:
    """Keeps an archive up to date with one run.

    Args:
        archive: Its folder, with an archive in it.
        ledger_file: Of the run, started.
        told: What every record says of the run: the keyword arguments of :meth:`AnswerRecord.of`.
        note: Told, from the recorder's thread, what does not work.
    """

    def __init__(
        self, archive: Path, ledger_file: Path, told: Mapping[str, Any], note: Callable[[str], None]
    ) -> None:
        self._archive = archive
        self._ledger_file = ledger_file
        self._told = told
        self._note = note
        self._done = 0
        self._trouble = ""
        self._left_out: set[str] = set()
        self._work = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="archive-recorder", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Says that there may be something to copy; returns at once."""
        self._work.set()

    def close(self, seconds: float) -> str:
        """Copies what is left, for so long at most.

        Returns:
            One line about what is not in the archive, or an empty text.
        """
        self._closing.set()  # before waking it: the copy that begins now is the last one, and sees everything
        self.wake()
        self._thread.join(seconds)
        lines = [] if not self._left_out else [f"{len(self._left_out)} answers cannot be kept in {self._archive}"]
        if self._thread.is_alive() or self._trouble:
            why = self._trouble or "it is busy"
            lines.append(
                f"the last answers are not in the archive {self._archive} yet ({why}), the run's ledger has them: "
                f"pilotwave archive add {self._ledger_file.parent}"
            )
        return "; ".join(lines)

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            is_last = self._closing.is_set()
            self._copy_patiently()
            if is_last:
                return

    def _copy_patiently(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self._copy()
                self._trouble = ""
                return
            except Exception as error:  # whatever is wrong with the archive, the campaign goes on
                if time.monotonic() > deadline:
                    said = " ".join(str(error).split()) or type(error).__name__
                    if said != self._trouble:
                        self._note(f"answers cannot be added to the archive for now: {said}")
                    self._trouble = said
                    return
            time.sleep(PAUSE_SECONDS)

    def _copy(self) -> None:
        """Copies what the ledger has gained since the last time, a few records at once."""
        while True:
            with Ledger.open(self._ledger_file, read_only=True) as ledger:
                events, reached = self._next_answers(ledger)
                if events:
                    self._append(ledger, events)
            self._done = reached
            if len(events) < TOGETHER:
                return

    def _next_answers(self, ledger: Ledger) -> tuple[list[Event], int]:
        """The next answers that were paid for, and the event to go on after."""
        events: list[Event] = []
        reached = self._done
        for event in ledger.events(self._done):
            reached = event.sequence
            if event.kind is EventKind.SETTLED and _is_new(event):
                events.append(event)
                if len(events) == TOGETHER:
                    break
        return events, reached

    def _append(self, ledger: Ledger, events: Sequence[Event]) -> None:
        from pilotwave.archive.project import ProjectArchive

        by_id = {event.record["query_id"]: event for event in events}
        with ProjectArchive.open(self._archive) as archive:
            run_id = self._told["run_id"]
            missing = [query_id for query_id in by_id if f"{run_id}/{query_id}" not in archive]
            records = [
                AnswerRecord.of(
                    candidate,
                    by_id[candidate.query_id].evaluation(),
                    recorded=by_id[candidate.query_id].time,
                    **self._told,
                )
                for candidate in ledger.candidates(missing)
            ]
            self._append_all(archive, records)

    def _append_all(self, archive: ProjectArchive, records: Sequence[AnswerRecord]) -> None:
        """Appends records together; if one of them cannot be kept, only that one is left out."""
        if not records:
            return
        try:
            archive.append(records)
        except ArchiveError as error:
            if len(records) > 1:
                for record in records:
                    self._append_all(archive, [record])
                return
            self._left_out.add(records[0].query_id)
            self._note(f"{records[0].query_id} is not in the archive: {error}")


def _is_new(event: Event) -> bool:
    """Says whether an answer was paid for, or its failure found, in this run."""
    evaluation = event.evaluation()
    return evaluation.reused_from is None and evaluation.status not in NOT_ANSWERS


__all__ = ["PATIENCE_SECONDS", "ArchiveRecorder"]
