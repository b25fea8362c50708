"""How busy the Ray runtime keeps slow oracles, and what it costs itself: sleeping oracles, lognormal latency.

    python benchmarks/runtime.py [--record] [--seeds 3]

Every campaign is a real one: a local Ray cluster, an optimizer actor, a generator actor, a pool of evaluators, the
ledger on disk. The oracle sleeps (log-standard deviation 1) and answers; the model is a small analytic one and the
algorithm draws at random, so that neither is what is measured. Times are those that the ledger holds of every
attempt.

Utilisation: the share of the evaluators' time in which an oracle was at work, from the first question's beginning
to the last one's; after that no question is left, and the evaluators that end first have nothing to do.
Throughput: answers a second from the first question to the last answer, waiting for the slowest included.
Barrier: the same campaign with `runtime.mode: synchronous` and a batch as large as the pool.
Platform time: oracles that answer at once, so that all wall time, per query, is the platform's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from results import describe_machine, markdown_table, write_section

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.campaign import Campaign
from pilotwave.execution.job import Progress
from pilotwave.testing.sleeping_oracle import SleepingOracleConfig

HEADING = "## The runtime: busy oracles, cheap platform"
POOLS = (4, 16, 64)
BARRIER = 16
CONCURRENCY = 16
"""Questions at once in an evaluator actor, so that 64 evaluators are 4 actors and fit a small machine's memory."""


@dataclass(frozen=True)
class Measured:
    """What the ledger says of one campaign.

    Attributes:
        queries: Answered.
        utilisation: 0 to 1.
        utilisation_to_end: The same up to the last answer.
        throughput: Answers a second.
        per_query: Wall seconds per query.
    """

    queries: int
    utilisation: float
    utilisation_to_end: float
    throughput: float
    per_query: float


def campaign(evaluators: int, queries: int, median: float, seed: int, **changes: object) -> Campaign:
    """Returns a campaign whose only slow part is the oracle."""
    runtime = {
        "kind": "ray",
        "evaluators": evaluators,
        "evaluator_concurrency": min(CONCURRENCY, evaluators),
        "evaluator_resources": {"CPU": 0},
    }
    return Campaign.from_dict(
        {
            "name": "runtime",
            "backbone": {"kind": "analytic", "dim": 4, "steps": 1},
            "oracle": SleepingOracleConfig(median=median),
            "algorithm": {"kind": "random"},
            "budget": {"queries": queries, "batch_size": min(queries, max(16, evaluators))},
            "runtime": {**runtime, **changes},
            "seed": seed,
        }
    )


def attempts_of(run_dir: Path) -> list[tuple[float, float]]:
    """Returns when each attempt began and ended, seconds since the epoch, in order of their beginning."""
    times = []
    with Ledger.open(run_dir / "ledger.sqlite", read_only=True) as ledger:
        for event in ledger.events():
            if event.kind in (EventKind.SETTLED, EventKind.ATTEMPTED):
                timings = event.evaluation().timings
                if timings is not None:
                    times.append((timings.started, timings.finished))
    return sorted(times)


def measured(run_dir: Path, evaluators: int) -> Measured:
    """Sums a campaign up."""
    times = attempts_of(run_dir)
    begin, last_begin, end = times[0][0], times[-1][0], max(finish for _, finish in times)

    def share(until: float) -> float:
        used = sum(min(finish, until) - start for start, finish in times)
        return used / (evaluators * (until - begin))

    return Measured(
        len(times), share(last_begin), share(end), len(times) / (end - begin), (end - begin) / len(times)
    )


def run(what: str, pool: int, job: Campaign) -> tuple[Measured, list[tuple[int, float, float]]]:
    """Runs a campaign in a folder that is thrown away; returns what it measured and the memory along the way."""
    with tempfile.TemporaryDirectory(prefix="pilotwave-runtime-") as folder:
        watch = MemoryWatch()
        with watch:
            job.run(Path(folder) / "run", observe=watch.progress)
        found = measured(Path(folder) / "run", pool)
    print(f"{what}: {json.dumps(found.__dict__)}", file=sys.stderr, flush=True)
    return found, watch.seen


class MemoryWatch:
    """Looks every second how much memory the driver and the optimizer actor hold.

    Attributes:
        seen: (queries spent, MiB of the driver, MiB of the optimizer actor).
    """

    def __init__(self) -> None:
        self.seen: list[tuple[int, float, float]] = []
        self._spent = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def progress(self, progress: Progress) -> None:
        """Takes note of how far it is."""
        self._spent = progress.spent

    def _look(self) -> None:
        import psutil

        driver, optimizer = psutil.Process(), None
        while not self._done.wait(1.0):
            try:
                if optimizer is None or not optimizer.is_running():
                    optimizer = next(
                        (child for child in driver.children(recursive=True) if "Optimizer" in child.name()), None
                    )
                held = 0.0 if optimizer is None else optimizer.memory_info().rss / 2**20
                self.seen.append((self._spent, driver.memory_info().rss / 2**20, held))
            except psutil.Error:
                optimizer = None


def spread(values: list[float], form: str) -> str:
    """Returns the median with the least and the greatest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def utilisation(options: argparse.Namespace) -> tuple[list[list[str]], list[float]]:
    """Measures every pool, and the barrier at one of them; returns rows and ratios of throughput."""
    rows, ratios = [], []
    found: dict[object, list[Measured]] = {}
    for seed in range(options.seeds):
        for pool in POOLS:
            queries = options.per_evaluator * pool
            result, _ = run(f"{pool} evaluators, seed {seed}", pool, campaign(pool, queries, options.median, seed))
            found.setdefault(pool, []).append(result)
            if pool == BARRIER:
                job = campaign(pool, queries, options.median, seed, mode="synchronous")
                barrier, _ = run(f"barrier at {pool}, seed {seed}", pool, job)
                found.setdefault("barrier", []).append(barrier)
                ratios.append(result.throughput / barrier.throughput)
    for pool, results in found.items():
        name = f"{BARRIER}, synchronous barrier" if pool == "barrier" else str(pool)
        rows.append(
            [
                name,
                str(results[0].queries),
                spread([item.utilisation for item in results], ".1%"),
                spread([item.utilisation_to_end for item in results], ".1%"),
                spread([item.throughput for item in results], ".2f"),
            ]
        )
    return rows, ratios


def platform(options: argparse.Namespace) -> list[str]:
    """Measures what the platform takes by itself, and its memory; returns lines."""
    costs = []
    for seed in range(options.seeds):
        job = campaign(64, options.quick, 0.0, seed)
        costs.append(run(f"no latency, seed {seed}", 64, job)[0].per_query * 1000)
    long, memory = run("memory", 64, campaign(64, options.many, 0.0, 0))
    marks = [options.many * k // 5 for k in range(1, 6)]
    held = [next((seen for seen in memory if seen[0] >= 0.98 * mark), memory[-1]) for mark in marks]
    first, last = held[0], held[-1]
    return [
        f"- platform time at 64 evaluators: {spread(costs, '.2f')} ms a query over {options.quick:,} queries; "
        f"{long.per_query * 1000:.2f} ms over {options.many:,} (one run; aim: at most 5)",
        f"- memory of the driver over {options.many:,} queries, MiB at "
        + ", ".join(f"{spent:,}: {driver:.0f}" for spent, driver, _ in held)
        + f" ({1024 * (last[1] - first[1]) / max(1, last[0] - first[0]):+.2f} KiB a query)",
        "- memory of the optimizer actor, MiB at "
        + ", ".join(f"{spent:,}: {optimizer:.0f}" for spent, _, optimizer in held)
        + f" ({1024 * (last[2] - first[2]) / max(1, last[0] - first[0]):+.2f} KiB a query)",
    ]


def main() -> None:
    """Measures, prints, and writes the section if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-evaluator", type=int, default=50, help="queries for each evaluator")
    parser.add_argument("--median", type=float, default=0.6, help="seconds; the mean is 1.65 times that")
    parser.add_argument("--quick", type=int, default=4000, help="queries without latency")
    parser.add_argument("--many", type=int, default=20_000, help="queries of the memory run")
    parser.add_argument("--record", action="store_true", help="write the section of RESULTS.md")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began = time.time()
    lines = platform(options)
    rows, ratios = utilisation(options)
    head = ["evaluators", "queries", "utilisation", "up to the last answer", "answers a second"]
    body = (
        f"`python benchmarks/runtime.py --record --seeds {options.seeds} --per-evaluator {options.per_evaluator} "
        f"--median {options.median:g} --quick {options.quick} --many {options.many}`: sleeping oracles, lognormal, "
        f"median {options.median:g} s, log-standard deviation 1; medians (least to greatest) of {options.seeds} "
        f"seeds; {(time.time() - began) / 60:.0f} minutes in all. What each word means is said in the file.\n\n"
        f"{describe_machine(2)}\n\n{markdown_table(head, rows)}\n\n"
        f"- throughput at {BARRIER} over the barrier: {spread(ratios, '.2f')}x (aim: at least 1.7)\n"
        + "\n".join(lines)
    )
    print(body)
    if options.record:
        write_section(HEADING, body)


if __name__ == "__main__":
    main()
