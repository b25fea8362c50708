"""What trust-direct loses when answers come one at a time, in any order, with a batch always in flight.

    python benchmarks/asynchronous.py [--record]

On the plain tasks of the analytic suite. Synchronous: a batch of 32 is proposed when all answers of the last one
are told. Asynchronous: 32 samples are in flight; one of them, at random, is answered, told, and replaced by one
newly proposed. Levels are those of ``pilotwave bench``: of a batch, or of every 32 samples in the order in which
they were proposed. The delay is how many queries later the asynchronous curve has the synchronous one's level, 0 if
it has it sooner, both straight between marks of 32 queries.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import numpy as np
import torch
from results import describe_machine, markdown_table, write_section

from pilotwave.algorithms.trust_direct import TrustDirectConfig
from pilotwave.bench.loop import Reference
from pilotwave.bench.methods import Method
from pilotwave.bench.run import RunRequest, closing, execute, measure_unguided
from pilotwave.bench.statistics import Floats, first_reach
from pilotwave.bench.suites import load_suite
from pilotwave.bench.task import Task
from pilotwave.config.components import AlgorithmSetting
from pilotwave.execution.generation import generate_candidates
from pilotwave.execution.workers import GenerationRequest
from pilotwave.types import Candidate, Observation, Status

HEADING = "## trust-direct with one answer at a time"
BATCH = 32
MARKS = (96, 192)


def synchronous_levels(task: Task, reference: Reference, seed: int, queries: int) -> list[float]:
    """Levels of the batches."""
    request = RunRequest(
        task.suite, task.name, Method("trust-direct", {}, "ours"), seed, queries, reference=reference
    )
    return [(batch["mean"] - reference.mean) / reference.spread for batch in execute(request)["batches"]]


def asynchronous_levels(task: Task, reference: Reference, seed: int, queries: int) -> list[float]:
    """Levels of every 32 samples as they were proposed."""
    backbone = task.backbone("cpu")
    setting = AlgorithmSetting(
        tuple(backbone.latent_shape), backbone.steps, backbone.media, BATCH, seed,
        backbone.conditions_are_free, backbone.invariants,
    )  # fmt: skip
    algorithm = TrustDirectConfig(kind="trust-direct").build(setting)
    random = np.random.default_rng(seed)
    losses: list[float] = []
    flying: list[tuple[Candidate, float]] = []
    with closing(task.objective()) as objective:
        while len(losses) < queries:
            if len(flying) == BATCH:
                candidate, loss = flying.pop(int(random.integers(BATCH)))
                algorithm.tell([Observation(candidate, Status.OK, loss)])
            request = GenerationRequest(algorithm.ask(1), seed, 8, frozenset())
            (candidate,) = generate_candidates(backbone, (), request).candidates
            (loss,) = objective.judge([candidate.sample], candidate.latent[None], candidate.condition[None])
            losses.append(loss)
            flying.append((candidate, loss))
    means = np.array(losses).reshape(-1, BATCH).mean(axis=1)
    return [float((mean - reference.mean) / reference.spread) for mean in means]


def delay(synchronous: Floats, asynchronous: Floats, mark: int) -> float:
    """How many queries later the asynchronous curve has the synchronous one's level at a mark."""
    queries = BATCH * np.arange(1.0, len(synchronous) + 1)
    level = np.interp(mark, queries, synchronous)
    return max(0.0, float(first_reach(queries, asynchronous[None], np.array([level]))[0]) - mark)


def measure(options: argparse.Namespace) -> list[list[str]]:
    """Runs everything; returns the rows of the table."""
    rows = []
    for task in load_suite("analytic").tasks:
        if task.noise or task.failures:
            continue
        reference = measure_unguided(task)
        curves = {"synchronous": [], "asynchronous": []}
        for seed in range(options.seeds):
            curves["synchronous"].append(synchronous_levels(task, reference, seed, options.queries))
            curves["asynchronous"].append(asynchronous_levels(task, reference, seed, options.queries))
            print(f"{task.name}, seed {seed}: {curves['asynchronous'][-1][-1]:+.2f}", file=sys.stderr, flush=True)
        means = {kind: np.array(lines).mean(axis=0) for kind, lines in curves.items()}
        row = [f"`{task.name}`"]
        for mark in MARKS:
            for lines in curves.values():
                at_mark = [line[mark // BATCH - 1] for line in lines]
                row.append(f"{statistics.mean(at_mark):+.2f} ({min(at_mark):+.2f} to {max(at_mark):+.2f})")
        row += [f"{delay(means['synchronous'], means['asynchronous'], mark):.0f}" for mark in MARKS]
        rows.append(row)
    return rows


def main() -> None:
    """Measures, prints, and writes the section if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=256, help="a multiple of 32, above 192")
    parser.add_argument("--record", action="store_true", help="write the section of RESULTS.md")
    options = parser.parse_args()
    if options.queries % BATCH or options.queries <= max(MARKS):
        parser.error(f"--queries: expected a multiple of {BATCH} above {max(MARKS)}, got {options.queries}")
    torch.set_num_threads(1)
    head = ["task", *(f"{kind} {mark}" for mark in MARKS for kind in ("synchronous", "asynchronous"))]
    table = markdown_table([*head, *(f"delay at {mark}" for mark in MARKS)], measure(options))
    body = (
        f"`python benchmarks/asynchronous.py --record --seeds {options.seeds} --queries {options.queries}`: 32 "
        "samples in flight, answered one at a time in random order. Levels (mean, least and greatest over "
        f"{options.seeds} seeds) in standard deviations of unguided losses, lower is better; delays in queries, "
        f"inf where the level was not reached.\n\n{describe_machine(1)}\n\n{table}"
    )
    print(body)
    if options.record:
        write_section(HEADING, body)


if __name__ == "__main__":
    main()
