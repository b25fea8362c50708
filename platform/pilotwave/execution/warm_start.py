"""Answers of earlier campaigns that a new one begins with.

They answer the same question (oracle, version, parameters; at whatever fidelity the oracle gave) and were made by
the same backbone. Half are the best ones; the rest are drawn at random from all others, from the campaign's seed,
so that an algorithm also sees what is not good and how wide the model reaches. A sample that was asked about more
than once counts once. Latents and noise come as the archive keeps them: in half precision a number is off by up to
1 in 2,000, which is far less than what any algorithm adds. May import :mod:`pilotwave.archive` and
:mod:`pilotwave.types`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pilotwave.archive.project.record import AnswerRecord
from pilotwave.config.campaign import Objective
from pilotwave.execution.recall import Question
from pilotwave.types import Candidate, Evaluation

if TYPE_CHECKING:
    from pilotwave.archive.project import ProjectArchive

PURPOSE = 0x57A5
"""Keeps the draw of the rest independent of everything else that is seeded by the campaign's seed."""
EARLIER_PROPOSAL = -1
"""The number that stands for no proposal of this campaign."""

Answer = tuple[Candidate, Evaluation]


def earlier_answers(
    archive: ProjectArchive,
    question: Question,
    objective: Objective,
    count: int,
    seed: int,
    noise_shape: tuple[int, ...],
) -> list[Answer]:
    """Chooses what a campaign begins with, the best first; their names are ``w0001``, ``w0002`` and so on.

    Args:
        archive: Where to look.
        question: The campaign's.
        objective: What is best.
        count: How many at most.
        seed: The campaign's.
        noise_shape: Of the backbone's noise sequences, (steps + 1, *latent_shape); others are left out.

    Returns:
        Candidates with their evaluations; fewer than ``count`` if there are not so many.

    Raises:
        PilotwaveError: The archive cannot be read.
    """
    chosen = []
    for record_id in _best_and_others(_known(archive, question, objective), count, seed):
        try:
            record = archive.get(record_id)
        except KeyError:  # it was removed a moment ago
            continue
        if _fits(record, noise_shape):
            chosen.append(record)
    return [_answer(record, f"w{number:04d}") for number, record in enumerate(chosen, start=1)]


def compatible_elsewhere(archive: ProjectArchive, question: Question) -> int:
    """Returns how many answers to the same question there are on other backbones."""
    where = f"{_asked(question)} AND backbone <> {_quoted(question.backbone)}"
    return int(archive.table(where, ["record_id"]).num_rows)


def _known(archive: ProjectArchive, question: Question, objective: Objective) -> list[str]:
    """The ids of all usable answers, the best first; one a sample, the oldest."""
    where = f"{_asked(question)} AND backbone = {_quoted(question.backbone)}"
    rows: list[dict[str, Any]] = archive.table(where, ["record_id", "value", "canonical", "recorded"]).to_pylist()
    rows.sort(key=lambda row: (row["recorded"], row["record_id"]))
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["canonical"], row)
    ranked = sorted(first.values(), key=lambda row: (objective.loss(row["value"]), row["record_id"]))
    return [row["record_id"] for row in ranked]


def _best_and_others(ranked: list[str], count: int, seed: int) -> list[str]:
    best = ranked[: (count + 1) // 2]
    others = ranked[len(best) :]
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(PURPOSE,))))
    places = random.permutation(len(others))[: count - len(best)]
    return best + [others[place] for place in sorted(places)]


def _asked(question: Question) -> str:
    words = {
        "oracle": question.oracle,
        "oracle_version": question.oracle_version,
        "oracle_parameters": question.oracle_parameters,
        "status": "ok",
    }
    return " AND ".join([*(f"{name} = {_quoted(text)}" for name, text in words.items()), "reused_from IS NULL"])


def _quoted(text: str) -> str:
    return "'{}'".format(text.replace("'", "''"))


def _fits(record: AnswerRecord, noise_shape: tuple[int, ...]) -> bool:
    if record.latent is None or record.noise is None or record.media is None:
        return False
    shapes = record.noise.shape == noise_shape and record.latent.shape == noise_shape[1:]
    return bool(shapes and np.isfinite(record.latent).all() and np.isfinite(record.noise).all())


def _answer(record: AnswerRecord, name: str) -> Answer:
    candidate = Candidate(
        query_id=name,
        seed=record.seed,
        proposal=EARLIER_PROPOSAL,
        noise_sequence=torch.from_numpy(np.array(record.noise, np.float32)),
        latent=torch.from_numpy(np.array(record.latent, np.float32)),
        condition=torch.tensor(record.condition, dtype=torch.int64),
        sample=record.sample(),
        properties=dict(record.constraints),
    )
    evaluation = dataclasses.replace(
        record.evaluation(), query_id=name, cost=0.0, timings=None, reused_from=record.record_id
    )
    return candidate, evaluation


__all__ = ["EARLIER_PROPOSAL", "Answer", "compatible_elsewhere", "earlier_answers"]
