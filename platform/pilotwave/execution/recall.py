"""Questions answered from a project archive: the same one asked before, or one near enough.

Two questions are the same if they are asked of the same oracle, in the same version and with the same parameters,
about the same canonical sample; the fidelity is then what the oracle gave. A failure is taken over only where
failing is a property of the candidate. Near means that the same backbone made both latents, under the same
condition, within a root-mean-square distance; latents are compared as they are, so that two turns of one molecule
are far apart.

Of its own answers a campaign takes none from the archive, since when they get there is a matter of chance, and none
to the same question, which it does not ask twice (a stochastic oracle it does). Near ones come from
:class:`OwnAnswers`. May import :mod:`pilotwave.archive` and :mod:`pilotwave.types`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from pilotwave.archive.project.keys import EvaluationKey
from pilotwave.archive.project.record import AnswerRecord
from pilotwave.types import Candidate, Evaluation, Status

if TYPE_CHECKING:
    from pilotwave.archive.project import ProjectArchive

WORKER = "archive"
"""The worker of an evaluation that nobody was asked for."""
NEAREST = 64
"""So many neighbours are looked at: answers of other oracles lie among them."""


@dataclass(frozen=True)
class Question:
    """What all questions of a campaign have in common.

    Attributes:
        oracle: Its name.
        oracle_version: Of the oracle.
        oracle_parameters: Digest of its other parameters.
        backbone: Fingerprint of the model.
    """

    oracle: str
    oracle_version: str
    oracle_parameters: str
    backbone: str

    def about(self, candidate: Candidate) -> EvaluationKey:
        """Returns the question about one candidate, at any fidelity."""
        assert candidate.sample is not None, "only decoded candidates are asked about"
        return EvaluationKey.of(
            candidate.sample,
            oracle=self.oracle,
            oracle_version=self.oracle_version,
            oracle_parameters=self.oracle_parameters,
        )

    def is_asked_by(self, record: AnswerRecord) -> bool:
        """Says whether a record is an answer of this oracle that somebody paid for."""
        told = (record.oracle, record.oracle_version, record.oracle_parameters)
        return told == (self.oracle, self.oracle_version, self.oracle_parameters) and record.reused_from is None


@dataclass(frozen=True)
class Recalled:
    """What an archive knows about a question.

    Attributes:
        evaluation: How the query ends without being asked, or None if it has to be asked.
        saved_cost: What the answers had cost that it is taken from.
        near: Of an answer nearby that is not used: how far it is and what it had cost.
    """

    evaluation: Evaluation | None = None
    saved_cost: float = 0.0
    near: dict[str, float] | None = None


class OwnAnswers:
    """What this run paid for, to be found by nearness; those of earlier proposals only.

    In a synchronous campaign all of them are there when a proposal is asked about, so what is found depends on
    neither the speed of oracles nor on when a run was killed.
    """

    def __init__(self) -> None:
        self._records: list[AnswerRecord] = []
        self._latents = np.zeros((0, 0), np.float32)

    def add(self, records: Iterable[AnswerRecord]) -> None:
        """Takes answers in; what is no answer is left out."""
        fresh = [item for item in records if item.status is Status.OK and item.latent is not None]
        if fresh:
            rows = np.stack([np.asarray(item.latent, np.float32).reshape(-1) for item in fresh])
            self._latents = np.concatenate([self._latents, rows]) if self._records else rows
            self._records += [replace(item, latent=None, noise=None) for item in fresh]

    def within(self, radius: float, candidate: Candidate) -> list[tuple[float, AnswerRecord]]:
        """Returns those within a root-mean-square distance of a candidate, with it."""
        if not self._records:
            return []
        difference = self._latents.astype(np.float64) - candidate.latent.detach().cpu().numpy().reshape(-1)
        distances = np.sqrt(np.square(difference).mean(axis=1))
        found = ((float(distances[place]), self._records[place]) for place in np.flatnonzero(distances <= radius))
        return [(distance, record) for distance, record in found if record.proposal < candidate.proposal]


@dataclass(frozen=True)
class Recall:
    """Looks questions up.

    Attributes:
        question: Of the campaign.
        run_id: Of the run.
        near: What is done with answers nearby, or None if only the same question counts.
        radius: How near, in root-mean-square latent distance.
        own: What is near among the run's own answers.
    """

    question: Question
    run_id: str
    near: Literal["reuse", "average", "query"] | None = None
    radius: float = 0.0
    own: OwnAnswers = field(default_factory=OwnAnswers)

    def __call__(self, archive: ProjectArchive, candidate: Candidate) -> Recalled:
        """Answers a question from the archive if it can be.

        Raises:
            PilotwaveError: The archive cannot be read.
        """
        known = [item for item in archive.lookup(self.question.about(candidate)) if self._is_anothers(item)]
        for status in (Status.OK, Status.INFEASIBLE):
            fitting = [item for item in known if item.status is status]
            if fitting:
                return Recalled(_reused(candidate, fitting[:1]), fitting[0].cost)
        if self.near is None:
            return Recalled()
        neighbours = self._neighbours(archive, candidate)
        if not neighbours:
            return Recalled()
        distance, nearest = neighbours[0]
        if self.near == "query":
            return Recalled(near={"distance": distance, "cost": nearest.cost})
        used = [record for _, record in neighbours] if self.near == "average" else [nearest]
        # One answer is saved, however many it is made of.
        return Recalled(_reused(candidate, used), nearest.cost)

    def _neighbours(self, archive: ProjectArchive, candidate: Candidate) -> list[tuple[float, AnswerRecord]]:
        """Answers within the radius, nearest first."""
        latent = candidate.latent.detach().cpu().numpy().astype(np.float32)[None]
        distances, ids = archive.neighbours(self.question.backbone, latent, NEAREST)
        condition = tuple(candidate.condition.reshape(-1).tolist())
        found = [
            (away, item) for away, item in self.own.within(self.radius, candidate) if item.condition == condition
        ]
        for distance, record_id in zip(distances[0] / latent.size**0.5, ids[0], strict=False):
            if not distance <= self.radius:
                continue
            try:
                record = archive.get(record_id)
            except KeyError:  # it was removed a moment ago
                continue
            alike = self._is_anothers(record) and record.condition == condition
            if alike and record.status is Status.OK:
                found.append((float(distance), record))
        return sorted(found, key=lambda item: (item[0], item[1].record_id))

    def _is_anothers(self, record: AnswerRecord) -> bool:
        return record.run_id != self.run_id and self.question.is_asked_by(record)


def _reused(candidate: Candidate, records: Sequence[AnswerRecord]) -> Evaluation:
    """The end of a query by answers of an archive; several count as their mean."""
    first = records[0]
    taken = replace(
        first.evaluation(),
        query_id=candidate.query_id,
        attempt=1,
        cost=0.0,
        timings=None,
        worker=WORKER,
        reused_from=" ".join(record.record_id for record in records),
    )
    if len(records) == 1:
        return taken
    values = [record.value for record in records if record.value is not None]
    return replace(taken, value=statistics.fmean(values), properties={})


__all__ = ["WORKER", "OwnAnswers", "Question", "Recall", "Recalled"]
