"""Records for tests of whatever keeps answers: deterministic, of every media, some of them failures.

May import numpy and the core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from pilotwave.archive.project.record import AnswerRecord, sample_columns
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample, Sample
from pilotwave.types import Failure, Status

EPOCH = 1_700_000_000.0
"""When the first record was recorded; each is a second younger than the last."""

_BLOCK = """
  pilotwave

  3  2  0  0  0  0  0  0  0  0999 V2000
{oxygen}O   0  0
{first}H   0  0
{second}H   0  0
  1  2  1  0
  1  3  1  0
M  END
"""


def water(number: int = 0) -> MoleculeSample:
    """Returns a water molecule whose angle depends on the number."""
    angle = 1.82 + 0.02 * (number % 40)
    places = {"oxygen": (0, 0, 0), "first": (0.96, 0, 0), "second": (0.96 * np.cos(angle), 0.96 * np.sin(angle), 0)}
    lines = {name: "{:10.4f}{:10.4f}{:10.4f} ".format(*place) for name, place in places.items()}
    return MoleculeSample(_BLOCK.format(**lines), "O")


def answer_record(
    number: int,
    *,
    run_id: str = "test-run",
    contributor: str = "alice",
    backbone: str = "backbone-a",
    latent_shape: tuple[int, ...] = (2, 8),
    steps: int = 3,
    reused_from: str | None = None,
) -> AnswerRecord:
    """Returns a record that is the same whenever it is made, and like no other.

    Args:
        number: Its place in the run; every seventh is a failure.
        run_id: Of the run.
        contributor: Whose it is.
        backbone: A fingerprint.
        latent_shape: Of its latent.
        steps: The noise sequence has one more.
        reused_from: See :class:`pilotwave.archive.project.AnswerRecord`.
    """
    random = np.random.default_rng([number, *run_id.encode()])
    failed = number % 7 == 6
    samples: list[Sample] = [
        ArraySample(random.standard_normal(16).astype(np.float32)),
        ImageSample(random.integers(0, 256, (4, 4, 3), dtype=np.uint8), "boot"),
        water(number),
    ]
    started = EPOCH + number
    return AnswerRecord(
        record_id=f"{run_id}/p{number // 16:04d}-{number % 16:02d}",
        campaign="test-campaign",
        run_id=run_id,
        query_id=f"p{number // 16:04d}-{number % 16:02d}",
        proposal=number // 16,
        seed=int(random.integers(0, 2**63)),
        contributor=contributor,
        recorded=started + 0.75,
        backbone=backbone,
        oracle="test:sum",
        oracle_version="1.0",
        oracle_parameters="0123456789abcdef",
        status=Status.FAILED if failed else Status.OK,
        value=None if failed else float(random.standard_normal()),
        cost=1.0,
        condition=(number % 5,),
        worker=f"evaluator-{number % 2}",
        failure=Failure("scf", "no convergence", retryable=True) if failed else None,
        started=started,
        finished=started + 0.5,
        properties={} if failed else {"gap": float(random.standard_normal())},
        constraints={"synthetic_accessibility": 3.0},
        reused_from=reused_from,
        latent=random.standard_normal(latent_shape).astype(np.float32),
        noise=random.standard_normal((steps + 1, *latent_shape)).astype(np.float32),
        **sample_columns(samples[number % 3]),
    )


def same_record(left: AnswerRecord, right: AnswerRecord) -> bool:
    """Says whether two records are equal to the last bit; NaN equals NaN, and 0.0 does not equal -0.0."""
    for item in fields(AnswerRecord):
        mine, other = getattr(left, item.name), getattr(right, item.name)
        if isinstance(mine, np.ndarray) and isinstance(other, np.ndarray):
            if mine.shape != other.shape or not np.array_equal(mine, other, equal_nan=True):
                return False
        elif isinstance(mine, Mapping) and isinstance(other, Mapping):
            if repr(sorted(mine.items())) != repr(sorted(other.items())):
                return False
        elif repr(mine) != repr(other):
            return False
    return True


__all__ = ["EPOCH", "answer_record", "same_record", "water"]
