"""The lines of a campaign's log: from an event of the ledger to the fields of one JSON object, and to text.

The log that is written while a campaign runs, and the one that ``pilotwave logs`` makes from the ledger of a run
that has none, come from here, so they say the same. May import :mod:`pilotwave.archive`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pilotwave.archive.events import Event, EventKind

Line = dict[str, Any]
"""The fields of one line; those that do not apply are missing. See ``docs/observability.md``."""

LEVELS = ("debug", "info", "warning", "error")
FIELDS = (
    "time",
    "level",
    "event",
    "message",
    "campaign",
    "run",
    "proposal",
    "query",
    "attempt",
    "worker",
    "actor",
    "node",
    "host",
    "pid",
    "status",
    "value",
    "cost",
    "seconds",
    "stage",
    "retryable",
    "output",
)
"""All that a line may hold, in the order in which it is written; a reader ignores what it does not know."""

_LEVEL_OF_STATUS = {"failed": "warning", "timed_out": "warning"}
_LEVEL_OF_REASON = {"failed": "error", "breaker": "error"}


def line_of(event: Event) -> Line:
    """Returns the line for an event of the ledger, without what is the same for all lines of a run."""
    record = event.record
    match event.kind:
        case EventKind.RESERVED:
            fields = _about(record["query_id"], record["attempt"])
            fields |= {
                "level": "debug",
                "message": f"asking, attempt {record['attempt']}",
                "cost": record.get("cost"),
            }
        case EventKind.SETTLED | EventKind.ATTEMPTED | EventKind.REMEMBERED:
            fields = _evaluation(event.kind, record)
        case EventKind.GENERATED:
            fields = _generated(record)
        case EventKind.ASKED:
            wanted = f"proposal {record['proposal']}: {record['count']} candidates wanted"
            fields = {"level": "info", "message": wanted, "proposal": record["proposal"]}
        case EventKind.TOLD:
            count = len(record["query_ids"])
            fields = {
                "level": "debug",
                "message": f"the algorithm was told of {count} candidate{'' if count == 1 else 's'}",
            }
        case EventKind.STARTED:
            fields = _started(record)
        case EventKind.STOPPED:
            reason, by = record["reason"], record.get("ended_by") or ""
            words = f"the driver ended: {reason}{f' ({by})' if by else ''}"
            fields = {"level": _LEVEL_OF_REASON.get(reason, "info"), "message": words, "status": reason}
        case EventKind.CONTROLLED:
            words = f"{record['command']} {record.get('argument') or ''}".strip()
            refused = record.get("refused")
            said = f"{words}: refused: {refused}" if refused else f"{words}: obeyed"
            fields = {"level": "warning" if refused else "info", "message": said}
        case EventKind.FORGOTTEN:
            fields = {"level": "info", "message": f"{record['queries']} records that were paid for were taken out"}
    return {"time": rfc3339(event.time), "event": event.kind.value, **fields}


def proposal_of(query_id: str) -> int | None:
    """Returns the number of the proposal that a query's name speaks of, e.g. 3 for ``p0003-07``."""
    number = query_id[1:].partition("-")[0]
    return int(number) if query_id[:1] == "p" and number.isdecimal() else None


def rfc3339(moment: float) -> str:
    """Returns a moment (seconds since the epoch) as UTC text of fixed width, so that it sorts as text."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment_of(text: str) -> float:
    """Inverts :func:`rfc3339`.

    Raises:
        ValueError: It is no such text.
    """
    return datetime.fromisoformat(text).timestamp()


def _about(query_id: str, attempt: int | None = None) -> Line:
    return {"query": query_id, "proposal": proposal_of(query_id), "attempt": attempt}


def _evaluation(kind: EventKind, record: Mapping[str, Any]) -> Line:
    failure, timings, status = record["failure"], record["timings"], record["status"]
    fields = _about(record["query_id"], record["attempt"])
    fields |= {
        "worker": record["worker"] or None,
        "status": status,
        "value": record["value"],
        "cost": record["cost"],
    }
    if timings is not None:
        fields["seconds"] = round(max(0.0, timings["finished"] - timings["started"]), 6)
    fields["level"] = "debug" if kind is EventKind.REMEMBERED else _LEVEL_OF_STATUS.get(status, "info")
    if failure is not None:
        again = "; will be tried again" if kind is EventKind.ATTEMPTED else ""
        fields |= {"stage": failure["stage"], "retryable": failure["retryable"]}
        fields["message"] = f"{failure['stage']}: {failure['message']}{again}"
    elif record["reused_from"] is not None:
        fields["message"] = f"{status}: known already, from {record['reused_from']}"
    else:
        value = record["value"]
        fields["message"] = status if value is None else f"{status}: {value:.6g}"
    return fields


def _generated(record: Mapping[str, Any]) -> Line:
    drawn, feasible = len(record["query_ids"]), len(record["feasible"])
    words = f"proposal {record['proposal']}: {drawn} candidates made, {feasible} feasible"
    reasons = record.get("infeasible") or {}
    if reasons:
        words += f" (not: {', '.join(f'{count} {reason}' for reason, count in sorted(reasons.items()))})"
    level = "info" if feasible else "warning"
    return {
        "level": level,
        "message": words,
        "proposal": record["proposal"],
        "worker": record.get("worker") or None,
        "seconds": round(record["seconds"], 6),
    }


def _started(record: Mapping[str, Any]) -> Line:
    facts = record.get("facts", {})
    words = "a driver took the campaign up again" if record.get("resumed") else "a driver began the campaign"
    words += f", {record['queries']} queries" if "queries" in record else ""
    named = [
        f"{key.replace('_', ' ')} {facts[key]}" for key in ("oracle", "oracle_version", "backbone") if key in facts
    ]
    message = "; ".join([words, ", ".join(named)] if named else [words])
    return {"level": "info", "message": message, "host": record.get("host"), "pid": record.get("pid")}


def in_order(line: Mapping[str, Any]) -> Line:
    """Returns the fields that are not None, in the order of :data:`FIELDS`, unknown ones last."""
    known = {name: line[name] for name in FIELDS if line.get(name) is not None}
    return known | {name: value for name, value in line.items() if name not in known and value is not None}


def as_text(line: Mapping[str, Any]) -> tuple[str, str, str, str, Sequence[str]]:
    """Returns what a person reads: local time, level, who or what it is about, the message, the output below it."""
    try:
        when = datetime.fromtimestamp(moment_of(str(line.get("time")))).strftime("%m-%d %H:%M:%S.%f")[:-3]
    except ValueError:
        when = str(line.get("time", ""))
    about = [str(line[name]) for name in ("query", "worker") if line.get(name) is not None]
    if line.get("attempt", 1) not in (None, 1):
        about[:1] = [f"{about[0]} #{line['attempt']}"] if about else []
    message = str(line.get("message", ""))
    if line.get("seconds") is not None:
        message += f" [{float(line['seconds']):.3g} s]"
    output = line.get("output") or ()
    return when, str(line.get("level", "")), " ".join(about) or str(line.get("event", "")), message, tuple(output)


__all__ = ["FIELDS", "LEVELS", "Line", "as_text", "in_order", "line_of", "moment_of", "proposal_of", "rfc3339"]
