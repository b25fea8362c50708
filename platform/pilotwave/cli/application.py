"""The typer application: which commands there are. Heavy imports happen inside the commands."""

from __future__ import annotations

import typer

from pilotwave import __version__
from pilotwave.cli.archive import archive
from pilotwave.cli.bench import bench
from pilotwave.cli.control import control
from pilotwave.cli.doctor import doctor
from pilotwave.cli.export import export
from pilotwave.cli.forget import drift, forget
from pilotwave.cli.generate import generate
from pilotwave.cli.jobs import jobs
from pilotwave.cli.list_choices import list_choices
from pilotwave.cli.logs import logs
from pilotwave.cli.new import new
from pilotwave.cli.oracle import oracle
from pilotwave.cli.resume import resume
from pilotwave.cli.run import run
from pilotwave.cli.sample import sample
from pilotwave.cli.schema import schema
from pilotwave.cli.status import status
from pilotwave.cli.submit import submit
from pilotwave.cli.timeline import timeline
from pilotwave.cli.top import top
from pilotwave.cli.train import train
from pilotwave.cli.tune import tune
from pilotwave.cli.validate import validate

app = typer.Typer(
    name="pilotwave",
    help="Steer generative diffusion models with expensive black-box oracles.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pilotwave {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    del version


app.command()(run)
app.command()(resume)
app.command()(submit)
app.add_typer(jobs)
app.command()(status)
app.command()(control)
app.command()(logs)
app.command()(timeline)
app.command()(top)
app.command()(export)
app.command()(generate)
app.command()(forget)
archive.command()(drift)
app.add_typer(archive)
app.add_typer(oracle)
app.add_typer(new)
app.command()(validate)
app.command()(schema)
app.command("list")(list_choices)
app.command()(sample)
app.command()(train)
app.command()(tune)
app.command()(bench)
app.command()(doctor)

__all__ = ["app"]
