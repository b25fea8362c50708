"""The best evaluations of a run, and why the others have no value.

Pure functions of a :class:`pilotwave.report.recorded_run.RecordedRun`; may import that and
:mod:`pilotwave.types`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pilotwave.report.recorded_run import Judged, RecordedRun
from pilotwave.samples import MoleculeSample, Sample
from pilotwave.types import Status


@dataclass(frozen=True)
class Ranked:
    """One of the best.

    Attributes:
        rank: 1 for the best.
        query_id: Of the evaluation.
        value: In the oracle's unit and sign.
        label: The sample's, e.g. its SMILES.
        sample: The sample itself.
        strictly_valid: Whether the decoder had nothing to repair; None where that has no meaning.
        repaired_hydrogens: How many hydrogens the decoder added or removed; None where that has no meaning.
        constraints: What constraints measured, e.g. ``{"synthetic_accessibility": 3.1}``.
        properties: What the oracle said beside the value.
        fidelity: The level at which the value was obtained.
        reused_from: The query whose answer it is, or None if the oracle was asked.
    """

    rank: int
    query_id: str
    value: float
    label: str
    sample: Sample
    strictly_valid: bool | None
    repaired_hydrogens: int | None
    constraints: Mapping[str, float]
    properties: Mapping[str, float]
    fidelity: str
    reused_from: str | None

    @property
    def validity(self) -> str:
        """``"strict"``, ``"repaired 2 H"``, or ``""`` where it has no meaning."""
        if self.strictly_valid is None:
            return ""
        return "strict" if self.strictly_valid else f"repaired {self.repaired_hydrogens} H"

    def to_json(self) -> dict[str, Any]:
        """Returns it without the sample, for programs."""
        return {
            "rank": self.rank,
            "query_id": self.query_id,
            "value": self.value,
            "label": self.label,
            "media": self.sample.media,
            "strictly_valid": self.strictly_valid,
            "repaired_hydrogens": self.repaired_hydrogens,
            "properties": {**self.constraints, **self.properties},
            "fidelity": self.fidelity,
            "reused_from": self.reused_from,
        }


@dataclass(frozen=True)
class FailureCount:
    """How many queries ended without a value in the same way.

    Attributes:
        status: ``"failed"``, ``"timed_out"``, ``"infeasible"``, ``"cancelled"``.
        stage: Where, e.g. ``"scf"`` or a constraint's name.
        message: Of one of them.
        count: How many.
    """

    status: str
    stage: str
    message: str
    count: int

    def to_json(self) -> dict[str, Any]:
        """Returns it for programs."""
        return asdict(self)


def best(run: RecordedRun, count: int, *, distinct: bool = True) -> list[Ranked]:
    """Returns the best evaluations, best first; equal values in the order they were drawn.

    Args:
        run: The run.
        count: How many at most.
        distinct: Whether only the best of those that are the same sample is listed
            (:meth:`pilotwave.samples.Sample.identity`: the same SMILES, the same pixels).
    """
    ranked: list[Ranked] = []
    seen: set[str] = set()
    for judged in run.judged(_by_value(run)):
        if len(ranked) >= count:
            break
        if judged.sample is None:
            continue
        identity = judged.sample.identity()
        if distinct and identity in seen:
            continue
        seen.add(identity)
        ranked.append(_ranked(len(ranked) + 1, judged, judged.sample))
    return ranked


def failures(run: RecordedRun) -> list[FailureCount]:
    """Returns why queries and candidates have no value, the most frequent reason first."""
    counts: Counter[tuple[str, str]] = Counter()
    messages: dict[tuple[str, str], str] = {}
    for judged in run.judged():
        if judged.status in (Status.OK, "open"):
            continue
        stage, message = _reason(judged)
        counts[judged.status, stage] += 1
        messages.setdefault((judged.status, stage), message)
    return [
        FailureCount(status, stage, messages[status, stage], count)
        for (status, stage), count in counts.most_common()
    ]


def _by_value(run: RecordedRun) -> list[str]:
    place = {query_id: i for i, query_id in enumerate(run.drawn)}
    valued = [
        (run.objective.loss(evaluation.value), place.get(query_id, len(place)), query_id)
        for query_id, evaluation in run.state.settled.items()
        if evaluation.value is not None
    ]
    return [query_id for _, _, query_id in sorted(valued)]


def _ranked(rank: int, judged: Judged, sample: Sample) -> Ranked:
    evaluation = judged.evaluation
    assert evaluation is not None  # it was ranked by its value
    assert evaluation.value is not None
    molecule = sample if isinstance(sample, MoleculeSample) else None
    return Ranked(
        rank=rank,
        query_id=judged.query_id,
        value=evaluation.value,
        label=sample.label(),
        sample=sample,
        strictly_valid=None if molecule is None else molecule.strictly_valid,
        repaired_hydrogens=None if molecule is None else molecule.repaired_hydrogens,
        constraints=judged.constraints,
        properties=evaluation.properties,
        fidelity=evaluation.fidelity,
        reused_from=evaluation.reused_from,
    )


def _reason(judged: Judged) -> tuple[str, str]:
    if judged.evaluation is not None and judged.evaluation.failure is not None:
        return judged.evaluation.failure.stage, judged.evaluation.failure.message
    stage, _, message = (judged.infeasible or judged.status).partition(": ")
    return stage, message


__all__ = ["FailureCount", "Ranked", "best", "failures"]
