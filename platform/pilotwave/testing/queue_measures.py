"""How well a campaign's evaluators were supplied, from its ledger: for tests and benchmarks of the ready queue.

May import :mod:`pilotwave.archive`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pilotwave.archive.ledger import EventKind, Ledger


@dataclass(frozen=True)
class QueueMeasures:
    """What came of a rule that says when to propose.

    Attributes:
        idle_share: Of the evaluators' time between the first and the last question, how much they waited.
        staleness: How many answers came, on average, between proposing a candidate and asking about it.
        longest: Most candidates that were ready or being made at once.
        per_minute: Questions a minute, between the first and the last one.
    """

    idle_share: float
    staleness: float
    longest: int
    per_minute: float


def measure_queue(run_dir: Path, evaluators: int) -> QueueMeasures:
    """Reads the ledger of a run whose questions were all answered."""
    known_at: dict[int, int] = {}
    proposal_of: dict[str, int] = {}
    counts: dict[int, int] = {}
    stale: list[int] = []
    spans: list[tuple[float, float]] = []
    queue = longest = 0
    with Ledger.open(run_dir / "ledger.sqlite", read_only=True) as ledger:
        for event in ledger.events():
            record = event.record
            if event.kind is EventKind.ASKED:
                known_at[record["proposal"]], counts[record["proposal"]] = len(spans), record["count"]
                queue += record["count"]
            elif event.kind is EventKind.GENERATED:
                proposal_of.update(dict.fromkeys(record["feasible"], record["proposal"]))
                queue += len(record["feasible"]) - counts[record["proposal"]]
            elif event.kind is EventKind.RESERVED and record["attempt"] == 1:
                stale.append(len(spans) - known_at[proposal_of[record["query_id"]]])
                queue -= 1
            elif event.kind is EventKind.SETTLED:
                timings = event.evaluation().timings
                assert timings is not None, "every question was asked"
                spans.append((timings.started, timings.finished))
            longest = max(longest, queue)
    first, last = min(start for start, _ in spans), max(start for start, _ in spans)
    busy = sum(min(end, last) - start for start, end in spans)
    return QueueMeasures(
        idle_share=1 - busy / (evaluators * (last - first)),
        staleness=sum(stale) / len(stale),
        longest=longest,
        per_minute=60 * (len(spans) - 1) / (last - first),
    )


__all__ = ["QueueMeasures", "measure_queue"]
