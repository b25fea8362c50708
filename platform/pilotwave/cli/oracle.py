"""``pilotwave oracle``: an oracle alone, asked about files or held against the contract."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotwave.cli.options import JsonOutput, prints_aside

if TYPE_CHECKING:
    from pilotwave.config.components import OracleConfig
    from pilotwave.execution.question import OracleIdentity
    from pilotwave.report.input_files import NamedSample
    from pilotwave.types import Evaluation

ROWS_SHOWN = 40
"""A longer table is for --csv."""

oracle = typer.Typer(name="oracle", help="Ask an oracle alone, or test one.", no_args_is_help=True)

OracleName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A kind (see `pilotwave list oracles`), kind:setting as in xtb:gap or python:score.py:size, or a "
        "campaign file, whose oracle is taken.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the oracle, e.g. relax=true; may be repeated."),
]


@oracle.command()
def evaluate(
    name: OracleName,
    file: Annotated[
        Path, typer.Argument(help="An .sdf, a folder of images or an image, a .csv or .npy of arrays.")
    ],
    settings: Settings = None,
    workers: Annotated[int, typer.Option(min=1, max=10_000, help="How many questions are asked side by side.")] = 1,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write every answer here, as soon as it is there.")
    ] = None,
    add_hydrogens: Annotated[
        bool, typer.Option("--add-hydrogens", help="Add the hydrogens that molecules lack.")
    ] = False,
    preflight: Annotated[
        bool, typer.Option(help="Ask the question whose answer is known first, if there is one.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the CSV file.")] = False,
    json_output: JsonOutput = False,
) -> int:
    """Ask an oracle about every sample of a file. Exit code 3 if none was answered.

    Example: pilotwave oracle evaluate xtb:polarizability molecules.sdf --csv answers.csv
    """
    from pilotwave.cli.oracle_table import AnswerTable
    from pilotwave.errors import InputError
    from pilotwave.execution.asked_alone import AskedAlone, Ended
    from pilotwave.report.input_files import read_samples

    config = configured(name, settings or [])
    if csv_file is not None and csv_file.exists() and not force:
        raise InputError(f"{csv_file} is there already; choose another name or add --force")
    with prints_aside(json_output):
        named = read_samples(file, config.media, add_hydrogens=add_hydrogens)
        ended: dict[int, Evaluation] = {}
        with AskedAlone(config, min(workers, len(named))) as asked, AnswerTable.opened(csv_file) as table:
            identity = asked.start(preflight)
            with _progress(len(named)) as tell:

                def told(item: Ended) -> None:
                    ended[item.place] = item.evaluation
                    table.add(named[item.place], item.evaluation, identity.unit)
                    tell(len(ended))

                interrupted = _ask_until_interrupted(asked, [item.sample for item in named], file.stem, told)
    answered = sum(item.value is not None for item in ended.values())
    if json_output:
        typer.echo(json.dumps(_as_json(identity, named, ended), indent=2))
    else:
        _show(identity, named, ended)
    if csv_file is not None:
        typer.echo(f"{len(ended)} answers in {csv_file}", err=json_output)
    return 130 if interrupted else 0 if answered else 3


@oracle.command("test")
def check(
    name: OracleName,
    settings: Settings = None,
    samples: Annotated[
        Path | None,
        typer.Option(help="Samples that the oracle must answer (a file as for evaluate); else its known question."),
    ] = None,
    json_output: JsonOutput = False,
) -> int:
    """Hold an oracle against the contract that all oracles keep. Exit code 2 if it does not.

    Example: pilotwave oracle test xtb:gap --samples molecules.sdf
    """
    from pilotwave.cli.oracle_check import check_oracle

    config = configured(name, settings or [])
    with prints_aside(json_output):
        checks = check_oracle(config, samples)
    failed = [check for check in checks if check.outcome == "failed"]
    if json_output:
        typer.echo(json.dumps([vars(check) for check in checks], indent=2))
        return 2 if failed else 0
    signs = {"passed": "ok     ", "failed": "FAILED ", "skipped": "skipped"}
    for check in checks:
        typer.echo(f"{signs[check.outcome]}  {check.what}")
        if check.why:
            typer.echo(f"         {check.why}")
    asked = [check for check in checks if check.outcome != "skipped"]
    left_out = f", {len(checks) - len(asked)} skipped" if len(asked) < len(checks) else ""
    typer.echo(f"{len(asked) - len(failed)} of {len(asked)} checks of the contract hold{left_out}")
    return 2 if failed else 0


def configured(name: str, settings: Sequence[str]) -> OracleConfig:
    """Returns the checked configuration of an oracle.

    Args:
        name: ``kind``, ``kind:setting`` for the setting that the kind is named by, or a campaign file.
        settings: ``"key=value"`` of other settings.

    Raises:
        InputError: One line that says what is expected.
    """
    from pydantic import ValidationError

    from pilotwave.config import registry
    from pilotwave.config.components import OracleConfig
    from pilotwave.config.loading import apply_override, read_yaml
    from pilotwave.errors import ConfigError

    base_dir, fields = Path(), {}
    if name.endswith((".yaml", ".yml")):
        base_dir = Path(name).parent
        found = read_yaml(Path(name))[0].get("oracle")
        if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
            raise ConfigError(f"{name}: expected a section oracle with a kind")
        fields = dict(found)
        kind = str(fields["kind"])
        config_class = registry.load("oracle", kind)
    else:
        kind, colon, setting = name.partition(":")
        config_class = registry.load("oracle", kind)
        assert issubclass(config_class, OracleConfig)
        fields = {"kind": kind}
        if colon and not config_class.named_by:
            raise ConfigError(f"{name}: kind {kind!r} has no short form; use --set KEY={setting}")
        if colon:
            fields[config_class.named_by] = setting
    for override in settings:
        apply_override(fields, override)
    try:
        config = config_class.model_validate(fields, context={"base_dir": base_dir.resolve()})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "oracle"
        if first["type"] == "extra_forbidden":
            near = registry.suggestion(str(first["loc"][0]), config_class.model_fields)
            raise ConfigError(f"{name}: {where}: kind {kind!r} has no such setting{near}") from None
        message = first["msg"].removeprefix("Value error, ")
        said = f"this setting is missing; add --set {where}=…" if first["type"] == "missing" else message
        raise ConfigError(f"{name}: {where}: {' '.join(said.split())}") from None
    assert isinstance(config, OracleConfig)
    config.check_dependencies()
    return config


def _ask_until_interrupted(asked: Any, samples: Sequence[Any], name: str, told: Any) -> bool:
    """Asks; what was answered before an interruption is shown all the same."""
    try:
        asked.ask(samples, name, told)
    except KeyboardInterrupt:
        return True
    return False


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Yields a function to tell how many have ended: a bar in a terminal, a line now and then in a log."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from pilotwave.cli.drawing import LOG_INTERVAL_SECONDS

    console = Console(stderr=True)
    if not console.is_terminal:
        last = [time.monotonic()]

        def say(done: int) -> None:
            if time.monotonic() - last[0] >= LOG_INTERVAL_SECONDS:
                last[0] = time.monotonic()
                print(f"{done} of {total} ended", file=sys.stderr, flush=True)

        yield say
        return
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("asking", total=total)
        yield lambda done: bar.update(task, completed=done)


def _as_json(
    identity: OracleIdentity, named: Sequence[NamedSample], ended: dict[int, Evaluation]
) -> dict[str, Any]:
    from pilotwave.archive.records import evaluation_to_json

    about = {"oracle": identity.name, "version": identity.version, "unit": identity.unit}
    answers = [
        {"name": named[place].name, "label": named[place].sample.label(), **evaluation_to_json(ended[place])}
        for place in sorted(ended)
    ]
    return {**about, "asked": len(named), "answers": answers}


def _show(identity: OracleIdentity, named: Sequence[NamedSample], ended: dict[int, Evaluation]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pilotwave.report.tables import format_value, pretty_unit

    console = Console()
    table = Table(title=f"{identity.name} ({identity.version})", title_justify="left", box=None, padding=(0, 2))
    for column in ("name", "sample", f"value {pretty_unit(identity.unit)}".strip(), "seconds", ""):
        table.add_column(column, justify="right" if column.startswith(("value", "seconds")) else "left")
    for place in sorted(ended)[:ROWS_SHOWN]:
        item, evaluation = named[place], ended[place]
        value = "" if evaluation.value is None else format_value(evaluation.value)
        seconds = "" if evaluation.timings is None else f"{evaluation.timings.seconds:.3g}"
        failure = evaluation.failure
        note = evaluation.fidelity if failure is None else f"{failure.stage}: {failure.message}"
        label = "" if item.sample.label() == item.name else item.sample.label()
        table.add_row(*map(escape, (item.name, label, value, seconds, "" if note == "standard" else note)))
    console.print(table)
    if len(ended) > ROWS_SHOWN:
        console.print(f"… and {len(ended) - ROWS_SHOWN} more; --csv writes them all")
    values = [item.value for item in ended.values() if item.value is not None]
    stages = Counter(item.failure.stage for item in ended.values() if item.failure is not None)
    console.print(_summary(len(named), values, stages, sum(item.cost for item in ended.values())), highlight=False)


def _summary(asked: int, values: Sequence[float], stages: Counter[str], cost: float) -> str:
    import statistics

    from pilotwave.report.tables import format_value

    text = f"{len(values)} of {asked} answered"
    if values:
        low, middle, high = min(values), statistics.median(values), max(values)
        text += f", from {format_value(low)} to {format_value(high)}, median {format_value(middle)}"
    if stages:
        text += f"; failed: {', '.join(f'{count} in {stage}' for stage, count in stages.most_common())}"
    return f"{text}; cost {cost:g}"


__all__ = ["configured", "oracle"]
