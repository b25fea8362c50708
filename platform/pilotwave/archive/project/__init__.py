"""The project archive: all answers of all campaigns in one folder, findable, checkable and removable.

Imported on first use, because the archive needs pyarrow and its words (:class:`AnswerRecord`,
:class:`EvaluationKey`) do not. May import itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pilotwave.archive.project.errors import ArchiveError, DamagedArchiveError
from pilotwave.archive.project.keys import EvaluationKey, canonical_form
from pilotwave.archive.project.record import AnswerRecord

if TYPE_CHECKING:
    from pilotwave.archive.project.archive import ProjectArchive
    from pilotwave.archive.project.damage import Damage
    from pilotwave.archive.project.from_run import parameters_digest, records_of_run, run_id_of
    from pilotwave.archive.project.promises import RemovalReceipt

_LAZY = {
    "Damage": "damage",
    "ProjectArchive": "archive",
    "RemovalReceipt": "promises",
    "parameters_digest": "from_run",
    "records_of_run": "from_run",
    "run_id_of": "from_run",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


__all__ = [
    "AnswerRecord",
    "ArchiveError",
    "Damage",
    "DamagedArchiveError",
    "EvaluationKey",
    "ProjectArchive",
    "RemovalReceipt",
    "canonical_form",
    "parameters_digest",
    "records_of_run",
    "run_id_of",
]
