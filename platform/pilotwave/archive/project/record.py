"""One answer as the project archive keeps it: what was asked, of whom, by which campaign, and what came.

May import numpy, :mod:`pilotwave.samples`, :mod:`pilotwave.types` and :mod:`pilotwave.archive.project.keys`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotwave.archive.project.keys import EvaluationKey, canonical_form, short_digest
from pilotwave.samples import Sample, sample_from_payload
from pilotwave.types import Candidate, Evaluation, Failure, Status, Timings

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class AnswerRecord:
    """One answer. Times are seconds since the epoch (UTC), kept to the microsecond.

    Attributes:
        record_id: Unique in the archive: ``"<run id>/<query id>"``.
        campaign: The campaign's name.
        run_id: Unique to a run directory.
        query_id: Of the candidate in its run.
        proposal: The number of the proposal it came from.
        seed: Of its draw, 0 <= seed < 2**64.
        contributor: Whose answer it is, and who may ask to have it forgotten.
        recorded: When the answer was written into its run's ledger.
        backbone: The fingerprint of the model that made the candidate.
        condition: Of the generation.
        media: The kind of sample, e.g. ``"molecule"``; None if there is none.
        identity: The sample's, e.g. its SMILES.
        canonical: The sample's canonical form, part of the :class:`EvaluationKey`.
        content: SHA-256 of the sample's payload, hex.
        sample_fields, sample_blob: The sample's payload.
        oracle, oracle_version, oracle_parameters, deterministic: Who answered, see :class:`EvaluationKey`.
        fidelity, status, value, cost, attempt, worker, properties: See :class:`pilotwave.types.Evaluation`.
        failure: Why there is no value, or None.
        started, finished: When the oracle was at work, or None if it never was.
        constraints: What constraints measured on the candidate.
        reused_from: The record whose answer was used instead of asking again, or several with spaces between if
            it is their mean, or None.
        latent: float32 of any shape, or None. Comes back as the archive keeps it (fp16 or fp32).
        noise: The noise sequence, the same.
    """

    record_id: str
    campaign: str
    run_id: str
    query_id: str
    proposal: int
    seed: int
    contributor: str
    recorded: float
    backbone: str
    oracle: str
    oracle_version: str
    status: Status
    oracle_parameters: str = ""
    deterministic: bool = True
    condition: tuple[int, ...] = ()
    media: str | None = None
    identity: str = ""
    canonical: str = ""
    content: str = ""
    sample_fields: Mapping[str, Any] = field(default_factory=dict)
    sample_blob: bytes = b""
    fidelity: str = "standard"
    value: float | None = None
    cost: float = 0.0
    attempt: int = 1
    worker: str = ""
    failure: Failure | None = None
    started: float | None = None
    finished: float | None = None
    properties: Mapping[str, float] = field(default_factory=dict)
    constraints: Mapping[str, float] = field(default_factory=dict)
    reused_from: str | None = None
    latent: FloatArray | None = None
    noise: FloatArray | None = None

    def __post_init__(self) -> None:
        if not self.record_id:
            raise ValueError("a record needs a record_id, e.g. 'run/p0003-01', got ''")
        if (self.value is not None) != (self.status is Status.OK):
            raise ValueError(f"a record has a value exactly if it is ok, got {self.status} with {self.value}")

    @classmethod
    def of(
        cls,
        candidate: Candidate,
        evaluation: Evaluation,
        *,
        campaign: str,
        run_id: str,
        contributor: str,
        backbone: str,
        oracle: str,
        oracle_version: str,
        oracle_parameters: str = "",
        deterministic: bool = True,
        recorded: float | None = None,
        geometry: bool = True,
    ) -> AnswerRecord:
        """Puts a candidate and its evaluation together.

        Args:
            candidate: With its sample, latent and noise sequence.
            evaluation: How its query ended; a ``reused_from`` without a slash is a query of the same run.
            campaign: See the attributes.
            run_id: See the attributes.
            contributor: See the attributes.
            backbone: See the attributes.
            oracle: See the attributes.
            oracle_version: See the attributes.
            oracle_parameters: See the attributes.
            deterministic: See the attributes.
            recorded: When it was written down; now by default.
            geometry: See :func:`pilotwave.archive.project.keys.canonical_form`.
        """
        sample, timings, reused = candidate.sample, evaluation.timings, evaluation.reused_from
        if reused is not None and "/" not in reused:
            reused = f"{run_id}/{reused}"
        return cls(
            record_id=f"{run_id}/{candidate.query_id}",
            campaign=campaign,
            run_id=run_id,
            query_id=candidate.query_id,
            proposal=candidate.proposal,
            seed=candidate.seed,
            contributor=contributor,
            recorded=time.time() if recorded is None else recorded,
            backbone=backbone,
            oracle=oracle,
            oracle_version=oracle_version,
            status=evaluation.status,
            oracle_parameters=oracle_parameters,
            deterministic=deterministic,
            condition=tuple(int(number) for number in candidate.condition.reshape(-1).tolist()),
            fidelity=evaluation.fidelity,
            value=evaluation.value,
            cost=evaluation.cost,
            attempt=evaluation.attempt,
            worker=_storable(evaluation.worker),
            failure=_storable_failure(evaluation.failure),
            started=None if timings is None else timings.started,
            finished=None if timings is None else timings.finished,
            properties=dict(evaluation.properties),
            constraints=dict(candidate.properties),
            reused_from=reused,
            latent=candidate.latent.detach().cpu().numpy().astype(np.float32),
            noise=candidate.noise_sequence.detach().cpu().numpy().astype(np.float32),
            **({} if sample is None else sample_columns(sample, geometry=geometry)),
        )

    def key(self) -> EvaluationKey:
        """Returns the question that this is an answer to."""
        return EvaluationKey(
            self.oracle, self.oracle_version, self.oracle_parameters, self.fidelity, self.canonical
        )

    def sample(self) -> Sample | None:
        """Rebuilds the sample, or None if there is none."""
        if self.media is None:
            return None
        return sample_from_payload(self.media, self.sample_fields, self.sample_blob)

    def evaluation(self) -> Evaluation:
        """Rebuilds how the query ended."""
        timed = self.started is not None and self.finished is not None
        return Evaluation(
            query_id=self.query_id,
            status=self.status,
            value=self.value,
            attempt=self.attempt,
            cost=self.cost,
            fidelity=self.fidelity,
            timings=Timings(self.started, self.finished) if timed else None,  # type: ignore[arg-type]
            failure=self.failure,
            properties=dict(self.properties),
            worker=self.worker,
            reused_from=self.reused_from,
        )


def sample_columns(sample: Sample, *, geometry: bool = True) -> dict[str, Any]:
    """Returns the fields of a record that describe its sample."""
    fields, blob = sample.payload()
    return {
        "media": sample.media,
        "identity": sample.identity(),
        "canonical": canonical_form(sample, geometry=geometry),
        "content": content_digest(sample.media, fields, blob),
        "sample_fields": fields,
        "sample_blob": blob,
    }


def content_digest(media: str, fields: Mapping[str, Any], blob: bytes) -> str:
    """Returns the SHA-256 of a sample's payload, hex."""
    head = json.dumps([media, dict(fields)], sort_keys=True).encode()
    return hashlib.sha256(head + b"\0" + blob).hexdigest()


def id_digest(record_id: str) -> int:
    """Returns 63 bits of a record id, by which an archive finds the record."""
    return short_digest(record_id)


def _storable(text: str) -> str:
    """Replaces what is no text (a tool's broken output), which Arrow would refuse."""
    return text.encode("utf-8", "replace").decode()


def _storable_failure(failure: Failure | None) -> Failure | None:
    if failure is None:
        return None
    return Failure(_storable(failure.stage), _storable(failure.message), failure.retryable)


__all__ = ["AnswerRecord", "content_digest", "id_digest", "sample_columns"]
