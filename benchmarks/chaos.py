"""A 500-query campaign under 100 kills: what was lost, what was asked twice, how often it had to be resumed.

    python benchmarks/chaos.py FOLDER [--record]

One campaign in three legs: on its driver's own Ray cluster; on a cluster of two nodes with the driver on one of
them; through Ray Client with the optimizer on the node that is struck. The nodes are real Ray nodes in network
namespaces of their own (Linux, as root; otherwise there are no partitions and other kills take their place).
Victims and moments are drawn at random from the seed. What happens is kept in FOLDER; the same command goes on
there if it was stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from results import describe_machine, markdown_table, write_section

from pilotwave.testing.chaos import Chaos, Leg, Report
from pilotwave.testing.chaos_places import OnTwoNodes, PrivateCluster
from pilotwave.testing.two_networks import TwoNetworks, why_no_networks
from pilotwave.testing.two_nodes import TwoNodeCluster

HEADING = "## A campaign under 100 kills"
QUERIES = 500
PATIENCE = 600.0
"""Seconds without an answer after which it is given up."""
CPUS = 3
"""Of each node: neither has room for four evaluators and a generator."""
PRIVATE = {"evaluator": 7, "generator": 7, "optimizer": 7, "oracle": 7, "raylet": 7, "driver": 7}
NODES = {"evaluator": 4, "generator": 4, "optimizer": 4, "raylet": 4, "node": 6, "partition": 5, "driver": 5}
CLIENT = {"evaluator": 3, "generator": 3, "optimizer": 4, "raylet": 4, "node": 4, "partition": 4, "driver": 4}
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
    reason = why_no_networks()
    with clusters(parted=not reason) as (private, cluster, networks):
        legs = [
            Leg(private, 170, PRIVATE),
            Leg(OnTwoNodes(cluster, "node", networks), 340, without_partitions(NODES, reason)),
            Leg(OnTwoNodes(cluster, "client", networks), QUERIES, without_partitions(CLIENT, reason)),
        ]
        chaos = Chaos(options.folder.resolve(), legs, seed=options.seed, say=say, patience=PATIENCE)
        report = chaos.run()
    body = describe(report, options.seed, reason)
    print(body)
    if options.record:
        write_section(HEADING, body)
    sys.exit(bool(report.verdict.broken))


@contextlib.contextmanager
def clusters(*, parted: bool) -> Iterator[tuple[PrivateCluster, TwoNodeCluster, TwoNetworks | None]]:
    """Starts what the legs run on, and ends it."""
    private = PrivateCluster()
    with TwoNetworks() if parted else contextlib.nullcontext() as networks:
        cluster = TwoNodeCluster(CPUS, networks)
        try:
            cluster.start()
            yield private, cluster, networks
        finally:
            private.end()
            cluster.stop()


def without_partitions(kills: dict[str, int], reason: str) -> dict[str, int]:
    """Kills nodes where they cannot be parted."""
    counted = Counter(kills)
    if reason:
        counted["node"] += counted.pop("partition", 0)
    return dict(counted)


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
        f"ledger. The driver was left dead {report.needed} times and resumed {report.resumes} times. Wall time "
        f"{report.seconds / 60:.0f} min; the longest time without an answer {report.standstill:.0f} s.\n\n"
        "Promises broken (a settled answer lost or changed, a query charged twice, a call without a reservation, "
        f"an evaluation repeated without a kill that explains it, a process left):\n\n{broken}"
    )


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
