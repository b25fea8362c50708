"""The model card that a training writes beside its weights, from what the run itself knows.

May import torch, the modules beside it and :mod:`pilotwave.storage`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pilotwave.backbones.image.sources import Source
from pilotwave.storage import write_atomically

CARD_NAME = "MODEL_CARD.md"


@dataclass(frozen=True)
class Card:
    """What a model card says.

    Attributes:
        title: Of the page.
        purpose: What the model is for, and what not; a sentence or two.
        weights: The file that the card is about.
        parameters: How many the network has.
        data: One line per source of pictures, with how many are seen and how many held out.
        licence: Of the data.
        settings: Of the training, by name.
        seen: Training pictures seen, repetitions counted.
        epochs: The same, over the number of distinct pictures.
        seconds: Wall-clock time of training, over all continuations.
        device: Where it ran.
        threads: CPU threads.
        quality: One line per measurement, with what it was measured on.
        limits: One line each.
    """

    title: str
    purpose: str
    weights: Path
    parameters: int
    data: Sequence[str]
    licence: str
    settings: Mapping[str, Any]
    seen: int
    epochs: float
    seconds: float
    device: str
    threads: int
    quality: Sequence[str]
    limits: Sequence[str]

    def text(self) -> str:
        """Returns the page."""
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items() if value is not None)
        where = f"{self.device}, {self.threads} of {os.cpu_count()} CPU threads ({machine()})"
        parts = [
            f"# {self.title}",
            self.purpose,
            f"File: `{self.weights.name}`, float16, {self.weights.stat().st_size / 1e6:.2f} MB, "
            f"{self.parameters / 1e6:.2f} M parameters; its header names the kind, the format version, the network "
            "and the training.",
            "## Data",
            *_listed([*self.data, f"Licence of the data: {self.licence}."]),
            "## Training",
            f"{self.seen:,} pictures seen ({self.epochs:.1f} epochs) in {self.seconds / 60:.1f} minutes of "
            f"wall-clock time on {where}; torch {torch.__version__}.",
            f"Settings: {settings}.",
            "## Measured quality",
            *_listed(self.quality),
            "## Limits",
            *_listed(self.limits),
        ]
        return "\n\n".join(parts) + "\n"

    def write(self) -> None:
        """Writes the page into the folder of the weights.

        Raises:
            StorageError: It could not be written.
        """
        write_atomically(self.weights.with_name(CARD_NAME), self.text().encode())


def described(source: Source) -> str:
    """Returns the line on a source: how many pictures, of what, how many held out."""
    picture = source.train.picture
    colours = "grey" if picture.channels == 1 else "RGB over white"
    return (
        f"{source.name}: {len(source.train):,} pictures to train on and {len(source.held_out):,} held out, "
        f"{picture.side}x{picture.side}, {colours}, {len(picture.class_names)} class(es)."
    )


def machine() -> str:
    """Returns the processor's model, as the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _listed(lines: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {line}" for line in lines)]


__all__ = ["CARD_NAME", "Card", "described", "machine"]
