"""``pilotwave generate``: more samples from what a campaign has learned, without asking the oracle."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotwave.cli.options import JsonOutput

if TYPE_CHECKING:
    from pilotwave.execution.generated import GeneratedSamples


def generate(
    place: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The directory of a run, or of a logged model.")],
    count: Annotated[int, typer.Option("-n", "--count", help="How many samples.")] = 64,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="A file; its ending says the format. May be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all randomness: the same seed, the same samples.")] = 0,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Name or number of a class, seen or not; may be repeated.")
    ] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option("--condition", metavar="NAME=VALUE", help="Another condition of the model, e.g. atoms=9."),
    ] = None,
    constraints: Annotated[
        bool, typer.Option("--constraints/--no-constraints", help="Whether the campaign's constraints hold.")
    ] = True,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Made together; as many as the campaign proposed at once by default.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:1; where the campaign had it by default.")
    ] = None,
    in_space: Annotated[
        bool, typer.Option("--in-space", help="A picture shows molecules in 3D, rather than their formulas.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
    json_output: JsonOutput = False,
) -> None:
    """Make more samples from what a run has learned; no oracle is asked, and the run may still be going on.

    Example: pilotwave generate runs/polarizability -n 64 --output more.sdf
    """
    from pilotwave.campaign import open_guidance
    from pilotwave.cli.drawing import drawing
    from pilotwave.errors import InputError
    from pilotwave.report.sample_files import SUFFIXES, Drawn, check_output, write_samples
    from pilotwave.report.sample_quality import measure_samples

    if count < 1:
        raise InputError(f"-n: expected 1 or more, got {count}")
    chosen = _conditions(classes or [], conditions or [])
    with drawing(count) as tell:
        guidance = open_guidance(place, conditions=chosen, device=device)
        name = f"{guidance.config.name}-generated-seed{seed}"
        outputs = output or [Path(name + SUFFIXES.get(guidance.media, (".png",))[0])]
        for path in outputs:
            check_output(path, guidance.media, overwrite=force)
        made = guidance.generate(count, seed=seed, constraints=constraints, batch_size=batch_size, observe=tell)
    if not made:
        why = ", ".join(f"{number} {reason}" for reason, number in made.left_out.items())
        raise InputError(
            f"none of {made.drawn} draws is new and valid ({why}), so nothing was written; "
            "try another --seed, or --no-constraints"
        )
    drawn = [Drawn(item.index, item.seed, item.sample, item.predicted) for item in made]
    written = {str(path): write_samples(drawn, path, name, in_space=in_space) for path in outputs}
    quality = measure_samples([item.sample for item in made], guidance.media)
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    if json_output:
        said = {
            "name": guidance.config.name,
            "oracle": guidance.facts.oracle,
            "unit": made.unit,
            "answers": guidance.facts.answers,
            "seed": seed,
            "guided": made.guided,
            "drawn": made.drawn,
            "left_out": dict(made.left_out),
            "files": written,
            "samples": [item.to_json() for item in made],
            "quality": quality.values,
            "notes": list(made.notes),
        }
        typer.echo(json.dumps(said, indent=2))
        return
    for path_text, held in written.items():
        typer.echo(f"{path_text}: {held}")
    learned = f"learned from      {guidance.facts.answers} answers of {guidance.facts.oracle or 'no oracle yet'}"
    for line in [learned, *_drawn_lines(made), *quality.lines]:
        typer.echo(f"  {line}")


def _conditions(classes: Sequence[str], conditions: Sequence[str]) -> dict[str, Any]:
    from pilotwave.errors import InputError
    from pilotwave.execution.guidance_config import parse_conditions

    chosen = parse_conditions(list(conditions))
    if classes:
        if "classes" in chosen:
            raise InputError("--class: classes are given by --condition, too; say them once")
        chosen["classes"] = [int(each) if each.isdigit() else each for each in classes]
    return chosen


def _drawn_lines(made: GeneratedSamples) -> list[str]:
    """What was drawn again, and what is expected of what was kept."""
    lines = []
    if made.left_out:
        why = ", ".join(f"{number} {reason}" for reason, number in made.left_out.items())
        lines.append(f"drawn again       {why}")
    values = [item.predicted for item in made if item.predicted is not None]
    if values:
        from pilotwave.report.tables import format_value, pretty_unit

        low, middle, high = (format_value(value) for value in (min(values), statistics.fmean(values), max(values)))
        lines.append(
            f"surrogate expects {middle} {pretty_unit(made.unit)}".rstrip() + f" on average, {low} to {high}"
        )
    return lines


__all__ = ["generate"]
