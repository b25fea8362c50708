"""A 500-query campaign under 100 kills: what was lost, what was asked twice, how often it had to be resumed.

    python benchmarks/chaos.py FOLDER [--record]

One campaign in three legs, see :mod:`pilotwave.testing.chaos_suite`: on its driver's own Ray cluster; on two nodes
with the driver on one of them; through Ray Client with the optimizer on the node that is struck. Victims and
moments are drawn at random from the seed. What happens is kept in FOLDER; the same command goes on there if it was
stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from results import describe_machine, markdown_table, write_section

from pilotwave.testing.chaos import Chaos, Report
from pilotwave.testing.chaos_suite import grounds

HEADING = "## A campaign under 100 kills"
PATIENCE = 600.0
"""Seconds without an answer after which it is given up."""
WORDS = {
    "evaluator": "evaluator",
    "generator": "generator",
    "optimizer": "optimizer",
    "oracle": "the oracle's process",
    "raylet": "raylet",
    "node": "a node, all at once",
    "partition": "partition of 30 s",
    "driver": "driver",
}


def main() -> None:
    """Runs, prints, and writes the section if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="write the section of RESULTS.md")
    options = parser.parse_args()
    with grounds() as where:
        folder = options.folder.resolve()
        chaos = Chaos(folder, where.hundred_kills(), seed=options.seed, say=say, patience=PATIENCE)
        report = chaos.run()
    body = describe(report, options.seed, where.why_not)
    print(body)
    if options.record:
        write_section(HEADING, body)
    sys.exit(bool(report.verdict.broken))


def describe(report: Report, seed: int, reason: str) -> str:
    """Returns the section."""
    verdict = report.verdict
    rows = [
        [
            WORDS[kind],
            str(count),
            str(sum(kill.ends_optimizer for kill in report.kills if kill.kind == kind)),
            str(verdict.in_flight[kind]),
            str(verdict.repeated[kind]),
        ]
        for kind, count in sorted(verdict.kills.items(), key=lambda item: list(WORDS).index(item[0]))
    ]
    total = verdict.kills.total(), sum(kill.ends_optimizer for kill in report.kills)
    rows.append(["all", *map(str, total), str(verdict.in_flight.total()), str(verdict.repeated.total())])
    table = markdown_table(["killed", "times", "the optimizer with it", "in flight then", "asked again"], rows)
    broken = "".join(f"- {line}\n" for line in verdict.broken) or "None.\n"
    places = Counter(kill.place for kill in report.kills)
    return (
        f"`python benchmarks/chaos.py FOLDER --record --seed {seed}`: one campaign of {verdict.spent} queries, 4 "
        f"evaluators, {' and '.join(f'{count} kills on: {place}' for place, count in places.items())}. "
        f"{reason or 'The two nodes are in network namespaces of their own.'}\n\n{describe_machine(2)}\n\n"
        f"{table}\n\n"
        f"{verdict.calls} calls of the oracle for {verdict.spent} queries and {verdict.attempts} attempts in the "
        f"ledger. The campaign was left without a driver {report.needed} times, {report.ends} of them by a kill of "
        f"something else, and resumed {report.resumes} times. Wall time "
        f"{report.seconds / 60:.0f} min; the longest time without an answer {report.standstill:.0f} s.\n\n"
        "Promises broken (a settled answer lost or changed, a query charged twice, a call without a reservation, "
        f"an evaluation repeated without a kill that explains it, a process left):\n\n{broken}"
    )


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
