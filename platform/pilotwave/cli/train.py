"""``pilotwave train``: train or fine-tune a built-in kind of model, resumably."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pilotwave.cli.options import Overrides

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pilotwave.protocols import Tracker

Checked = TypeVar("Checked", bound="BaseModel")

TRAINERS = {
    "molecule": ("pilotwave.backbones.molecule.training", "MoleculeTrainingConfig"),
    "druglike": ("pilotwave.backbones.molecule.training", "DruglikeTrainingConfig"),
    "image": ("pilotwave.backbones.image.training", "ImageTrainingConfig"),
    "emoji": ("pilotwave.backbones.image.training", "EmojiTrainingConfig"),
    "judge": ("pilotwave.backbones.image.judge_training", "JudgeTrainingConfig"),
}


def train(
    model: Annotated[str, typer.Argument(help=f"One of {', '.join(TRAINERS)}.")],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint, weights, samples and model card go here; a run found here is resumed. "
            "training/MODEL by default."
        ),
    ] = None,
    overrides: Overrides = None,
    tracking: Annotated[
        str | None,
        typer.Option(help="mlflow: also into an MLflow run, mlflow.db beside the output folder; none by default."),
    ] = None,
    settings: Annotated[bool, typer.Option("--settings", help="List the settings with their defaults.")] = (False),
) -> int:
    """Train a model from its package's data or your own; the same command resumes it. Ctrl-C saves and stops.

    Examples: pilotwave train molecule --tracking mlflow

    pilotwave train druglike --output training/mine --set start=builtin --set data=my.sdf --set real_share=0.25
    """
    from rich.console import Console

    from pilotwave.cli.training_screen import INTERRUPTED, TrainingScreen
    from pilotwave.cli.training_watchers import SampleFiles, Watchers
    from pilotwave.config.loading import apply_override
    from pilotwave.config.registry import suggestion
    from pilotwave.errors import InputError
    from pilotwave.storage import held_folder
    from pilotwave.tracking.none_tracker import NoTracker
    from pilotwave.tracking.tracked_training import TrackedTraining
    from pilotwave.training.card import changed_settings

    if model not in TRAINERS:
        raise InputError(f"expected one of {', '.join(TRAINERS)}, got {model!r}{suggestion(model, TRAINERS)}")
    module = importlib.import_module(TRAINERS[model][0])
    config_class: type[BaseModel] = getattr(module, TRAINERS[model][1])
    if settings:
        _list_settings(config_class)
        return 0
    folder = output or Path("training") / model
    fields: dict[str, Any] = {"output": folder}
    for override in overrides or []:
        apply_override(fields, override)
    tracker = _tracker(fields.pop("tracking", {}), tracking, folder)
    config = _checked(config_class, fields)
    changed = ", ".join(f"{name}={value}" for name, (value, _) in changed_settings(config, {"output"}).items())
    screen = TrainingScreen(Console(), f"training {model} into {folder}" + (f" with {changed}" if changed else ""))
    tracked = TrackedTraining(
        tracker, f"train-{model}", config.model_dump(mode="json"), {"model": model}, SampleFiles.attached(folder)
    )
    status = "failed"
    try:
        with held_folder(folder, InputError), screen:
            path: Path = module.train(config, Watchers(SampleFiles(folder, screen.announce), tracked, screen))
        status = "finished" if path.suffix == ".safetensors" else "killed"
    except KeyboardInterrupt:
        status = "killed"
        raise
    finally:
        where = tracked.finish(status)
        if where and not isinstance(tracker, NoTracker):
            typer.echo(where)
    if status != "finished":
        typer.echo(f"stopped after saving {path}; the same command goes on")
        return INTERRUPTED if screen.interrupted else 0
    typer.echo(f"weights: {path}")
    return 0


def _list_settings(config_class: type[BaseModel]) -> None:
    for name, field in config_class.model_fields.items():
        default = "(--output)" if field.is_required() else repr(field.default)
        typer.echo(f"{name} = {default}    {field.description or ''}")


def _tracker(given: Any, kind: str | None, folder: Path) -> Tracker:
    """Builds the tracker that ``--tracking`` names; ``--set tracking.KEY=VALUE`` are its settings."""
    from pilotwave.config import registry
    from pilotwave.errors import InputError

    options = dict(given) if isinstance(given, dict) else {"kind": given}
    options["kind"] = kind if kind is not None else options.get("kind", "none")
    if not isinstance(options["kind"], str):
        raise InputError(f"--tracking: expected a name such as mlflow, got {options['kind']!r}")
    config: Any = _checked(registry.load("tracking", options["kind"]), options, "tracking.")
    tracker: Tracker = config.build(folder)
    return tracker


def _checked(config_class: type[Checked], fields: dict[str, Any], prefix: str = "") -> Checked:
    """Returns the settings, or says in one line which of them is wrong."""
    from pydantic import ValidationError

    from pilotwave.config.registry import suggestion
    from pilotwave.errors import InputError

    try:
        return config_class(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        near = suggestion(name, config_class.model_fields) if first["type"] == "extra_forbidden" else ""
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        where = f" {prefix}{name}" if name else ""
        raise InputError(f"--set{where}: {message}{near}; see --settings") from None


__all__ = ["train"]
