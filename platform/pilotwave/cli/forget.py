"""``pilotwave forget``: take records out of a run or a project archive; ``drift``: has an oracle changed?"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotwave.errors import InputError

if TYPE_CHECKING:
    from pilotwave.forgetting.archive_records import ArchiveSelection
    from pilotwave.forgetting.corrective import Suspect
    from pilotwave.forgetting.forget_run import Forgotten, Plan
    from pilotwave.forgetting.selection import ForgetRequest

_SHOWN = 40


def forget(
    run_dir: Annotated[Path | None, typer.Argument(help="The directory of the run; none with --archive.")] = None,
    query: Annotated[list[str] | None, typer.Option("--query", "-q", help="A query id; may be repeated.")] = None,
    contributor: Annotated[
        str | None, typer.Option(help="Everything of a worker, a rater, or a campaign's contributor.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="FILTER", help="A condition in SQL, e.g. \"worker = 'alice' AND value > 3\"."),
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(help="A project archive: the run's, or without a run directory the only place to forget in."),
    ] = None,
    campaign: Annotated[
        str | None, typer.Option(help="With --archive alone: a whole campaign, by its name or run id.")
    ] = None,
    corrective: Annotated[
        bool, typer.Option("--corrective", help="Find the relatives of wrong answers, and forget them together.")
    ] = False,
    wrong: Annotated[
        list[str] | None, typer.Option(metavar="ID[,ID...]", help="With --corrective: answers known to be wrong.")
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Only finish a forgetting that was promised and interrupted.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List every place; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON; needs --yes or --dry-run.")] = False,
) -> None:
    """Forget records everywhere: ledger, checkpoints, results, MLflow, project archive. A receipt remains.

    Example: pilotwave forget runs/polarizable --contributor alice --dry-run
    """
    if json_output and not (yes or dry_run or finish):
        raise InputError("--json: expected --yes or --dry-run with it, because nobody can be asked")
    if run_dir is None and archive is None:
        raise InputError("expected a run directory, or --archive PATH; see --help")
    screen = _Screen(dry_run=dry_run, yes=yes, json_output=json_output, archive=archive)
    if finish:
        if run_dir is None:
            raise InputError("--finish: expected a run directory; a project archive finishes by itself when opened")
        screen.finish(run_dir)
        return
    from pilotwave.forgetting.selection import ForgetRequest

    if corrective:
        if run_dir is None or query or contributor or where or campaign:
            raise InputError("--corrective: expected a run directory and --wrong ID[,ID...], nothing else")
        ids = [item.strip() for given in wrong or [] for item in given.split(",") if item.strip()]
        screen.correct(run_dir, ids)
        return
    if wrong:
        raise InputError("--wrong: expected --corrective with it")
    request = ForgetRequest(tuple(query or ()), contributor, where, campaign)
    if run_dir is not None:
        screen.forget_in_run(run_dir, request)
    else:
        screen.forget_in_archive(request)


def drift(
    place: Annotated[Path, typer.Argument(help="The directory of a run, or a project archive.")],
    where: Annotated[
        str | None,
        typer.Option(metavar="FILTER", help="Only these answers of a project archive; a condition in SQL."),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test whether an oracle has begun to answer differently: whether answers depend on when they were given.

    Example: pilotwave archive drift runs/archive
    """
    from pilotwave.forgetting.answers import answers_of_archive, answers_of_run
    from pilotwave.forgetting.monitor import drift_among, drift_in_words

    if (place / "ledger.sqlite").exists():
        if where is not None:
            raise InputError("--where: expected a project archive; a run is tested as a whole")
        groups = {place.name: answers_of_run(place)}
    else:
        groups = answers_of_archive(place, where)
    found = {name: drift_among(answers) for name, answers in groups.items()}
    if json_output:
        typer.echo(json.dumps({name: item.to_json() for name, item in found.items()}, indent=2))
        return
    for name, item in found.items():
        typer.echo(f"{name}: {drift_in_words(item)}")


class _Screen:
    """Shows, asks, and does."""

    def __init__(self, *, dry_run: bool, yes: bool, json_output: bool, archive: Path | None) -> None:
        self._dry_run, self._yes, self._json, self._archive = dry_run, yes, json_output, archive

    def finish(self, run_dir: Path) -> None:
        from pilotwave.archive.run_directory import RunDirectory
        from pilotwave.forgetting.forget_run import finish_promised_forgetting

        run = RunDirectory(run_dir)
        if not run.exists():
            raise InputError(f"{run.path}: no run here; give the directory of a run, e.g. runs/demo")
        with run.lock():
            done = finish_promised_forgetting(run.path)
        if done is not None:
            self._say_done(done)
        elif self._json:
            typer.echo(json.dumps({"finished": False}))
        else:
            typer.echo("nothing was promised")

    def correct(self, run_dir: Path, wrong: Sequence[str]) -> None:
        from pilotwave.forgetting.answers import answers_of_run
        from pilotwave.forgetting.corrective import suspects
        from pilotwave.forgetting.selection import ForgetRequest

        ranked = suspects(answers_of_run(run_dir), wrong)
        proposed = [item.record_id for item in ranked if item.proposed]
        if not self._json:
            _print_suspects(ranked, len(proposed))
        request = ForgetRequest(queries=tuple(dict.fromkeys([*wrong, *proposed])), corrective=True)
        self.forget_in_run(run_dir, request, {"suspects": [item.to_json() for item in ranked]})

    def forget_in_run(self, run_dir: Path, request: ForgetRequest, more: dict[str, Any] | None = None) -> None:
        from pilotwave.forgetting.forget_run import forget as forget_in_run
        from pilotwave.forgetting.forget_run import plan_forgetting

        plan = plan_forgetting(run_dir, request, self._archive)
        if self._dry_run:
            facts = {**_plan_facts(plan), **(more or {})}
            typer.echo(json.dumps(facts, indent=2)) if self._json else _print_plan(plan)
            return
        if not self._json:
            _print_plan(plan)
        self._ask(len(plan.selection.ids))
        self._say_done(forget_in_run(run_dir, request, self._archive))

    def forget_in_archive(self, request: ForgetRequest) -> None:
        from pilotwave.forgetting.archive_records import remove_from_archive, select_from_archive

        path = self._archive
        assert path is not None  # there is no run directory
        selection = select_from_archive(path, request)
        if self._dry_run:
            facts = {"records": len(selection.ids), "named": selection.named, "runs": dict(selection.runs)}
            typer.echo(json.dumps(facts, indent=2)) if self._json else _print_selection(selection)
            return
        if not self._json:
            _print_selection(selection)
        self._ask(len(selection.ids))
        receipt = remove_from_archive(path, selection.ids, request.kind)
        if self._json:
            typer.echo(json.dumps(receipt, indent=2, default=str))
            return
        typer.echo(f"forgot {_counted(receipt['removed'], 'record')}; receipt {receipt['receipt_id']}")
        for line in _where_else(path, selection):
            typer.echo(line)

    def _ask(self, count: int) -> None:
        if self._yes:
            return
        if not sys.stdin.isatty():
            raise InputError("expected --yes or a terminal to ask at; nothing was forgotten")
        typer.confirm(f"Forget {_counted(count, 'record')} for good?", abort=True)

    def _say_done(self, done: Forgotten) -> None:
        if self._json:
            facts = {
                "receipt": done.receipt.to_json(),
                "path": str(done.path),
                "left": [str(path) for path in done.left],
                "notes": list(done.notes),
                "salt": done.salt,
            }
            typer.echo(json.dumps(facts, indent=2))
            return
        typer.echo(f"forgot {_counted(done.receipt.records, 'record')}; receipt {done.path}")
        typer.echo(f"salt of the hashes in it, kept nowhere else: {done.salt}")
        for note in done.notes:
            typer.echo(f"note: {note}")


def _plan_facts(plan: Plan) -> dict[str, Any]:
    selection = plan.selection
    return {
        "records": len(selection.ids),
        "named": selection.named,
        "reused": selection.reused,
        "repeats": selection.repeats,
        "paid": selection.paid,
        "places": [place.to_json() for place in plan.places],
        "other_runs": plan.other_runs,
    }


def _print_plan(plan: Plan) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    selection = plan.selection
    more = [f"{_counted(selection.reused, 'answer')} taken from them"] if selection.reused else []
    more += [f"{_counted(selection.repeats, 'candidate')} of the same samples"] if selection.repeats else []
    with_them = f", with {' and '.join(more)}" if more else ""
    table = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("place", "what", "where"):
        table.add_column(heading, overflow="fold")
    for place in plan.places:
        table.add_row(place.kind, escape(place.what), escape(place.path))
    console = Console()
    console.print(
        f"{_counted(selection.named, 'record')}{with_them}; paid for, and still spent: {selection.paid}",
        highlight=False,
    )
    console.print(table)
    for name, count in plan.other_runs.items():
        console.print(
            f"run {name} took {_counted(count, 'answer')} from these; forget them in its directory", highlight=False
        )


def _where_else(path: Path, selection: ArchiveSelection) -> list[str]:
    """The runs beside an archive that gave the records, or took them, and still hold them."""
    from pilotwave.archive.ledger import Ledger
    from pilotwave.archive.project import run_id_of
    from pilotwave.forgetting.takers import runs_beside, takers_of

    runs = runs_beside([path.resolve().parent])
    lines = []
    for run_dir in runs:
        with Ledger.open(run_dir / "ledger.sqlite", read_only=True) as ledger:
            if run_id_of(ledger) in selection.runs:
                lines.append(f"{run_dir} still holds its own: pilotwave forget {run_dir}")
    for run_id in selection.runs:
        ids = [name.removeprefix(f"{run_id}/") for name in selection.ids if name.startswith(f"{run_id}/")]
        lines += [f"{item.path} took {item.answers} of them" for item in takers_of(run_id, ids, runs)]
    return lines or ["runs that lie elsewhere still hold theirs: pilotwave forget RUN_DIR"]


def _print_selection(selection: ArchiveSelection) -> None:
    taken = len(selection.ids) - selection.named
    with_them = f", with {_counted(taken, 'answer')} taken from them" if taken else ""
    typer.echo(f"{_counted(selection.named, 'record')}{with_them} in {selection.path}:")
    for name, count in selection.runs.items():
        typer.echo(f"  {count} of run {name}")


def _print_suspects(ranked: Sequence[Suspect], proposed: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = ranked[: max(proposed, min(10, len(ranked)))][:_SHOWN]
    title = f"{proposed} of {len(ranked)} other answers are likely to be wrong too"
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("query", no_wrap=True)
    table.add_column("score", justify="right")
    table.add_column("forget")
    table.add_column("why", overflow="fold")
    for item in shown:
        mark = "yes" if item.proposed else ""
        table.add_row(item.record_id, f"{item.score:.2f}", mark, escape("; ".join(item.reasons)))
    Console().print(table)
    if len(shown) < proposed:
        typer.echo(f"… and {proposed - len(shown)} more (--json lists all)")


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


__all__ = ["drift", "forget"]
