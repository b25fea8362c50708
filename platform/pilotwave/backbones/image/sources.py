"""Where a training's pictures come from: the package's own data set, its files elsewhere, or a user's folder.

May import the modules beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pilotwave.backbones.image import dataset
from pilotwave.backbones.image.dataset import LabelledImages
from pilotwave.backbones.image.folder import load_folder

FASHION_MNIST = (
    "Zalando SE, 2017; Xiao, Rasul, Vollgraf, arXiv:1708.07747; from the Debian package `dataset-fashion-mnist`."
)
UNKNOWN_LICENCE = "not known to this command; the owner's to state."


@dataclass(frozen=True)
class Source:
    """Pictures to train on and to hold out, and what a model card says of them.

    Attributes:
        train: Seen in training.
        held_out: Never seen in training.
        name: What the data is.
        origin: Who made it, and where it comes from.
        licence: Of the data.
    """

    train: LabelledImages
    held_out: LabelledImages
    name: str
    origin: str
    licence: str


def load_source(data: Path | None) -> Source:
    """Loads the data of a training.

    Args:
        data: A folder of the four idx files or of pictures; Fashion-MNIST as Debian packages it if None.

    Raises:
        InputError: The data is not there, or is not what it should be.
        MissingDependencyError: Pillow is needed and not installed.
    """
    if data is None or any(data.glob("t*-*-idx*-ubyte*")):
        train, held_out = dataset.load("train", data), dataset.load("held-out", data)
        if data is None:
            return Source(train, held_out, "Fashion-MNIST", FASHION_MNIST, "MIT (Expat).")
        return Source(train, held_out, "idx files", f"the user's folder `{data}`.", UNKNOWN_LICENCE)
    train, held_out = load_folder(data)
    return Source(train, held_out, "pictures", f"the user's folder `{data}`.", UNKNOWN_LICENCE)


__all__ = ["FASHION_MNIST", "Source", "load_source"]
