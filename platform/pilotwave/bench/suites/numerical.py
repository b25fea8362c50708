"""The cumulative numerical problems: average regret of CASBO's update, adaptive and fixed, and of CMA-ES.

There is no model here and no batch of samples to judge, so this suite has no tasks of the common kind; its problems
and regrets are those of :mod:`pilotwave.bench.numerical`. May import numpy and pilotwave.bench.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pilotwave.bench.methods import digest
from pilotwave.bench.numerical import (
    COSTS,
    CumulativeProblem,
    cma_regret_curve,
    numerical_problem,
    regret_curve,
    slope,
)
from pilotwave.bench.statistics import Floats, mean_estimate
from pilotwave.bench.task import Suite
from pilotwave.config.registry import suggestion
from pilotwave.errors import InputError, MissingDependencyError
from pilotwave.report.comparison_plots import Line, Panel, draw_comparison
from pilotwave.storage import write_atomically

BATCH = 32
QUERIES = 32_000
"""1,000 rounds: a slope needs a long curve."""
Regret = Callable[[CumulativeProblem, int, int], Floats]
METHODS: dict[str, Regret] = {
    "casbo": lambda problem, rounds, seed: regret_curve(problem, "adaptive", rounds, BATCH, seed),
    "casbo-fixed": lambda problem, rounds, seed: regret_curve(problem, "fixed", rounds, BATCH, seed),
    "cma-es": lambda problem, rounds, seed: cma_regret_curve(problem, rounds, BATCH, seed),
}

SUITE = Suite("numerical", (), ())


def compare_regrets(
    names: Sequence[str],
    methods: Sequence[str],
    seeds: int,
    queries: int,
    output: Path,
    tell: Callable[[str], None],
) -> dict[str, Path]:
    """Measures what is not measured yet, and writes the table, the figures and the curves.

    Args:
        names: Problems; all if empty.
        methods: Of :data:`METHODS`; all if empty.
        seeds: How many; a seed is a problem (transitions, optima) and a run on it.
        queries: Of every run, in rounds of 32.
        output: Curves found here are kept.
        tell: Gets a line now and then.

    Returns:
        The files by what they are.

    Raises:
        InputError: There is no such problem or method, or there are too few queries for a slope.
        StorageError: A file could not be written.
    """
    for given, known, option in ((names, COSTS, "--task"), (methods, METHODS, "--method")):
        for name in given:
            if name not in known:
                expected = f"expected one of {', '.join(known)}"
                raise InputError(f"{option}: {expected}, got {name!r}{suggestion(name, known)}")
    rounds = queries // BATCH
    if rounds < 20:
        raise InputError(f"--queries: expected {20 * BATCH} or more, or there is no slope to tell; got {queries}")
    table: dict[str, dict[str, Floats]] = {}
    for name in names or COSTS:
        for method in methods or METHODS:
            curves = [_curve(name, method, seed, rounds, output, tell) for seed in range(seeds)]
            table.setdefault(name, {})[method] = np.stack(curves)
    return _write(table, rounds, output)


def _curve(name: str, method: str, seed: int, rounds: int, output: Path, tell: Callable[[str], None]) -> Floats:
    key = digest([name, method, seed, rounds, BATCH])
    path = output / "runs" / "numerical" / name / method / f"seed-{seed:04d}-{key}.json"
    try:
        return np.array(json.loads(path.read_text())["regret"], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    tell(f"{name}, {method}, seed {seed}")
    curve = METHODS[method](numerical_problem(name, seed), rounds, seed)
    write_atomically(path, json.dumps({"regret": curve.tolist()}).encode())
    return curve


def _write(table: dict[str, dict[str, Floats]], rounds: int, output: Path) -> dict[str, Path]:
    figures = {
        name: {
            method: {
                "slope": _figures([slope(curve, max(1, rounds // 10)) for curve in curves]),
                "regret": _figures(curves[:, -1].tolist()),
            }
            for method, curves in row.items()
        }
        for name, row in table.items()
    }
    lines = [
        "Average regret after the last round, and the slope of its logarithm on that of the rounds, over the last "
        "nine tenths of the rounds: -0.5 is 1/sqrt(T). Means over seeds with 95% bootstrap intervals.",
        "",
        "| problem | method | regret | slope |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in figures.items():
        lines += [
            f"| {name} | `{each}` | {_said(found['regret'])} | {_said(found['slope'])} |"
            for each, found in row.items()
        ]
    files = {"table": output / "results.md", "figures": output / "results.json"}
    write_atomically(files["table"], ("\n".join(lines) + "\n").encode())
    write_atomically(files["figures"], json.dumps({"rounds": rounds, "problems": figures}, indent=1).encode())
    places = np.arange(1, rounds + 1, dtype=np.float64)
    panels = [
        Panel(name, tuple(Line(method, places, np.log10(curves)) for method, curves in row.items()))
        for name, row in table.items()
    ]
    try:
        png = draw_comparison(panels, "rounds", "log10 of the average regret", logarithmic=True)
    except MissingDependencyError:
        return files
    files["curves"] = output / "curves.png"
    write_atomically(files["curves"], png)
    return files


def _figures(values: Sequence[float]) -> dict[str, float]:
    estimate = mean_estimate(np.array(values, dtype=np.float64))
    low, high = estimate.interval
    return {"mean": estimate.value, "low": low, "high": high}


def _said(found: dict[str, float]) -> str:
    return f"{found['mean']:.3g} ({found['low']:.3g} to {found['high']:.3g})"


__all__ = ["METHODS", "QUERIES", "SUITE", "compare_regrets"]
