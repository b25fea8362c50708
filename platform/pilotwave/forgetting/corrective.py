"""Corrective forgetting: given some answers known to be wrong, which others are likely to be wrong as well?

After Goel et al., "Corrective machine unlearning" (2024): usually only part of the bad data is known. Here bad
answers have a cause (a worker, an oracle's version) that begins at some moment and lasts, and they disagree with
what good answers of similar samples make one expect. So:

1. A Gaussian process is fitted without the known and the suspected ones; each answer's studentised residual tells
   how much it disagrees, and those of the known ones tell what being wrong looks like.
2. In order of time, the answers of a worker and version form a chain with two states, good and wrong, that seldom
   changes; the known ones are wrong, and where none is known a change is less likely. The posterior probability of
   being wrong (forward-backward algorithm) is the score.
3. What is good now joins the fit, and both steps are repeated until nothing changes.

May import numpy and :mod:`pilotwave.forgetting.residuals`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotwave.errors import InputError
from pilotwave.forgetting.residuals import FEWEST, MOST, FittedAnswers, FloatArray, fit_answers, robust_spread

BoolArray = npt.NDArray[np.bool_]

CLEAR = 3.0
"""A studentised residual beyond this disagrees clearly."""
PROPOSED = 0.5
"""The score from which an answer is proposed for forgetting."""
TRUSTED = 0.2
"""The score up to which an answer may take part in the fit."""
COMMON = 0.9
"""What more than this share of all answers have in common says nothing."""
BECOMES_WRONG, BECOMES_GOOD = 0.01, 0.03
"""How likely a cause begins, and ends, from one answer to the next."""
UNRELATED = 0.1
"""How much less likely a cause begins where no wrong answer is known."""
MARGIN, MARGIN_OF_GAPS = 10, 2.0
"""So many answers, and so many mean gaps between known wrong ones, before the first of those are not trusted at
first: the cause began somewhere there."""
_FREEDOM = 4.0
_ROUNDS = 8


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer with a value.

    Attributes:
        record_id: A query id, or a record id of a project archive.
        latent: Of its sample, or invariants of it, of shape (dim,).
        value: The answer.
        time: When it was given, seconds since the epoch.
        worker: Who gave it.
        oracle_version: Of the oracle.
    """

    record_id: str
    latent: FloatArray
    value: float
    time: float
    worker: str = ""
    oracle_version: str = ""


@dataclass(frozen=True)
class Suspect:
    """An answer that may be wrong.

    Attributes:
        record_id: Of the answer.
        score: The probability that it is wrong; proposed for forgetting from :data:`PROPOSED`.
        disagreement: The robust, studentised residual.
        reasons: In words, for people.
    """

    record_id: str
    score: float
    disagreement: float
    reasons: tuple[str, ...]

    @property
    def proposed(self) -> bool:
        """Whether it is proposed for forgetting."""
        return self.score >= PROPOSED

    def to_json(self) -> dict[str, Any]:
        """Returns it for programs."""
        return {
            "record_id": self.record_id,
            "score": self.score,
            "disagreement": self.disagreement,
            "reasons": list(self.reasons),
            "proposed": self.proposed,
        }


@dataclass(frozen=True)
class _Answers:
    """All answers in order of time, as arrays."""

    ids: tuple[str, ...]
    latents: FloatArray
    values: FloatArray
    times: FloatArray
    workers: npt.NDArray[np.str_]
    versions: npt.NDArray[np.str_]
    wrong: BoolArray


def suspects(records: Sequence[JudgedAnswer], wrong: Collection[str]) -> list[Suspect]:
    """Ranks all answers but the wrong ones by how likely they are wrong too, the likeliest first.

    A pure function: the order of the records makes no difference.

    Args:
        records: All answers with a value; latents of one shape.
        wrong: Ids of those that are known to be wrong.

    Raises:
        InputError: An id is unknown, none is given, or no answer would be left.
    """
    known = {item.record_id for item in records}
    unknown = sorted(set(wrong) - known)
    if unknown or not wrong:
        what = f"got {', '.join(unknown[:5])}" if unknown else "got none"
        raise InputError(f"--wrong: expected ids of answers with a value, {what}")
    if known <= set(wrong):
        raise InputError("--wrong: expected some answers that are not known to be wrong, got all of them")
    answers = _arranged(records, wrong)
    shared = _shared(answers)
    found = _scores(answers, shared)
    ranked = [
        replace(item, reasons=(*_circumstances(answers, shared, place), *item.reasons)) for place, item in found
    ]
    return sorted(ranked, key=lambda item: (-item.score, -abs(item.disagreement), item.record_id))


@dataclass(frozen=True)
class _Shared:
    """What each answer has in common with the wrong ones.

    Attributes:
        worker: The same worker; None where that says nothing.
        version: The same version of the oracle; None where that says nothing.
        later: Given no earlier than shortly before the first wrong one.
        groups: A number for each combination of those that say something.
    """

    worker: BoolArray | None
    version: BoolArray | None
    later: BoolArray
    groups: npt.NDArray[np.int64]


def _arranged(records: Sequence[JudgedAnswer], wrong: Collection[str]) -> _Answers:
    ordered = sorted(records, key=lambda item: (item.time, item.record_id))
    latents = np.stack([np.asarray(item.latent, dtype=np.float64).reshape(-1) for item in ordered])
    return _Answers(
        ids=tuple(item.record_id for item in ordered),
        latents=latents,
        values=np.array([item.value for item in ordered], dtype=np.float64),
        times=np.array([item.time for item in ordered], dtype=np.float64),
        workers=np.array([item.worker for item in ordered], dtype=np.str_),
        versions=np.array([item.oracle_version for item in ordered], dtype=np.str_),
        wrong=np.array([item.record_id in wrong for item in ordered]),
    )


def _shared(answers: _Answers) -> _Shared:
    worker = _telling(np.isin(answers.workers, answers.workers[answers.wrong]))
    version = _telling(np.isin(answers.versions, answers.versions[answers.wrong]))
    known = np.flatnonzero(answers.wrong)
    gap = (known[-1] - known[0]) / max(1, len(known) - 1)
    later = np.arange(len(answers.ids)) >= known[0] - max(MARGIN, round(MARGIN_OF_GAPS * gap))
    workers = np.unique(answers.workers, return_inverse=True)[1] * (worker is not None)
    versions = np.unique(answers.versions, return_inverse=True)[1] * (version is not None)
    groups = (workers * (versions.max() + 1) + versions).astype(np.int64)
    return _Shared(worker, version, later, groups)


def _telling(facet: BoolArray) -> BoolArray | None:
    return facet if facet.mean() <= COMMON else None


def _scores(answers: _Answers, shared: _Shared) -> list[tuple[int, Suspect]]:
    """Fits without the suspects, finds suspects, and fits again until they are the same."""
    trusted = ~answers.wrong & ~shared.later
    if trusted.sum() < 2 * FEWEST:
        trusted = ~answers.wrong
    scores, disagreement = np.zeros(len(answers.ids)), np.zeros(len(answers.ids))
    seen: set[bytes] = set()
    for _ in range(_ROUNDS):
        disagreement = _disagreement(answers, trusted)
        scores = _probabilities(answers, shared, disagreement)
        seen.add(trusted.tobytes())
        trusted = ~answers.wrong & (scores < TRUSTED)
        if trusted.sum() < FEWEST or trusted.tobytes() in seen:
            break
    return [
        (
            place,
            Suspect(
                answers.ids[place], float(scores[place]), float(disagreement[place]), _words(disagreement[place])
            ),
        )
        for place in np.flatnonzero(~answers.wrong).tolist()
    ]


def _disagreement(answers: _Answers, trusted: BoolArray) -> FloatArray:
    """Robust z-scores: of trusted answers when left out, of others by the trusted ones; 0 if nothing is learnt."""
    places = np.flatnonzero(trusted)
    if len(places) > MOST:
        places = places[np.linspace(0, len(places) - 1, MOST).round().astype(int)]
    fitted: FittedAnswers | None = fit_answers(answers.latents[places], answers.values[places])
    found: FloatArray = np.zeros(len(answers.ids))
    if fitted is None:
        return found
    others = np.setdiff1d(np.arange(len(answers.ids)), places)
    found[places] = fitted.residuals
    found[others] = fitted.residuals_of(answers.latents[others], answers.values[others])
    return found / fitted.spread


def _probabilities(answers: _Answers, shared: _Shared, disagreement: FloatArray) -> FloatArray:
    """How likely each answer is wrong."""
    known = disagreement[answers.wrong]
    centre = float(np.median(known))
    width = float(np.hypot(1.0, robust_spread(known) if len(known) > 2 else abs(centre) / 2))
    evidence = _log_density((disagreement - centre) / width) - np.log(width) - _log_density(disagreement)
    scores: FloatArray = np.zeros(len(answers.ids))
    for group in np.unique(shared.groups):
        members = np.flatnonzero(shared.groups == group)
        wrong = answers.wrong[members]
        scores[members] = _chain(evidence[members], wrong, BECOMES_WRONG * (1.0 if wrong.any() else UNRELATED))
    return scores


def _log_density(numbers: FloatArray) -> FloatArray:
    """Of Student's t, up to a constant: one answer far off must not decide alone."""
    density: FloatArray = -(_FREEDOM + 1) / 2 * np.log1p(numbers**2 / _FREEDOM)
    return density


def _chain(evidence: FloatArray, wrong: BoolArray, becomes_wrong: float) -> FloatArray:
    """The posterior probability of being wrong along a chain; ``evidence`` is the log likelihood ratio."""
    likelihood = np.stack([np.where(wrong, 0.0, 1.0), np.exp(np.where(wrong, 0.0, evidence))], axis=1)
    step = np.array([[1 - becomes_wrong, becomes_wrong], [BECOMES_GOOD, 1 - BECOMES_GOOD]])
    forward, backward = np.zeros_like(likelihood), np.ones_like(likelihood)
    before = np.array([1 - becomes_wrong, becomes_wrong])
    for place, seen in enumerate(likelihood):
        forward[place] = before * seen / (before * seen).sum()
        before = forward[place] @ step
    for place in range(len(likelihood) - 2, -1, -1):
        backward[place] = step @ (likelihood[place + 1] * backward[place + 1])
        backward[place] /= backward[place].sum()
    joint = forward * backward
    posterior: FloatArray = joint[:, 1] / joint.sum(axis=1)
    return posterior


def _words(disagreement: float) -> tuple[str, ...]:
    if abs(disagreement) < CLEAR / 2:
        return ()
    word = "disagrees" if abs(disagreement) >= CLEAR else "disagrees a little"
    return (f"{word} with its neighbours (z = {disagreement:+.1f})",)


def _circumstances(answers: _Answers, shared: _Shared, place: int) -> tuple[str, ...]:
    reasons = []
    if shared.worker is not None and shared.worker[place]:
        reasons.append(f"the same worker ({answers.workers[place]})")
    if shared.version is not None and shared.version[place]:
        reasons.append(f"the same oracle version ({answers.versions[place]})")
    wrong_times = answers.times[answers.wrong]
    distance = float(np.abs(wrong_times - answers.times[place]).min())
    if shared.later[place]:
        reasons.append(f"{_duration(distance)} from a wrong one")
    return tuple(reasons)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


__all__ = ["CLEAR", "PROPOSED", "JudgedAnswer", "Suspect", "suspects"]
