"""When to propose: by measured rates, against a queue of one candidate for every evaluator.

    python benchmarks/ready_queue.py [--record]

Campaigns on a virtual clock: the loop, its ledger and a small analytic model are real, the oracle and the model are
numbers of seconds. Waiting: the share of the evaluators' time between the first and the last question in which they
had none, for whatever reason (in the last case it is the rate limit). Stale: how many answers came, on average,
between proposing a candidate and asking about it; within a batch of n that is (n - 1) / 2 where one answer comes at
a time. Queue: most candidates that were ready or being made. The same numbers come out on every machine.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from results import markdown_table, write_section

from pilotwave.archive.run_directory import RunDirectory
from pilotwave.execution.coordinator import Coordinator
from pilotwave.execution.generating import Generating
from pilotwave.execution.job import CampaignJob
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.queue_measures import QueueMeasures, measure_queue
from pilotwave.testing.small_campaign import campaign
from pilotwave.testing.virtual_workers import Attempt, VirtualWorkers

HEADING = "## When to propose"
BEGIN = 1_000_000.0


@dataclass(frozen=True)
class Case:
    """A campaign.

    Attributes:
        name: In the table.
        oracle_seconds: Mean.
        spread: Sigma of its lognormal, 0 for a constant.
        model_seconds: Per proposal, give or take a fifth.
        evaluators: Side by side.
        generators: Likewise.
        batch: Candidates of a proposal.
        per_minute: Rate limit.
    """

    name: str
    oracle_seconds: float
    spread: float
    model_seconds: float
    evaluators: int = 16
    generators: int = 1
    batch: int = 16
    per_minute: float | None = None


CASES = (
    Case("slow oracle", 600.0, 1.0, 2.0),
    Case("slow oracle, always 10 minutes", 600.0, 0.0, 2.0),
    Case("slow oracle, 4 evaluators", 600.0, 1.0, 2.0, evaluators=4),
    Case("model half as slow as the oracle", 10.0, 1.0, 5.0),
    Case("one evaluator", 10.0, 0.5, 2.0, evaluators=1, batch=4),
    Case("fast oracle, large batches", 0.5, 0.5, 4.0, evaluators=8, batch=100),
    Case("slow model, 4 copies", 1.0, 0.5, 6.0, evaluators=8, generators=4),
    Case("6 questions a minute", 1.0, 0.5, 2.0, per_minute=6.0),
)


class OneForEvery(Generating):
    """Proposes when there is no more than one candidate ready for every evaluator, a proposal at a time."""

    def _would_run_dry(self) -> bool:
        return not self._making and len(self._asking.ready) <= self._workers.evaluators


def run(case: Case, rule: type[Generating], queries: int, folder: Path) -> QueueMeasures:
    """Runs a case under a rule."""
    random = np.random.default_rng(0)

    def oracle(request: object) -> Attempt:
        return Attempt(case.oracle_seconds * float(np.exp(case.spread * random.normal() - case.spread**2 / 2)))

    chosen = campaign(
        FaultyOracleConfig(calls_per_minute=case.per_minute, time_limit=1e9),
        {"kind": "inline", "evaluators": case.evaluators, "generators": case.generators},
        queries=queries,
        batch_size=case.batch,
        algorithm={"kind": "random"},
    ).config
    directory = RunDirectory(folder)
    directory.create(chosen)
    workers = VirtualWorkers(
        chosen, oracle, lambda request: case.model_seconds * float(random.uniform(0.8, 1.2)), BEGIN
    )
    job = CampaignJob(chosen, directory.path, BEGIN)
    with mock.patch("pilotwave.execution.coordinator.Generating", rule):
        Coordinator(job, workers, lambda progress: None, threading.Event(), workers.clock).run()
    return measure_queue(folder, case.evaluators)


def measure(queries: int, tell: Callable[[str], None]) -> list[list[str]]:
    """Runs everything; returns the rows of the table."""
    rows = []
    for case in CASES:
        row = [case.name]
        with tempfile.TemporaryDirectory() as folder:
            found = [run(case, rule, queries, Path(folder) / rule.__name__) for rule in (OneForEvery, Generating)]
        for read in (
            lambda one: f"{one.idle_share:.1%}",
            lambda one: f"{one.staleness:.1f}",
            lambda one: f"{one.longest}",
            lambda one: f"{one.per_minute:.4g}",
        ):
            row += [read(one) for one in found]
        tell(" | ".join(row))
        rows.append(row)
    return rows


def main() -> None:
    """Measures, prints, and writes the section if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--record", action="store_true", help="write the section of RESULTS.md")
    options = parser.parse_args()
    head = [
        "case",
        *(f"{word}, {rule}" for word in ("waiting", "stale", "queue", "a minute") for rule in ("was", "is")),
    ]
    table = markdown_table(head, measure(options.queries, print))
    body = (
        f"`python benchmarks/ready_queue.py --record --queries {options.queries}`, on a virtual clock. Was: "
        "propose when at most one candidate is ready for every evaluator and none is being made. Is: by measured "
        "rates.\n\n"
        f"{table}"
    )
    print(body)
    if options.record:
        write_section(HEADING, body)


if __name__ == "__main__":
    main()
