"""Evaluations as JSON: the one form in which receipts and the ledger keep them.

Pure functions; may import :mod:`pilotwave.types` and the standard library. Floats survive exactly, because
JSON text written by Python holds the shortest decimal that reads back to the same double. Numbers that JSON
does not know (a property may be infinite or NaN) are written as the strings ``"inf"``, ``"-inf"``, ``"nan"``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pilotwave.types import Evaluation, Failure, Status, Timings


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the evaluation as a JSON-compatible dict; :func:`evaluation_from_json` inverts it exactly."""
    timings, failure = evaluation.timings, evaluation.failure
    return {
        "query_id": evaluation.query_id,
        "status": evaluation.status.value,
        "value": None if evaluation.value is None else _from_number(evaluation.value),
        "attempt": evaluation.attempt,
        "cost": _from_number(evaluation.cost),
        "fidelity": evaluation.fidelity,
        "timings": None if timings is None else {"started": timings.started, "finished": timings.finished},
        "failure": None
        if failure is None
        else {"stage": failure.stage, "message": failure.message, "retryable": failure.retryable},
        "properties": {name: _from_number(number) for name, number in evaluation.properties.items()},
        "worker": evaluation.worker,
        "reused_from": evaluation.reused_from,
    }


def evaluation_from_json(fields: Mapping[str, Any]) -> Evaluation:
    """Rebuilds an evaluation; keys added by a later version are ignored.

    Raises:
        ValueError: A field is missing or of the wrong kind; the message says what came.
    """
    try:
        timings, failure = fields["timings"], fields["failure"]
        return Evaluation(
            query_id=str(fields["query_id"]),
            status=Status(fields["status"]),
            value=None if fields["value"] is None else float(fields["value"]),
            attempt=int(fields["attempt"]),
            cost=float(fields["cost"]),
            fidelity=str(fields["fidelity"]),
            timings=None if timings is None else Timings(float(timings["started"]), float(timings["finished"])),
            failure=None
            if failure is None
            else Failure(str(failure["stage"]), str(failure["message"]), bool(failure["retryable"])),
            properties={str(name): float(number) for name, number in fields["properties"].items()},
            worker=str(fields["worker"]),
            reused_from=fields["reused_from"],
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"expected the fields of an evaluation, got {dict(fields)!r}: {error!r}") from error


def _from_number(number: float) -> float | str:
    number = float(number)
    return number if math.isfinite(number) else str(number)


__all__ = ["evaluation_from_json", "evaluation_to_json"]
