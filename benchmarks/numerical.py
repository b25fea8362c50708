"""CASBO and CMA-ES on cumulative numerical problems with unknown transitions: average regret and its slope.

    python benchmarks/numerical.py [--record]

Problems are those of pilotwave.bench.numerical, one instance a seed. The slope is that of log average regret on log
rounds over the last nine tenths of the rounds; a regret of 1/sqrt(T) has -0.5. Intervals are 95% over seeds
(Student's t).
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time
from collections.abc import Callable

import numpy.typing as npt
import torch
from results import describe_machine, markdown_table, write_section

from pilotwave.bench.numerical import COSTS, cma_regret_curve, numerical_problem, regret_curve, slope

HEADING = "## Numerical problems"
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""The 97.5% quantile by number of seeds."""

Curve = Callable[..., npt.NDArray]


def methods(dim: int) -> dict[str, Curve]:
    """What is compared, by name."""
    return {
        "CASBO, gamma 1/128": functools.partial(regret_curve, covariance="adaptive"),
        "CASBO, gamma 1/sqrt(d)": functools.partial(
            regret_curve, covariance="adaptive", gamma=1.0 / math.sqrt(dim)
        ),
        "CASBO, fixed covariance": functools.partial(regret_curve, covariance="fixed"),
        "CMA-ES (pycma)": cma_regret_curve,
    }


def interval(values: list[float], digits: int = 2) -> str:
    """Mean and 95% interval, as text."""
    mean = statistics.mean(values)
    half = STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.{digits}f} ({mean - half:.{digits}f} to {mean + half:.{digits}f})"


def scientific(value: float, least: float = 1e-9) -> str:
    """A share as text; below ``least`` the difference of two running means says nothing."""
    return f"{value:.1e}" if value >= least else f"under {least:.0e}"


def measure(options: argparse.Namespace) -> tuple[list[list[str]], dict[tuple[str, str], list[float]]]:
    """Runs everything: rows of the table, and the slopes by problem and method."""
    rows, slopes = [], {}
    for name, (_, convex) in COSTS.items():
        for method, run in methods(options.dim).items():
            curves = []
            for seed in range(options.seeds):
                problem = numerical_problem(name, seed, options.steps, options.dim)
                curves.append(run(problem, rounds=options.rounds, batch=options.batch, seed=seed))
            slopes[name, method] = [slope(curve, options.rounds // 10) for curve in curves]
            shares = [float(curve[-1] / curve[0]) for curve in curves]
            # The last tenth's own regret, from the two running means around it.
            start = options.rounds - options.rounds // 10
            lasts = [
                float((curve[-1] * options.rounds - curve[start - 1] * start) / (options.rounds - start) / curve[0])
                for curve in curves
            ]
            label = name if convex else f"{name} (not convex)"
            figures = [interval(slopes[name, method]), interval(shares, 3), scientific(statistics.mean(lasts))]
            rows.append([label, method, *figures])
            print(rows[-1], flush=True)
    return rows, slopes


def verdict(slopes: dict[tuple[str, str], list[float]]) -> str:
    """Says what was expected and whether it held."""
    lines = []
    for name, (_, convex) in COSTS.items():
        if convex:
            found = statistics.mean(slopes[name, "CASBO, gamma 1/128"])
            held = "met" if found <= -0.5 else "NOT met"
            lines.append(f"- {name}: average regret falls at least as 1/sqrt(T): slope {found:.2f}, {held}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1200, help="T (default 1200)")
    parser.add_argument("--batch", type=int, default=32, help="samples a round (default 32)")
    parser.add_argument("--steps", type=int, default=5, help="K (default 5)")
    parser.add_argument("--dim", type=int, default=8, help="numbers a step (default 8)")
    parser.add_argument("--seeds", type=int, default=5, choices=sorted(STUDENT), help="seeds (default 5)")
    parser.add_argument("--record", action="store_true", help="write the section in benchmarks/RESULTS.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    rows, slopes = measure(options)
    body = "\n\n".join(
        [
            f"`python benchmarks/numerical.py --record`: K = {options.steps} steps of {options.dim} numbers, "
            f"{options.batch} samples a round, T = {options.rounds:,} rounds, {options.seeds} seeds (each another "
            f"instance); beta = 1, full matrices. {time.process_time() - started:.0f} CPU seconds.",
            describe_machine(1),
            "The slope is that of log average regret on log rounds over the last nine tenths of the rounds. The "
            "share left is average regret after T rounds over that of the first; the last column is the regret of "
            "the last tenth of the rounds over that of the first. In brackets 95% over seeds (Student's t).",
            markdown_table(["problem", "method", "slope", "share left", "last tenth"], rows),
            "CASBO learns from the costs of all steps, CMA-ES from their mean. With a constant gamma precision "
            "grows by a factor of about 1 + gamma a round: the larger gamma is quick at first and stops before it "
            "has arrived. The slopes are those of these rounds and no asymptotic rates: with gamma 1/128 they grow "
            "steeper with T at first, and whether that mean stops too in a longer run was not measured.",
            verdict(slopes),
        ]
    )
    print(f"{HEADING}\n\n{body}")
    if options.record:
        write_section(HEADING, body)


if __name__ == "__main__":
    main()
