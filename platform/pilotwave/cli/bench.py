"""``pilotwave bench``: the papers' comparisons, resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pilotwave.cli.options import JsonOutput

if TYPE_CHECKING:
    from pilotwave.bench.comparison import Comparison

FAILED = 4
DEFAULT_METHODS = ("fast-direct", "random")


def bench(
    suite: Annotated[str, typer.Option(help="analytic, images, molecules or numerical.")],
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="A task of the suite; may be repeated. All by default.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="KIND[:KEY=VALUE,...]",
            help="A kind of algorithm, with settings if need be; LABEL=KIND:... names it in tables. May be "
            "repeated; the first is the one that others are compared with.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many: 0, 1, 2, ...")] = 5,
    queries: Annotated[int, typer.Option(min=1, help="Of every run.")] = 512,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Finished runs found here are kept. bench/SUITE by default."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs side by side, on Ray if more than one.")] = 1,
    address: Annotated[str, typer.Option(help="The Ray cluster: local, auto, or host:6379.")] = "local",
    device: Annotated[str, typer.Option(help="Of the models: cpu, cuda or auto.")] = "cpu",
    anew: Annotated[bool, typer.Option("--anew", help="Do finished runs again.")] = False,
    json_output: JsonOutput = False,
) -> int:
    """Compare algorithms on tasks, seed by seed; the same command goes on where it stopped.

    Example: pilotwave bench --suite analytic --method fast-direct --method random --task digits-hidden --seeds 3
    """
    from rich.console import Console

    from pilotwave.bench.comparison import Comparison, compare
    from pilotwave.bench.methods import parse_method
    from pilotwave.bench.spread import open_spread
    from pilotwave.bench.suites import load_suite
    from pilotwave.cli.bench_screen import BenchScreen

    chosen = load_suite(suite)
    comparison = Comparison(
        suite=chosen,
        tasks=tuple(chosen.find(name) for name in dict.fromkeys(tasks or [])) or chosen.tasks,
        methods=tuple(parse_method(text) for text in dict.fromkeys(methods or DEFAULT_METHODS)),
        seeds=tuple(range(seeds)),
        queries=queries,
        output=output or Path("bench") / suite,
        device=device,
        anew=anew,
    )
    console = Console(stderr=json_output)
    with BenchScreen(console, _title(comparison)) as screen:
        outcome = compare(comparison, open_spread(workers, address), screen.observe)
    if json_output:
        typer.echo(json.dumps({"output": str(comparison.output)}, indent=2))
    for request, message in outcome.failures:
        typer.echo(f"failed: {request.in_words()}: {message}", err=True)
    return FAILED if outcome.failures else 0


def _title(comparison: Comparison) -> str:
    counts = f"{len(comparison.tasks)} tasks x {len(comparison.methods)} methods x {len(comparison.seeds)} seeds"
    return f"{comparison.suite.name}: {counts}, {comparison.queries} queries each, into {comparison.output}"


__all__ = ["bench"]
