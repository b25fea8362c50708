"""``pilotwave bench``: the papers' comparisons, resumable."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotwave.cli.options import JsonOutput, prints_aside

if TYPE_CHECKING:
    from rich.console import Console

    from pilotwave.bench.comparison import Comparison, Outcome
    from pilotwave.bench.methods import Method
    from pilotwave.bench.task import Suite, Task

FAILED = 4
FIRST = "fast-direct"
"""The reference if no method is named."""
QUERIES, TUNING_QUERIES = 512, 256
SEEDS, TUNING_SEEDS = 5, 2
TABLE_WIDTH = 130
"""At least; a narrower terminal wraps the lines rather than losing figures."""
METHOD_WIDTH = 30
"""Longer names are folded, so that the figures keep their room."""


def bench(
    suite: Annotated[str, typer.Option(help="analytic, archive, images, molecules or numerical.")],
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", help="A task (of archive: a part) of the suite; may be repeated. All by default."),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="KIND[:KEY=VALUE,...]",
            help="A kind of algorithm, with settings if need be; LABEL=KIND:... names it in tables. May be "
            "repeated; the first is the one that others are compared with. All kinds by default.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many: 0, 1, ... [default: 5; 2 to tune]")] = None,
    queries: Annotated[
        int | None, typer.Option(min=1, help="Of every run. [default: 512; 256 to tune; 32000 for numerical]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Finished runs found here are kept. bench/SUITE by default."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs side by side, on Ray if more than one.")] = 1,
    address: Annotated[str, typer.Option(help="The Ray cluster: local, auto, or host:6379.")] = "local",
    device: Annotated[str, typer.Option(help="Of the models: cpu, cuda or auto.")] = "cpu",
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose each method's settings on held-out tasks, for later comparisons.")
    ] = False,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="What --tune writes and comparisons read. The package's own file of the suite by default."
        ),
    ] = None,
    untuned: Annotated[bool, typer.Option("--untuned", help="Compare methods with their defaults.")] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Do finished runs again.")] = False,
    json_output: JsonOutput = False,
) -> int:
    """Compare algorithms on tasks, seed by seed; the same command goes on where it stopped.

    Example: pilotwave bench --suite analytic --method fast-direct --method random --task digits-hidden --seeds 3
    """
    from rich.console import Console

    from pilotwave.bench.suites import load_suite
    from pilotwave.bench.tuning import CHOSEN
    from pilotwave.errors import InputError

    chosen = load_suite(suite)
    folder = output or Path("bench") / suite
    console = Console(stderr=json_output)
    if suite == "numerical":
        return _numerical(console, tasks or [], methods or [], seeds or SEEDS, queries, folder, json_output)
    if suite == "archive":
        if methods or queries or tune:
            raise InputError("--suite archive: it has no --method, --queries or --tune; choose parts with --task")
        return _archive(console, tasks or [], seeds, folder, anew, json_output)
    path = settings or CHOSEN / f"{suite}.json"
    shared: dict[str, Any] = {"suite": chosen, "device": device, "anew": anew}
    if tune:
        comparison = _tuning(
            chosen, tasks, methods, seeds or TUNING_SEEDS, queries or TUNING_QUERIES, folder, shared
        )
    else:
        comparison = _comparing(
            console, tasks, methods, seeds or SEEDS, queries or QUERIES, folder, None if untuned else path, shared
        )
    with prints_aside(json_output):
        outcome = _run(console, comparison, workers, address)
    if tune:
        _choose(console, comparison, outcome, path, json_output)
    elif outcome.records:
        _report(console, comparison, outcome, json_output)
    return FAILED if outcome.failures else 0


def _comparing(
    console: Console,
    tasks: Sequence[str] | None,
    methods: Sequence[str] | None,
    seeds: int,
    queries: int,
    output: Path,
    path: Path | None,
    shared: dict[str, Any],
) -> Comparison:
    """Returns the comparison of tasks, with the settings that were chosen for them."""
    from pilotwave.bench.comparison import Comparison
    from pilotwave.bench.methods import parse_method
    from pilotwave.bench.tuning import read_chosen

    suite: Suite = shared["suite"]
    named = list(dict.fromkeys(methods or _kinds(suite)))
    found = None if path is None else read_chosen(path)
    if found is None and path is not None:
        console.print(
            f"note: methods have their defaults: nothing was tuned for suite {suite.name} (--tune does it)"
        )
    return Comparison(
        tasks=_tasks(suite, tasks) or suite.tasks,
        methods=tuple(parse_method(text) for text in named),
        seeds=tuple(range(seeds)),
        queries=queries,
        output=output,
        chosen=found,
        **shared,
    )


def _tuning(
    suite: Suite,
    tasks: Sequence[str] | None,
    methods: Sequence[str] | None,
    seeds: int,
    queries: int,
    output: Path,
    shared: dict[str, Any],
) -> Comparison:
    """Returns the comparison of settings on held-out tasks, with seeds of their own."""
    from pilotwave.bench.comparison import Comparison
    from pilotwave.bench.tuning import SEED, candidates, read_grids
    from pilotwave.errors import InputError

    grids = read_grids()
    found: list[Method] = []
    for kind in methods or _kinds(suite):
        found += candidates(kind, suite.name, grids)
    held_out = _tasks(suite, tasks) or suite.held_out
    compared = [task.name for task in held_out if task not in suite.held_out]
    if compared:
        names = ", ".join(task.name for task in suite.held_out)
        raise InputError(f"--task: settings are chosen on held-out tasks ({names}), not on {compared[0]}")
    if not found:
        raise InputError("--method: none of these methods has settings to choose")
    return Comparison(
        tasks=held_out,
        methods=tuple(found),
        seeds=tuple(range(SEED, SEED + seeds)),
        queries=queries,
        output=output / "tuning",
        **shared,
    )


def _kinds(suite: Suite) -> list[str]:
    """All installed kinds that can work with a suite's models, the usual reference first."""
    from pilotwave.config import registry

    kinds = [kind for kind in registry.choices("algorithm") if kind not in suite.unsuitable]
    return sorted(kinds, key=lambda kind: (kind != FIRST, kind))


def _tasks(suite: Suite, names: Sequence[str] | None) -> tuple[Task, ...]:
    return tuple(suite.find(name) for name in dict.fromkeys(names or []))


def _run(console: Console, comparison: Comparison, workers: int, address: str) -> Outcome:
    from pilotwave.bench.comparison import compare
    from pilotwave.bench.spread import open_spread
    from pilotwave.cli.bench_screen import BenchScreen

    counts = f"{len(comparison.tasks)} tasks x {len(comparison.methods)} methods x {len(comparison.seeds)} seeds"
    title = f"{comparison.suite.name}: {counts}, {comparison.queries} queries each, into {comparison.output}"
    with BenchScreen(console, title) as screen:
        return compare(comparison, open_spread(workers, address), screen.observe)


def _report(console: Console, comparison: Comparison, outcome: Outcome, json_output: bool) -> None:
    """Writes the results and shows the table over all tasks, without its intervals."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from pilotwave.bench.results import write_results
    from pilotwave.bench.tables import over_tasks, to_json

    results = write_results(comparison, outcome.records)
    files = {what: str(path) for what, path in results.files.items()}
    if json_output:
        typer.echo(json.dumps({"files": files, **to_json(results.summary)}, indent=2))
        return
    heads, rows = over_tasks(results.summary)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column(heads[0], max_width=METHOD_WIDTH, overflow="fold")
    for head in heads[1:]:
        table.add_column(head, justify="right", min_width=len(max(head.split(), key=len)))
    for row in rows:
        table.add_row(*(re.sub(r"`| \(.*?\)", "", cell) for cell in row))
    Console(width=max(console.width, TABLE_WIDTH)).print(table)
    _list_files(console, files)
    for line in results.missing:
        console.print(f"note: {line}", highlight=False, soft_wrap=True)


def _choose(console: Console, comparison: Comparison, outcome: Outcome, path: Path, json_output: bool) -> None:
    """Chooses the best settings of each method and keeps them, beside what was chosen for other methods."""
    from pilotwave.bench.tuning import choose, merge, read_chosen, write_chosen

    chosen = choose(comparison.suite, comparison.tasks, comparison.methods, outcome.records)
    write_chosen(merge(read_chosen(path), chosen), path)
    if json_output:
        typer.echo(json.dumps(chosen, indent=2))
        return
    for group, kinds in chosen["groups"].items():
        for kind, found in kinds.items():
            said = ", ".join(f"{key}={value}" for key, value in found["chosen"].items()) or "its defaults"
            console.print(f"  {group:<10} {kind:<14} {said}", highlight=False, soft_wrap=True)
    _list_files(console, {"settings": str(path)})


def _numerical(
    console: Console,
    tasks: Sequence[str],
    methods: Sequence[str],
    seeds: int,
    queries: int | None,
    output: Path,
    json_output: bool,
) -> int:
    from pilotwave.bench.suites.numerical import QUERIES as DEFAULT
    from pilotwave.bench.suites.numerical import compare_regrets

    def tell(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    files = compare_regrets(tasks, methods, seeds, queries or DEFAULT, output, tell)
    return _show(console, files, json_output)


def _archive(
    console: Console, parts: Sequence[str], seeds: int | None, output: Path, anew: bool, json_output: bool
) -> int:
    from pilotwave.bench.suites.archive import SEEDS as DEFAULT
    from pilotwave.bench.suites.archive import measure_archive

    def tell(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    return _show(console, measure_archive(parts, seeds or DEFAULT, output, tell, anew=anew), json_output)


def _show(console: Console, files: dict[str, Path], json_output: bool) -> int:
    """Shows the table and the figures of a suite that has no tasks of the common kind."""
    if json_output:
        figures = json.loads(files["figures"].read_text(encoding="utf-8"))
        typer.echo(json.dumps({"files": {what: str(path) for what, path in files.items()}, **figures}, indent=2))
        return 0
    console.print(files["table"].read_text(encoding="utf-8"), highlight=False, soft_wrap=True)
    _list_files(console, {what: str(path) for what, path in files.items()})
    return 0


def _list_files(console: Console, files: dict[str, str]) -> None:
    for what, path in files.items():
        console.print(f"  {what:<10} {path}", highlight=False, soft_wrap=True)


__all__ = ["bench"]
