"""Where a comparison lies on the disk: a JSON file per finished run, and what each model does unguided.

A file is there in whole or not at all, and its name holds a digest of all that decides the result, so a finished
run is found again and never done twice. May import :mod:`pilotwave.storage` and the modules beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

from pilotwave.bench.loop import Record, Reference
from pilotwave.bench.methods import digest
from pilotwave.bench.run import FORMAT, RunRequest
from pilotwave.bench.task import Task
from pilotwave.storage import write_atomically


class RunStore:
    """The folder of a comparison.

    Args:
        folder: Made when the first run is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, request: RunRequest) -> Path:
        """Returns where the record of a run lies, or will."""
        name = f"seed-{request.seed:04d}-{request.identity()}.json"
        return self.folder / "runs" / request.suite / request.task / request.method.name / name

    def read(self, request: RunRequest) -> Record | None:
        """Returns the record of a run if it is finished; a damaged file counts as none."""
        record = _read(self.path(request))
        if record is None or record.get("identity") != request.identity():
            return None
        # The same run may be known under another label.
        return {**record, "method": request.method.name}

    def write(self, request: RunRequest, record: Record) -> None:
        """Keeps the record of a finished run.

        Raises:
            StorageError: It could not be written.
        """
        write_atomically(self.path(request), _to_bytes(record))

    def reference(self, task: Task, device: str) -> Reference | None:
        """Returns what a task's model does unguided, if that was measured."""
        found = _read(self._reference_path(task, device))
        if found is None:
            return None
        unseen = found.pop("unseen", None)
        return Reference(**found, unseen=None if unseen is None else (unseen[0], unseen[1]))

    def write_reference(self, task: Task, device: str, reference: Reference) -> None:
        """Keeps what a task's model does unguided."""
        write_atomically(self._reference_path(task, device), _to_bytes(reference.to_json()))

    def _reference_path(self, task: Task, device: str) -> Path:
        key = digest([FORMAT, task.reference_name, task.unguided, task.batch_size, device])
        return self.folder / "references" / task.suite / f"{task.reference_name}-{key}.json"


def _read(path: Path) -> Record | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _to_bytes(record: Record) -> bytes:
    return json.dumps(record, indent=1, allow_nan=False, sort_keys=False).encode()


__all__ = ["RunStore"]
