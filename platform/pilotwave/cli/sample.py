"""``pilotwave sample``: what a model draws when nothing steers it, with its measured quality."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotwave.cli.options import JsonOutput, Overrides

if TYPE_CHECKING:
    from pilotwave.config.components import BackboneConfig
    from pilotwave.protocols import Backbone
    from pilotwave.samples import Invalid, Sample
    from pilotwave.types import Draw

QUIET_SECONDS = 2.0
"""Progress is shown only for what takes longer."""
LOG_INTERVAL_SECONDS = 10.0
"""Without a terminal a line is printed this often."""


def sample(
    kind: Annotated[str, typer.Argument(help="The model: a kind of backbone, see `pilotwave list backbones`.")],
    count: Annotated[int, typer.Option("-n", "--count", help="How many samples.")] = 64,
    steps: Annotated[int | None, typer.Option(help="Sampler steps; the model's default if left out.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all randomness: the same seed, the same samples.")] = 0,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Name or number of a class to draw; may be repeated.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights from `pilotwave train`, instead of the built-in ones.")
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="A file; its ending says the format. May be repeated."),
    ] = None,
    overrides: Overrides = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Drawn together; the samples do not depend on it.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; more seldom pay for models this small.")] = 1,
    in_space: Annotated[
        bool, typer.Option("--in-space", help="A picture shows molecules in 3D, rather than their formulas.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
    json_output: JsonOutput = False,
) -> None:
    """Draw unguided samples and measure them: molecules to .sdf, .smi, .csv or .png, images to .png or .npy.

    Example: pilotwave sample image -n 64 --steps 20 --seed 0 --class 7 --output sneakers.png
    """
    import torch

    from pilotwave.backbones.unguided import unguided_draws
    from pilotwave.errors import InputError
    from pilotwave.report.sample_files import SUFFIXES, Drawn, check_output, write_samples
    from pilotwave.report.sample_quality import measure_samples
    from pilotwave.samples import Invalid

    if count < 1:
        raise InputError(f"-n: expected 1 or more, got {count}")
    config = configure(kind, steps, classes or [], checkpoint, overrides or [])
    name = f"{kind}-seed{seed}"
    outputs = output or [Path(name + SUFFIXES.get(config.media, (".png",))[0])]
    for path in outputs:
        check_output(path, config.media, overwrite=force)
    torch.set_num_threads(threads)  # two on a busy machine were measured to be twenty times slower than one
    backbone = config.build(device)
    draws = unguided_draws(seed, count)
    samples, speed = _draw(backbone, draws, batch_size)
    if all(isinstance(item, Invalid) for item in samples):
        reason = next(item.reason for item in samples if isinstance(item, Invalid))
        raise InputError(
            f"none of {count} samples is valid (the first: {reason}), so nothing was written; "
            "take more steps, or train the model longer"
        )
    drawn = [Drawn(index, draw.seed, item) for index, (draw, item) in enumerate(zip(draws, samples, strict=True))]
    written = {str(path): write_samples(drawn, path, name, in_space=in_space) for path in outputs}
    quality = measure_samples(samples, config.media)
    if json_output:
        said = {"kind": kind, "model": backbone.fingerprint, "seed": seed, "drawn": count, "files": written}
        typer.echo(json.dumps({**said, "quality": quality.values, "speed": asdict(speed)}, indent=2))
        return
    for path_text, held in written.items():
        typer.echo(f"{path_text}: {held}")
    for line in [*quality.lines, f"speed             {speed}"]:
        typer.echo(f"  {line}")


def configure(
    kind: str,
    steps: int | None = None,
    classes: Sequence[str] = (),
    checkpoint: Path | None = None,
    overrides: Sequence[str] = (),
) -> BackboneConfig:
    """Returns the checked configuration of a model.

    Args:
        kind: Of backbone.
        steps: Of the sampler; its default if None.
        classes: Names or numbers.
        checkpoint: Weights instead of the built-in ones.
        overrides: ``"key=value"`` of the model's other settings.

    Raises:
        InputError: There is no such kind, or it has no such setting or value; one line says what is expected.
    """
    from pydantic import ValidationError

    from pilotwave.config import registry
    from pilotwave.config.components import BackboneConfig
    from pilotwave.config.loading import apply_override
    from pilotwave.errors import ConfigError, InputError

    config_class = registry.load("backbone", kind)
    fields: dict[str, Any] = {"kind": kind}
    for override in overrides:
        apply_override(fields, override)
    given: dict[str, tuple[str, Any]] = {"steps": ("--steps", steps)}
    given["checkpoint"] = ("--checkpoint", None if checkpoint is None else str(checkpoint))
    given["classes"] = ("--class", [int(each) if each.isdigit() else each for each in classes] or None)
    for field, (option, value) in given.items():
        if value is None:
            continue
        if field not in config_class.model_fields:
            raise InputError(f"{option}: a model of kind {kind!r} has no {field}; leave {option} out")
        fields[field] = value
    try:
        config = config_class.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"][:1])
        option = given[field][0] if field in given and given[field][1] is not None else f"--set {field}"
        near = registry.suggestion(field, config_class.model_fields) if first["type"] == "extra_forbidden" else ""
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{option}: {message}, got {first['input']!r}{near}") from None
    assert isinstance(config, BackboneConfig)
    config.check_dependencies()
    return config


@dataclass(frozen=True)
class Speed:
    """How fast a number of samples was drawn.

    Attributes:
        seconds: On the clock.
        processor_seconds: Of this process; what else runs on the machine does not count.
        per_second: Samples on the clock.
    """

    seconds: float
    processor_seconds: float
    per_second: float

    def __str__(self) -> str:
        return f"{self.per_second:.1f} samples a second ({self.seconds:.1f} s, {self.processor_seconds:.1f} s CPU)"


def _draw(backbone: Backbone, draws: Sequence[Draw], batch_size: int) -> tuple[list[Sample | Invalid], Speed]:
    """Draws all samples, with progress on standard error."""
    from pilotwave.backbones.unguided import sample_unguided

    began, began_here = time.monotonic(), time.process_time()
    samples: list[Sample | Invalid] = []
    with _progress(len(draws)) as tell:
        for batch in sample_unguided(backbone, draws, batch_size, tell):
            samples += batch
    seconds = time.monotonic() - began
    return samples, Speed(seconds, time.process_time() - began_here, len(draws) / max(seconds, 1e-9))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[float], None]]:
    """Yields a function to tell how many samples are done: a bar in a terminal, plain lines in a log."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("drawing"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    task = bar.add_task("drawing", total=total)
    began = last_line = time.monotonic()

    def tell(done: float) -> None:
        nonlocal last_line
        now = time.monotonic()
        if console.is_terminal:
            bar.update(task, completed=done)
            if now - began > QUIET_SECONDS:
                bar.start()
        elif now - last_line >= (LOG_INTERVAL_SECONDS if last_line > began else QUIET_SECONDS):
            last_line = now
            left = (now - began) * (total / done - 1)
            console.print(f"drew {done:.0f} of {total}, about {left:.0f} s left", highlight=False)

    try:
        yield tell
    finally:
        if bar.live.is_started:
            bar.stop()


__all__ = ["configure", "sample"]
