"""The columns of the project archive, format by format, and the way from records to Arrow and back.

:data:`SCHEMAS` keeps every format that was ever written, :data:`UPGRADES` how to read an older one: columns are
only ever added. May import pyarrow, numpy and :mod:`pilotwave.archive.project.record`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from pilotwave.archive.project.errors import ArchiveError
from pilotwave.archive.project.record import AnswerRecord, FloatArray, id_digest
from pilotwave.errors import MissingDependencyError
from pilotwave.types import Failure, Status

try:
    import pyarrow as pa
except ImportError as missing:
    raise MissingDependencyError(
        "the project archive needs pyarrow, which is not installed; run: pip install 'pilotwave[archive]'"
    ) from missing

FORMAT = 1
"""What is written now."""

_TIME = pa.timestamp("us", tz="UTC")

_FORMAT_1 = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        ("campaign", pa.string()),
        ("run_id", pa.string()),
        ("query_id", pa.string()),
        ("proposal", pa.int64()),
        ("seed", pa.uint64()),
        ("contributor", pa.string()),
        ("recorded", _TIME),
        ("backbone", pa.string()),
        ("condition", pa.list_(pa.int64())),
        ("media", pa.string()),
        ("content", pa.string()),
        ("identity", pa.string()),
        ("canonical", pa.string()),
        ("sample_fields", pa.string()),
        ("oracle", pa.string()),
        ("oracle_version", pa.string()),
        ("oracle_parameters", pa.string()),
        ("deterministic", pa.bool_()),
        ("fidelity", pa.string()),
        ("status", pa.string()),
        ("value", pa.float64()),
        ("cost", pa.float64()),
        ("attempt", pa.int64()),
        ("failure_stage", pa.string()),
        ("failure_message", pa.string()),
        ("failure_retryable", pa.bool_()),
        ("worker", pa.string()),
        ("started", _TIME),
        ("finished", _TIME),
        ("properties", pa.string()),
        ("constraints", pa.string()),
        ("reused_from", pa.string()),
        ("latent_shape", pa.list_(pa.int32())),
        ("noise_shape", pa.list_(pa.int32())),
        ("digest", pa.binary(32)),
        ("sample_blob", pa.large_binary()),
        ("latent", pa.large_binary()),
        ("noise", pa.large_binary()),
    ]
)

SCHEMAS: dict[int, pa.Schema] = {1: _FORMAT_1}
"""Every format that a file may be of."""

UPGRADES: dict[int, Callable[[pa.Table], pa.Table]] = {}
"""From a table with all columns of a format to one of the next format."""

HEAVY = ("sample_blob", "latent", "noise")
"""Columns that come only when they are asked for."""

_TIMES = ("recorded", "started", "finished")

# Made once: json.dumps makes an encoder a call, which is most of its time on small values.
_COMPACT = json.JSONEncoder(separators=(",", ":")).encode
_SORTED = json.JSONEncoder(sort_keys=True).encode


def schema() -> pa.Schema:
    """Returns the columns of the format that is written now."""
    return SCHEMAS[FORMAT]


def light_columns() -> list[str]:
    """Returns the names of all columns but the heavy ones."""
    return [name for name in schema().names if name not in HEAVY]


def upgraded(table: pa.Table, found: int) -> pa.Table:
    """Brings a table of an older format to the one that is written now."""
    for number in range(found, FORMAT):
        table = UPGRADES[number](table)
    return table.select(schema().names)


def check_format(found: object, what: str) -> int:
    """Returns the format if this version can read it.

    Raises:
        ArchiveError: It is newer, or no format at all.
    """
    if not isinstance(found, int) or isinstance(found, bool) or found not in SCHEMAS:
        known = " or ".join(map(str, SCHEMAS))
        raise ArchiveError(f"{what}: expected records of format {known}, got {found!r}; use a newer pilotwave")
    return found


def table_of(records: Sequence[AnswerRecord], dtype: str) -> pa.Table:
    """Returns records as a table in the format that is written now.

    Args:
        records: In order.
        dtype: Of latents and noise, ``"float16"`` or ``"float32"``.

    Raises:
        ArchiveError: A record holds what Arrow cannot store, or a latent does not fit the type.
    """
    payloads = [_payloads(records, name, np.dtype(dtype)) for name in ("latent", "noise")]
    in_order = itemgetter(*schema().names)
    rows = [in_order(_row(record, *payload)) for record, *payload in zip(records, *payloads, strict=True)]
    values = zip(*rows, strict=True) if rows else [()] * len(schema())
    try:
        columns = [pa.array(column, item.type) for column, item in zip(values, schema(), strict=True)]
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError, TypeError) as error:
        raise ArchiveError(f"a record cannot be stored: {error}") from error
    return pa.table(columns, schema=schema())


def records_of(table: pa.Table, dtype: str) -> list[AnswerRecord]:
    """Rebuilds records from a table with all columns, as :func:`table_of` made it."""
    return [_record(row, np.dtype(dtype)) for row in rows_of(table)]


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Returns the rows as dicts, times as whole microseconds since the epoch."""
    for name in _TIMES:
        if name in table.column_names:
            place = table.column_names.index(name)
            table = table.set_column(place, name, table.column(name).cast(pa.int64()))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def row_digest(row: Mapping[str, Any]) -> bytes:
    """Returns the SHA-256 of everything a row of format 1 holds; a later format's columns are not part of it."""
    text = _COMPACT(_DIGESTED(row)).encode()
    state = hashlib.sha256(len(text).to_bytes(8, "little") + text)
    for name in HEAVY:
        data = row[name]
        state.update(b"-" if data is None else len(data).to_bytes(8, "little"))
        state.update(data or b"")
    return state.digest()


_DIGESTED = itemgetter(*(name for name in _FORMAT_1.names if name not in (*HEAVY, "digest")))


def id_digests(record_ids: Sequence[str]) -> np.ndarray:
    """Returns 63 bits of each record id, uint64 of shape (n,)."""
    return np.fromiter((id_digest(name) for name in record_ids), np.uint64, len(record_ids))


def key_digests(table: pa.Table) -> np.ndarray:
    """Returns 63 bits of the question of each row, uint64 of shape (n,)."""
    from pilotwave.archive.project.keys import EvaluationKey

    names = ("oracle", "oracle_version", "oracle_parameters", "canonical")
    columns = [table.column(name).to_pylist() for name in names]
    made = (EvaluationKey(a, b, c, None, d).digest() for a, b, c, d in zip(*columns, strict=True))
    return np.fromiter(made, np.uint64, table.num_rows)


def _row(record: AnswerRecord, latent: bytes | None, noise: bytes | None) -> dict[str, Any]:
    failure = record.failure
    row = {
        "record_id": record.record_id,
        "campaign": record.campaign,
        "run_id": record.run_id,
        "query_id": record.query_id,
        "proposal": record.proposal,
        "seed": record.seed,
        "contributor": record.contributor,
        "recorded": round(record.recorded * 1e6),
        "backbone": record.backbone,
        "condition": list(record.condition),
        "media": record.media,
        "content": record.content,
        "identity": record.identity,
        "canonical": record.canonical,
        "sample_fields": _SORTED(dict(record.sample_fields)) if record.sample_fields else "{}",
        "oracle": record.oracle,
        "oracle_version": record.oracle_version,
        "oracle_parameters": record.oracle_parameters,
        "deterministic": record.deterministic,
        "fidelity": record.fidelity,
        "status": record.status.value,
        "value": record.value,
        "cost": float(record.cost),
        "attempt": record.attempt,
        "failure_stage": None if failure is None else failure.stage,
        "failure_message": None if failure is None else failure.message,
        "failure_retryable": None if failure is None else failure.retryable,
        "worker": record.worker,
        "started": None if record.started is None else round(record.started * 1e6),
        "finished": None if record.finished is None else round(record.finished * 1e6),
        "properties": _numbers_to_json(record.properties),
        "constraints": _numbers_to_json(record.constraints),
        "reused_from": record.reused_from,
        "latent_shape": None if record.latent is None else list(record.latent.shape),
        "noise_shape": None if record.noise is None else list(record.noise.shape),
        "sample_blob": record.sample_blob,
        "latent": latent,
        "noise": noise,
    }
    row["digest"] = row_digest(row)
    return row


def _record(row: Mapping[str, Any], dtype: np.dtype[Any]) -> AnswerRecord:
    failure = None
    if row["failure_stage"] is not None:
        failure = Failure(row["failure_stage"], row["failure_message"], row["failure_retryable"])
    taken = {name: row[name] for name in _SAME}
    return AnswerRecord(
        **taken,
        status=Status(row["status"]),
        recorded=row["recorded"] / 1e6,
        condition=tuple(row["condition"]),
        sample_fields=json.loads(row["sample_fields"]),
        failure=failure,
        started=None if row["started"] is None else row["started"] / 1e6,
        finished=None if row["finished"] is None else row["finished"] / 1e6,
        properties=_numbers_from_json(row["properties"]),
        constraints=_numbers_from_json(row["constraints"]),
        latent=_from_bytes(row["latent"], row["latent_shape"], dtype),
        noise=_from_bytes(row["noise"], row["noise_shape"], dtype),
    )


_SAME = (
    *("record_id", "campaign", "run_id", "query_id", "proposal", "seed", "contributor", "backbone", "media"),
    *("content", "identity", "canonical", "oracle", "oracle_version", "oracle_parameters", "deterministic"),
    *("fidelity", "value", "cost", "attempt", "worker", "reused_from", "sample_blob"),
)
"""Columns that stand in a record as they stand in a row."""


def _numbers_to_json(numbers: Mapping[str, float]) -> str:
    """Infinite and undefined numbers become strings, because JSON has no words for them."""
    if not numbers:
        return "{}"
    pairs = ((name, float(number)) for name, number in numbers.items())
    return _SORTED({name: number if math.isfinite(number) else str(number) for name, number in pairs})


def _numbers_from_json(text: str) -> dict[str, float]:
    return {name: float(number) for name, number in json.loads(text).items()}


def _payloads(records: Sequence[AnswerRecord], name: str, dtype: np.dtype[Any]) -> list[bytes | None]:
    """Returns the bytes of an array of each record, converted all at once: one by one takes far longer."""
    arrays: list[FloatArray | None] = [getattr(record, name) for record in records]
    flat = [np.zeros(0, np.float32), *(np.ravel(array) for array in arrays if array is not None)]
    given = np.concatenate(flat).astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        kept = given.astype(dtype)
    beyond = np.nonzero(np.isinf(kept) & np.isfinite(given))[0]
    if len(beyond):
        raise ArchiveError(
            f"a {name} value is {given[beyond[0]]:g}, beyond float16 (65504); make an archive with float32 latents"
        )
    data, place, found = kept.tobytes(), 0, []
    for array in arrays:
        size = 0 if array is None else array.size * dtype.itemsize
        found.append(None if array is None else data[place : place + size])
        place += size
    return found


def _from_bytes(data: bytes | None, shape: Sequence[int] | None, dtype: np.dtype[Any]) -> FloatArray | None:
    if data is None or shape is None:
        return None
    return np.frombuffer(data, dtype).reshape(shape).astype(np.float32)


__all__ = [
    "FORMAT",
    "HEAVY",
    "SCHEMAS",
    "UPGRADES",
    "check_format",
    "id_digests",
    "key_digests",
    "light_columns",
    "records_of",
    "row_digest",
    "rows_of",
    "schema",
    "table_of",
    "upgraded",
]
