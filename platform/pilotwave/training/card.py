"""The model card that a training run writes beside its weights: what they are, of what, how, how good.

Everything in it comes from the run: settings, counts, clocks and measurements. May import pydantic, the
history beside it and :mod:`pilotwave.storage`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pilotwave.storage import write_atomically
from pilotwave.training.history import ComputeLog, TrainingHistory

CARD_NAME = "MODEL_CARD.md"


@dataclass(frozen=True)
class DataSource:
    """Data that a model was trained on.

    Attributes:
        name: E.g. ``"QM9"``.
        training: Examples to train on.
        held_out: Examples that are never trained on.
        source: Who made it, where it was published, in which package it came.
        licence: As its publisher states it; say so if it is not known.
        notes: What was left out, how much of each batch it is.
    """

    name: str
    training: int
    held_out: int
    source: str
    licence: str
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Measured:
    """A measured figure with its 95% interval, if it has one, and what it was measured on."""

    name: str
    value: float
    interval: tuple[float, float] | None
    of: str


@dataclass(frozen=True)
class ModelCard:
    """What a card says.

    Attributes:
        title: E.g. the name of the weight file.
        summary: One or two sentences: what the model draws and what it is for.
        examples: What it was trained on, e.g. ``"molecules"``.
        what: Lines on the latent, its units, the network, the sampler, the file.
        data: What it was trained on.
        command: That trains it again, see :func:`command_line`.
        recipe: Lines on how it was trained.
        settings: Those that differ from the defaults, see :func:`changed_settings`.
        progress: Where the training stands, e.g. ``"finished: 2,600,000 of 2,600,000 molecules"``.
        compute: Where and for how long.
        history: The curve.
        quality: The last measurement; empty before the first.
        limits: What it cannot do, what it was not tested for.
    """

    title: str
    summary: str
    examples: str
    what: Sequence[str]
    data: Sequence[DataSource]
    command: str
    recipe: Sequence[str]
    settings: Mapping[str, tuple[Any, Any]]
    progress: str
    compute: ComputeLog
    history: TrainingHistory
    quality: Sequence[Measured]
    limits: Sequence[str]

    def render(self) -> str:
        """Returns the card as Markdown."""
        sections = [
            [f"# {self.title}", "", self.summary, "", "Written by `pilotwave train`; every figure is of this run."],
            ["## What it is", *_bullets(self.what)],
            ["## Data", *("\n".join(_source(source, self.examples)) + "\n" for source in self.data)],
            ["## Training", self.progress, "", "```", self.command, "```", "", *_bullets(self.recipe)],
            ["Settings that differ from the defaults:", "", *_settings(self.settings)],
            ["### Compute", *_bullets(self.compute.lines())],
            ["### Curve", "", *self.history.table(self.examples)],
            ["## Measured quality", "", *_quality(self.quality)],
            ["## Limits", *_bullets(self.limits)],
        ]
        return "\n\n".join("\n".join(lines).rstrip() for lines in sections) + "\n"


def write_card(card: ModelCard, folder: Path) -> Path:
    """Writes the card into a run's folder, atomically, and returns its path.

    Raises:
        StorageError: The file could not be written.
    """
    path = folder / CARD_NAME
    write_atomically(path, card.render().encode())
    return path


def changed_settings(config: BaseModel, leave_out: Collection[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that are not at their defaults: dotted name to (value, default), as JSON has them.

    Args:
        config: Of a run; a required field has no default and is left out.
        leave_out: Top-level names that say nothing about the model, e.g. ``"output"``.
    """
    values = config.model_dump(mode="json")
    changed: dict[str, tuple[Any, Any]] = {}
    for name, field in type(config).model_fields.items():
        if name in leave_out or field.is_required():
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        default = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
        changed |= dict(_differences(name, values[name], default))
    return changed


def command_line(model: str, settings: Mapping[str, tuple[Any, Any]]) -> str:
    """Returns the command that trains with these settings; the output folder is the reader's to choose."""
    words = ["pilotwave", "train", model, "--output", "FOLDER"]
    for name, (value, _) in settings.items():
        text = value if isinstance(value, str) else json.dumps(value)
        words += ["--set", shlex.quote(f"{name}={text}")]
    return " ".join(words)


def _differences(name: str, value: Any, default: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(value, dict) and isinstance(default, dict):
        for key in value:
            yield from _differences(f"{name}.{key}", value[key], default.get(key))
    elif json.dumps(value) != json.dumps(default, default=str):
        yield name, (value, default)


def _bullets(lines: Sequence[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _source(source: DataSource, examples: str) -> list[str]:
    return [
        f"**{source.name}**: {source.training:,} {examples} to train on, {source.held_out:,} held out and never "
        "trained on.",
        f"- Source: {source.source}",
        f"- Licence: {source.licence}",
        *_bullets(source.notes),
    ]


def _settings(settings: Mapping[str, tuple[Any, Any]]) -> list[str]:
    if not settings:
        return ["none."]
    rows = [f"| {name} | {json.dumps(value)} | {json.dumps(other)} |" for name, (value, other) in settings.items()]
    return ["| setting | value | default |", "|---|---|---|", *rows]


def _quality(quality: Sequence[Measured]) -> list[str]:
    if not quality:
        return ["Nothing was measured yet."]
    lines = ["| measure | value | 95% interval | measured on |", "|---|---|---|---|"]
    for item in quality:
        interval = "" if item.interval is None else f"{item.interval[0]:.3f} to {item.interval[1]:.3f}"
        lines.append(f"| {item.name} | {item.value:.3f} | {interval} | {item.of} |")
    return lines


__all__ = ["CARD_NAME", "DataSource", "Measured", "ModelCard", "changed_settings", "command_line", "write_card"]
