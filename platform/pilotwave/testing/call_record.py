"""An oracle that writes down each call outside the platform, and what was written: the other side of a ledger.

The file lies outside the run directory and knows nothing of it. A line is one write, flushed to the disk, so that a
kill leaves it whole or absent. For campaign files: ``function: my_file.py:score`` with a :class:`RecordedScore` in
``my_file.py``. May import the core.
"""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from pilotwave.protocols import QueryContext
from pilotwave.samples import Sample
from pilotwave.testing.faulty_oracles import append_line, score
from pilotwave.testing.marked_processes import MARK, parent_of


@dataclass(frozen=True)
class Call:
    """One call of the oracle.

    Attributes:
        query_id: What was asked.
        attempt: Of the platform's count.
        process: In which the oracle ran.
        actor: The process that asked it, the parent of the oracle's guard.
        node: The mark of the node, or nothing.
        asked: Seconds since the epoch, before any work.
        answered: When the answer was about to be returned, or None if that never came.
        value: The answer, or None.
    """

    query_id: str
    attempt: int
    process: int
    actor: int
    node: str
    asked: float
    answered: float | None = None
    value: float | None = None


class RecordedScore:
    """A function ``f(sample, context)`` for oracles of kind ``python``: a fixed value a sample, after a pause.

    Args:
        record: The file; it is appended to.
        pace: A file that holds the mean pause in seconds, also for questions that are being answered; each pause is
            uniform from half of it to one and a half, fixed by query and attempt.
    """

    def __init__(self, record: Path, pace: Path) -> None:
        self._record = record
        self._pace = pace

    def __call__(self, sample: Sample, context: QueryContext) -> float:
        """Writes down that it was asked, pauses, writes down that it answered, answers."""
        who = {"query_id": context.query_id, "attempt": context.attempt, "process": os.getpid()}
        who |= {"actor": parent_of(os.getppid()), "node": os.environ.get(MARK, "")}
        asked = time.time()
        self._note({**who, "asked": asked})
        pause = random.Random(f"{context.query_id}/{context.attempt}").uniform(0.5, 1.5)
        while time.time() - asked < pause * float(self._pace.read_text()):
            time.sleep(0.02)
        value = score(sample)
        self._note({**who, "answered": time.time(), "value": value})
        return value

    def _note(self, what: dict[str, object]) -> None:
        append_line(self._record, json.dumps(what))


def read_calls(record: Path) -> list[Call]:
    """Returns all calls in the order in which they were begun."""
    calls: dict[tuple[str, int, int], list[Call]] = {}
    for line in record.read_text().splitlines() if record.exists() else []:
        fields = json.loads(line)
        same = calls.setdefault((fields["query_id"], fields["attempt"], fields["process"]), [])
        if "asked" in fields:
            same.append(Call(**fields))
        else:
            same[-1] = Call(**{**vars(same[-1]), "answered": fields["answered"], "value": fields["value"]})
    return sorted((call for same in calls.values() for call in same), key=lambda call: call.asked)


__all__ = ["Call", "RecordedScore", "read_calls"]
