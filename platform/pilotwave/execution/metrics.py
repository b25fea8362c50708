"""The metrics of a campaign at work: which there are, and how they follow from what telemetry hears.

What carries them to Prometheus is a :class:`Meter`: Ray's metrics agent on a cluster, a small endpoint of this
process elsewhere. Counters are those of one driver (Prometheus knows that counters begin anew); gauges tell the
whole campaign. Labels have few values: never a query, and of names that an oracle makes up only the first thirty.
May import :mod:`pilotwave.archive` and the modules beside it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pilotwave.archive.ledger import Event, EventKind
from pilotwave.archive.spending import SECONDS_PER_HOUR
from pilotwave.archive.state import CampaignState
from pilotwave.execution.job import CampaignJob, Phase, Progress
from pilotwave.execution.telemetry import Level
from pilotwave.types import Draw

PREFIX = "pilotwave_"
"""Of all names; Ray puts ``ray_`` before it."""
COMMON = ("campaign", "oracle")
"""Labels of every metric: the campaign's name and the kind of oracle."""
MOST_VALUES = 30
"""A label of which oracles or constraints make up the values has no more; the rest is ``"other"``."""
SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Buckets from ten milliseconds to a day."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: With its unit, without :data:`PREFIX`.
        kind: What Prometheus calls it.
        help: One sentence.
        labels: Besides :data:`COMMON`.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


METRICS = (
    Metric("queries_total", "counter", "Queries that ended, by how; reused ones cost nothing.", ("status",)),
    Metric(
        "attempts_total", "counter", "Attempts at the oracle that ended, repeated ones too, by how.", ("status",)
    ),
    Metric("retries_total", "counter", "Attempts that failed and are made again, by stage.", ("stage",)),
    Metric("failures_total", "counter", "Attempts that failed, by the stage of the work.", ("stage",)),
    Metric(
        "evaluation_seconds", "histogram", "How long attempts at the oracle took, by how they ended.", ("status",)
    ),
    Metric("evaluator_busy_seconds_total", "counter", "Seconds that evaluators were at work, summed over them."),
    Metric("cost_total", "counter", "What attempts cost, failed ones too, in the oracle's own unit."),
    Metric("saved_cost_total", "counter", "What answers had cost that were taken from a project archive."),
    Metric("proposals_total", "counter", "Proposals that the algorithm was asked for."),
    Metric("candidates_total", "counter", "Candidates that were made, infeasible ones too."),
    Metric("redraws_total", "counter", "Candidates that were drawn in place of infeasible ones."),
    Metric("infeasible_total", "counter", "Candidates that no oracle is asked about, by the check.", ("reason",)),
    Metric("generation_seconds", "histogram", "How long it took to make a proposal's candidates."),
    Metric("generator_busy_seconds_total", "counter", "Seconds that generators were at work, summed over them."),
    Metric("generation_failures_total", "counter", "Proposals whose generator failed or was lost."),
    Metric("platform_seconds_total", "counter", "Seconds that the loop itself was at work, waiting for nobody."),
    Metric("commands_total", "counter", "Commands of pilotwave control that were obeyed.", ("command",)),
    Metric("warnings_total", "counter", "Warnings and errors in the run's log that are no event of the ledger."),
    Metric("queue_depth", "gauge", "Questions by where they are: ready, in_flight, resting.", ("state",)),
    Metric("evaluators", "gauge", "Questions that can be asked at once."),
    Metric("evaluators_busy", "gauge", "Questions that are being asked."),
    Metric("evaluator_utilisation_ratio", "gauge", "Share of the evaluators' time in use by this driver, 0 to 1."),
    Metric("generating", "gauge", "1 while candidates are being made, else 0."),
    Metric("spent_queries", "gauge", "Queries that were asked, over all drivers."),
    Metric("budget_queries", "gauge", "The budget for them."),
    Metric("spent_cost", "gauge", "What all attempts cost, over all drivers, in the oracle's own unit."),
    Metric("budget_cost", "gauge", "The budget for it, if it is limited."),
    Metric("active_seconds", "gauge", "For how long drivers were at work, pauses not counted."),
    Metric("budget_seconds", "gauge", "The budget for it, if it is limited."),
    Metric("best_value", "gauge", "The best value so far, in the oracle's unit."),
    Metric("batch_mean_value", "gauge", "Mean value of the last complete batch."),
    Metric("last_answer_timestamp_seconds", "gauge", "When the last query ended, seconds since the epoch."),
    Metric("running", "gauge", "1 while a driver is at work on the campaign, 0 once it has ended."),
    Metric("paused", "gauge", "1 while the campaign is paused, else 0."),
)
"""All there are."""


class Meter(Protocol):
    """Where metrics go; names are those of :data:`METRICS`."""

    def add(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        """Increases a counter by a positive amount."""
        ...

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Sets a gauge."""
        ...

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Puts one value into a histogram."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class CampaignMetrics:
    """See :class:`pilotwave.execution.telemetry.Telemetry`.

    Counters are handed over when somebody looks, four times a second at most, so that a query costs little.

    Args:
        open_meter: Makes the meter once the campaign's labels are known: ``{"campaign", "oracle"}``.
    """

    name = "the export of metrics"

    def __init__(self, open_meter: Callable[[Mapping[str, str]], Meter]) -> None:
        self._open_meter = open_meter
        self._meter: Meter | None = None
        self._state: CampaignState
        self._job: CampaignJob
        self._counts: defaultdict[tuple[str, str, str], float] = defaultdict(float)
        self._values: dict[str, set[str]] = {}
        self._platform_seconds = 0.0
        self._last_answer: float | None = None

    def opened(self, job: CampaignJob, state: CampaignState) -> None:
        """Opens the meter."""
        self._job, self._state = job, state
        self._meter = self._open_meter({"campaign": job.config.name, "oracle": job.config.oracle.kind})
        self._meter.set("running", 1.0, {})

    def happened(self, event: Event) -> None:
        """Counts an event."""
        record = event.record
        match event.kind:
            case EventKind.SETTLED:
                self._settled(event)
            case EventKind.ATTEMPTED:
                self._ended(record)
                self._count("retries_total", 1, stage=self._bounded("stage", record["failure"]["stage"]))
            case EventKind.ASKED:
                self._count("proposals_total", 1)
            case EventKind.GENERATED:
                self._generated(record)
            case EventKind.CONTROLLED if not record.get("refused"):
                self._count("commands_total", 1, command=record["command"])
            case _:
                pass

    def entered(self, phase: Phase) -> None:
        """Counts nothing."""

    def noted(self, level: Level, event: str, message: str, proposal: int | None = None) -> None:
        """Counts warnings, and generations that failed."""
        if event == "generation-failed":
            self._count("generation_failures_total", 1)
        if level >= Level.WARNING:
            self._count("warnings_total", 1)

    def looked(self, progress: Progress) -> None:
        """Sets what is so now, and hands over what was counted."""
        gauges: dict[str, float | None] = {
            "evaluators": progress.evaluators,
            "evaluators_busy": progress.in_flight,
            "evaluator_utilisation_ratio": progress.utilisation,
            "generating": float(progress.generating),
            "best_value": progress.best,
            "batch_mean_value": progress.batch_mean,
            "paused": float(progress.paused),
        }
        meter = self._meter
        assert meter is not None, "it was opened"
        for name, value in gauges.items():
            if value is not None:
                meter.set(name, float(value), {})
        depths = {"ready": progress.ready, "in_flight": progress.in_flight, "resting": progress.resting}
        for state, depth in depths.items():
            meter.set("queue_depth", float(depth), {"state": state})
        self._count("platform_seconds_total", progress.platform_seconds - self._platform_seconds)
        self._platform_seconds = progress.platform_seconds
        self._whole_campaign(meter)
        self._hand_over(meter)

    def close(self, reason: str) -> None:
        """Hands over the rest."""
        meter, self._meter = self._meter, None
        if meter is None:
            return
        meter.set("running", 0.0, {})
        for name in ("evaluators_busy", "generating"):
            meter.set(name, 0.0, {})
        self._whole_campaign(meter)
        self._hand_over(meter)
        meter.close()

    def _settled(self, event: Event) -> None:
        record = event.record
        if record["reused_from"] is None:
            self._ended(record)
            self._count("queries_total", 1, status=record["status"])
        else:
            self._count("queries_total", 1, status="reused")
            self._count("saved_cost_total", record.get("saved_cost", 0.0))
        self._last_answer = event.time

    def _ended(self, record: Mapping[str, Any]) -> None:
        """Counts an attempt."""
        assert self._meter is not None, "it was opened"
        status, timings, failure = record["status"], record["timings"], record["failure"]
        self._count("attempts_total", 1, status=status)
        self._count("cost_total", float(record["cost"]))
        if failure is not None:
            self._count("failures_total", 1, stage=self._bounded("stage", failure["stage"]))
        if timings is not None:
            seconds = max(0.0, timings["finished"] - timings["started"])
            self._count("evaluator_busy_seconds_total", seconds)
            self._meter.observe("evaluation_seconds", seconds, {"status": status})

    def _generated(self, record: Mapping[str, Any]) -> None:
        assert self._meter is not None, "it was opened"
        ids = record["query_ids"]
        self._count("candidates_total", len(ids))
        self._count("redraws_total", sum(Draw(query_id, 0).attempt > 0 for query_id in ids))
        for reason, count in record["infeasible"].items():
            self._count("infeasible_total", count, reason=self._bounded("reason", reason))
        self._count("generator_busy_seconds_total", record["seconds"])
        self._meter.observe("generation_seconds", record["seconds"], {})

    def _whole_campaign(self, meter: Meter) -> None:
        """Sets what is so of all drivers together."""
        state = self._state
        limits = state.limits.now or self._job.config.budget.limits
        seconds = state.active_seconds
        if state.last_time is not None and state.stopped is None and not state.paused:
            seconds += max(0.0, time.time() - state.last_time)
        hours = limits.wall_hours
        gauges = {
            "spent_queries": float(state.spent),
            "budget_queries": float(limits.queries),
            "spent_cost": state.spending.ended,
            "budget_cost": limits.cost,
            "active_seconds": seconds,
            "last_answer_timestamp_seconds": self._last_answer,
            "budget_seconds": None if hours is None else hours * SECONDS_PER_HOUR,
        }
        for name, value in gauges.items():
            if value is not None:
                meter.set(name, value, {})

    def _count(self, name: str, amount: float, **label: str) -> None:
        """Counts; no metric has more than one label of its own."""
        if amount > 0:
            key, value = next(iter(label.items()), ("", ""))
            self._counts[name, key, value] += amount

    def _hand_over(self, meter: Meter) -> None:
        for (name, key, value), amount in self._counts.items():
            meter.add(name, float(amount), {key: value} if key else {})
        self._counts.clear()

    def _bounded(self, label: str, value: str) -> str:
        known = self._values.setdefault(label, set())
        if value not in known and len(known) >= MOST_VALUES:
            return "other"
        known.add(value)
        return value


__all__ = ["COMMON", "METRICS", "PREFIX", "SECONDS", "CampaignMetrics", "Meter", "Metric"]
