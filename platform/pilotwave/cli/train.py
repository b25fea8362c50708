"""``pilotwave train``: train a built-in kind of model, resumably."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotwave.cli.options import Overrides

if TYPE_CHECKING:
    from pilotwave.training.progress import TrainingProgress

TRAINERS = {
    "molecule": ("pilotwave.backbones.molecule.training", "MoleculeTrainingConfig"),
    "druglike": ("pilotwave.backbones.molecule.training", "DruglikeTrainingConfig"),
    "image": ("pilotwave.backbones.image.training", "ImageTrainingConfig"),
    "judge": ("pilotwave.backbones.image.judge_training", "JudgeTrainingConfig"),
}


def train(
    model: Annotated[str, typer.Argument(help=f"One of {', '.join(TRAINERS)}.")],
    output: Annotated[
        Path, typer.Option(help="Checkpoints and weights go here; a run found here is resumed.")
    ] = Path("training"),
    overrides: Overrides = None,
    settings: Annotated[bool, typer.Option("--settings", help="List the settings with their defaults.")] = (False),
) -> None:
    """Train a model from the package's own data recipe; the same command resumes it.

    Example: pilotwave train image --output training/image --set images=600000
    """
    import yaml
    from pydantic import ValidationError

    from pilotwave.config.loading import apply_override
    from pilotwave.config.registry import suggestion
    from pilotwave.errors import InputError

    if model not in TRAINERS:
        raise InputError(f"expected one of {', '.join(TRAINERS)}, got {model!r}{suggestion(model, TRAINERS)}")
    module = importlib.import_module(TRAINERS[model][0])
    config_class = getattr(module, TRAINERS[model][1])
    if settings:
        for name, field in config_class.model_fields.items():
            typer.echo(f"{name} = {field.default!r}    {field.description or ''}")
        return
    fields: dict[str, Any] = {"output": output}
    for override in overrides or []:
        apply_override(fields, override)
    try:
        config = config_class(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        near = suggestion(name, config_class.model_fields) if first["type"] == "extra_forbidden" else ""
        raise InputError(f"--set {name}: {first['msg']}{near}; see --settings") from None
    typer.echo(yaml.safe_dump({model: config.model_dump(mode="json")}, sort_keys=False).strip())
    path = module.train(config, _show)
    typer.echo(f"weights: {path}")


def _show(progress: TrainingProgress) -> None:
    parts = [
        f"{progress.seen:>10,} / {progress.total:,} seen",
        f"loss {progress.loss:.4f}",
        f"{progress.per_second:.0f}/s",
    ]
    if progress.held_out_loss is not None:
        parts.append(f"held-out {progress.held_out_loss:.4f}")
    if progress.seconds_left is not None:
        parts.append(f"{progress.seconds_left / 60:.0f} min left")
    parts += [f"{name} {value:.3f}" for name, value in progress.quality.items()]
    typer.echo("  ".join(parts))


__all__ = ["train"]
