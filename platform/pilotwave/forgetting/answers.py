"""The answers of a run or of a project archive, as the corrective forgetting and the drift monitor see them.

Samples are compared by their latents, flattened; molecules of a run by the invariants of its backbone, since their
latents may be turned at will. May import :mod:`pilotwave.archive` and :mod:`pilotwave.report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.errors import InputError
from pilotwave.forgetting.corrective import JudgedAnswer
from pilotwave.protocols import Invariants, flattened
from pilotwave.types import Candidate

_CHUNK = 64


def answers_of_run(run_dir: Path) -> list[JudgedAnswer]:
    """Returns every answer with a value that a run paid for, in the order in which they were settled.

    Raises:
        RunDirectoryError: There is no run.
        PilotwaveError: The backbone of molecules cannot be loaded.
    """
    run = RunDirectory(run_dir)
    found: dict[str, JudgedAnswer] = {}
    version = ""
    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        for event in ledger.events():
            if event.kind is EventKind.STARTED:
                version = str(event.record.get("facts", {}).get("oracle_version", ""))
            elif event.kind is EventKind.SETTLED:
                evaluation = event.evaluation()
                if evaluation.value is None or evaluation.reused_from is not None:
                    continue
                when = event.time if evaluation.timings is None else evaluation.timings.finished
                empty = np.zeros(0)
                found[evaluation.query_id] = JudgedAnswer(
                    evaluation.query_id, empty, evaluation.value, when, evaluation.worker, version
                )
        return _described(run, ledger, found)


def answers_of_archive(path: Path, where: str | None = None) -> dict[str, list[JudgedAnswer]]:
    """Returns every answer with a value of a project archive, by what was asked: backbone and oracle.

    Raises:
        InputError: There is no archive, or the condition is none.
    """
    from pilotwave.archive.project import ProjectArchive

    columns = ["record_id", "backbone", "oracle", "oracle_parameters", "oracle_version", "worker"]
    columns += ["value", "recorded", "reused_from", "latent"]
    groups: dict[str, list[JudgedAnswer]] = {}
    with ProjectArchive.open(path, read_only=True) as archive:
        dtype = np.dtype(archive.latents)
        for row in archive.table(where, columns).to_pylist():
            if row["value"] is None or row["latent"] is None or row["reused_from"] is not None:
                continue
            latent = np.frombuffer(row["latent"], dtype=dtype).astype(np.float64)
            name = f"{row['oracle']} {row['oracle_parameters'][:8]} on {row['backbone']}"
            answer = JudgedAnswer(
                row["record_id"],
                latent,
                row["value"],
                row["recorded"].timestamp(),
                row["worker"],
                row["oracle_version"],
            )
            groups.setdefault(name, []).append(answer)
    if not groups:
        raise InputError(f"{path}: expected answers with a value, found none")
    return groups


def _described(run: RunDirectory, ledger: Ledger, found: dict[str, JudgedAnswer]) -> list[JudgedAnswer]:
    names = list(found)
    describe: Invariants | None = None
    answers: list[JudgedAnswer] = []
    for start in range(0, len(names), _CHUNK):
        candidates = ledger.candidates(names[start : start + _CHUNK])
        describe = describe or _invariants(run, candidates)
        latents = torch.stack([item.latent for item in candidates])
        rows = describe(latents, torch.stack([item.condition for item in candidates])).double().numpy()
        for candidate, row in zip(candidates, rows, strict=True):
            known = found[candidate.query_id]
            if np.isfinite(row).all():
                answers.append(
                    JudgedAnswer(known.record_id, row, known.value, known.time, known.worker, known.oracle_version)
                )
    return answers


def _invariants(run: RunDirectory, candidates: Sequence[Candidate]) -> Invariants:
    if all(item.sample is None or item.sample.media != "molecule" for item in candidates):
        return flattened
    return run.config().backbone.build("cpu").invariants


__all__ = ["answers_of_archive", "answers_of_run"]
