"""Metrics that are still on their way to the tracking server, in the run directory.

May import :mod:`pilotwave.tracking` and :mod:`pilotwave.storage`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pilotwave.storage import write_atomically
from pilotwave.tracking.mlflow_forgetting import MetricChange, MetricRow
from pilotwave.tracking.mlflow_tracker import OUTBOX_FILE
from pilotwave.tracking.outbox import Outbox


def pending_rows(run_dir: Path) -> list[MetricRow]:
    """Returns the values that wait in a run directory's outbox."""
    path = run_dir / OUTBOX_FILE
    entries = Outbox(path).first(len(Outbox(path))) if path.exists() else []
    return [
        MetricRow(name, int(entry["step"]), int(entry["time"]), float(value))
        for entry in entries
        if "metrics" in entry
        for name, value in entry["metrics"].items()
    ]


def rewrite_pending(run_dir: Path, changes: Sequence[MetricChange]) -> None:
    """Changes values that wait in a run directory's outbox, and drops models; doing it again changes nothing.

    Raises:
        StorageError: The file cannot be written.
    """
    path = run_dir / OUTBOX_FILE
    if not path.exists():
        return
    changed = {(item.key, item.step, item.timestamp): item.value for item in changes}
    lines = []
    waiting = Outbox(path)
    for entry in waiting.first(len(waiting)):
        if "model" in entry:
            continue  # what was learned from the records is deleted
        if "metrics" in entry:
            moment = (int(entry["step"]), int(entry["time"]))
            found = {name: changed.get((name, *moment), value) for name, value in entry["metrics"].items()}
            entry = {**entry, "metrics": {name: value for name, value in found.items() if value is not None}}
        lines.append(json.dumps(entry) + "\n")
    write_atomically(path, "".join(lines).encode())


__all__ = ["pending_rows", "rewrite_pending"]
