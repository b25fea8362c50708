"""``pilotwave archive``: look into a project archive, add runs to it, check it and make it smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pilotwave.archive.project import ProjectArchive

archive = typer.Typer(
    name="archive",
    help="The memory of all answers that were paid for, over all campaigns.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Where = Annotated[Path, typer.Option("--archive", "-a", help="The archive's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT = Path("runs/archive")
_SHOWN = ["record_id", "campaign", "identity", "oracle", "status", "value"]
_TOGETHER = 256


@archive.command()
def add(
    run_dir: Annotated[Path, typer.Argument(help="The directory of the run.")],
    place: Annotated[
        Path | None,
        typer.Option("--archive", "-a", help=f"The archive's folder; by default the campaign's, or {DEFAULT}."),
    ] = None,
    contributor: Annotated[
        str | None,
        typer.Option(help="Whose answers they are, by which they can be forgotten; the campaign's by default."),
    ] = None,
    latents: Annotated[
        str, typer.Option(help="How a new archive keeps latents and noise: float32, or float16 in half the space.")
    ] = "float16",
    json_output: AsJson = False,
) -> None:
    """Take over the answers of a run; those that are there already stay as they are.

    Example: pilotwave archive add runs/polarizability --contributor alice
    """
    from pilotwave.archive.project import ProjectArchive, records_of_run
    from pilotwave.archive.project.batches import batches_of
    from pilotwave.archive.project.from_run import archive_section
    from pilotwave.archive.run_directory import RunDirectory
    from pilotwave.errors import RunDirectoryError

    run = RunDirectory(run_dir)
    if not run.exists():
        raise RunDirectoryError(f"{run_dir}: no run here; give the directory of a run, e.g. runs/demo")
    section = archive_section(run)
    place = place or section.path or DEFAULT
    whose = section.contributor if contributor is None else contributor
    exists = (place / "manifest.json").exists()
    opened = ProjectArchive.open(place) if exists else ProjectArchive.create(place, latents=latents)  # type: ignore[arg-type]
    found = new = 0
    with opened:
        for records in batches_of(records_of_run(run, whose), _TOGETHER):
            found += len(records)
            new += len(opened.append(records))
        rows = len(opened)
    facts = {"archive": str(place), "run": str(run_dir), "answers": found, "new": new, "rows": rows}
    _say(facts, f"{new} of {found} answers of {run_dir} are new in {place}, which holds {rows}", json_output)


@archive.command()
def stats(place: Where = DEFAULT, json_output: AsJson = False) -> None:
    """Say what an archive holds, how large it is and what reuse has saved.

    Example: pilotwave archive stats --archive runs/archive
    """
    with _opened(place) as opened:
        facts = opened.stats()
    if json_output:
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console

    console = Console()
    console.print(_facts_table(facts))


@archive.command()
def verify(place: Where = DEFAULT, json_output: AsJson = False) -> None:
    """Read every byte and name what is damaged; exit code 4 if anything is.

    Example: pilotwave archive verify --archive runs/archive
    """
    with _opened(place) as opened:
        damage = opened.verify()
    if json_output:
        typer.echo(
            json.dumps({"archive": str(place), "whole": not damage, "damage": [vars(d) for d in damage]}, indent=2)
        )
    else:
        for item in damage:
            typer.echo(f"damaged: {item}")
        if not damage:
            typer.echo(f"{place} is whole")
    if damage:
        raise typer.Exit(4)


@archive.command()
def compact(
    place: Where = DEFAULT,
    drop_damaged: Annotated[
        bool,
        typer.Option(
            "--drop-damaged", help="Go on without records that cannot be read; `add` brings those of a run back."
        ),
    ] = False,
    json_output: AsJson = False,
) -> None:
    """Merge what was appended into Parquet and memory-mapped latents.

    Example: pilotwave archive compact --archive runs/archive
    """
    from pilotwave.archive.project import ProjectArchive

    with ProjectArchive.open(place) as opened:
        opened.compact(drop_damaged=drop_damaged)
        facts = opened.stats()
    told = {"archive": str(place), "rows": facts["rows"], "parts": facts["parts"], "bytes": facts["bytes"]["total"]}
    _say(told, f"{place}: {told['rows']} records in {told['parts']} parts, {told['bytes']:,} bytes", json_output)


@archive.command()
def query(
    where: Annotated[str, typer.Argument(help="A condition in SQL over the columns.", metavar="CONDITION")],
    place: Where = DEFAULT,
    columns: Annotated[
        str | None, typer.Option("--columns", "-c", help="Which, with commas between; a few by default.")
    ] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", min=0, help="Only so many.")] = None,
    json_output: AsJson = False,
) -> None:
    """List the records for which a condition holds.

    Example: pilotwave archive query "value > 60 and status = 'ok'" --columns record_id,identity,value
    """
    names = _SHOWN if columns is None else [name.strip() for name in columns.split(",")]
    with _opened(place) as opened:
        found = opened.table(where, names)
    rows = found.slice(0, count).to_pylist()
    if json_output:
        typer.echo(json.dumps({"count": found.num_rows, "records": rows}, indent=2, default=_plain))
        return
    _print_rows(names, rows)
    if len(rows) < found.num_rows:
        typer.echo(f"{len(rows)} of {found.num_rows} records; the others with a larger -n")


@archive.command()
def neighbours(
    record_id: Annotated[str, typer.Argument(help="A record, e.g. from `pilotwave archive query`.")],
    place: Where = DEFAULT,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many.")] = 10,
    json_output: AsJson = False,
) -> None:
    """List the records of the same backbone whose latents are nearest to a record's.

    Example: pilotwave archive neighbours polarizability-1f3a5c7e9b2d/p0003-01 -n 5
    """
    from pilotwave.archive.project import ArchiveError

    with _opened(place) as opened:
        if record_id not in opened:
            raise ArchiveError(f"{place} holds no record {record_id!r}; `pilotwave archive query true` lists them")
        record = opened.get(record_id)
        if record.latent is None:
            raise ArchiveError(f"the record {record_id!r} has no latent, so nothing is near it")
        distances, ids = opened.neighbours(record.backbone, record.latent[None], count + 1)
        pairs = [pair for pair in zip(distances[0].tolist(), ids[0], strict=True) if pair[1] != record_id][:count]
        near = opened.records([name for _, name in pairs])
    rows = [
        {"distance": distance, "record_id": item.record_id, "identity": item.identity, "value": item.value}
        for (distance, _), item in zip(pairs, near, strict=True)
    ]
    if json_output:
        typer.echo(json.dumps({"record_id": record_id, "neighbours": rows}, indent=2))
    else:
        _print_rows(["distance", "record_id", "identity", "value"], rows)


def _opened(place: Path) -> ProjectArchive:
    from pilotwave.archive.project import ProjectArchive

    return ProjectArchive.open(place, read_only=True)


def _say(facts: dict[str, Any], line: str, as_json: bool) -> None:
    typer.echo(json.dumps(facts, indent=2) if as_json else line)


def _plain(value: object) -> str:
    """What JSON has no words for: times in ISO format, bytes in hex."""
    return value.hex() if isinstance(value, bytes) else str(getattr(value, "isoformat", lambda: value)())


def _facts_table(facts: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if isinstance(value, dict):
            shown = list(value.items())[:12]
            text = ", ".join(f"{key or '-'} {amount:,}" for key, amount in shown)
            text += f" and {len(value) - len(shown)} more" if len(value) > len(shown) else ""
        else:
            text = f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(name.replace("_", " "), text)
    return table


def _print_rows(names: list[str], rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        typer.echo("no record")
        return
    table = Table()
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name == "record_id")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in names))
    Console().print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = _plain(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


__all__ = ["archive"]
