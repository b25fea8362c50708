"""Fashion-MNIST from the files of the Debian package, or from a user's folder of the same four files.

The format is "idx" (LeCun): a big-endian header of type and shape, then the bytes, usually gzipped. May import
numpy, torch, the network beside it and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pilotwave.backbones.image.network import PictureFormat
from pilotwave.errors import InputError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package ``dataset-fashion-mnist`` puts its files."""

CLASS_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
"""What the labels 0 to 9 mean."""

IMAGE_SIZE = 28
_FILES = {"train": "train", "held-out": "t10k"}
_UNSIGNED_BYTE = 0x08


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Pictures with their classes.

    Attributes:
        images: uint8 of shape (count, side, side, channels).
        labels: int64 of shape (count,), each a place in ``class_names``.
        class_names: What the labels mean.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...] = CLASS_NAMES

    def __len__(self) -> int:
        return len(self.images)

    @property
    def picture(self) -> PictureFormat:
        """What a model of these pictures draws."""
        return PictureFormat(channels=self.images.shape[3], side=self.images.shape[1], class_names=self.class_names)

    def select(self, rows: npt.NDArray[np.int64]) -> LabelledImages:
        """Returns the pictures of these rows."""
        return LabelledImages(self.images[rows], self.labels[rows], self.class_names)

    def digest(self) -> str:
        """Returns 16 hexadecimal digits that change with any pixel, label or class name."""
        names = "\0".join(self.class_names).encode()
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes() + names).hexdigest()[:16]


def to_latents(images: npt.NDArray[np.uint8]) -> Tensor:
    """Turns pictures of shape (n, side, side, channels) into latents (n, channels, side, side) from -1 to 1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def load(split: Literal["train", "held-out"], folder: Path | None = None) -> LabelledImages:
    """Reads one split.

    Args:
        split: ``"train"`` are the 60,000 pictures of the training files; ``"held-out"`` the 10,000 of the
            test files, which no training ever sees.
        folder: Holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the two ``t10k-`` files, each
            plain or with ``.gz``; the Debian package's folder if None.

    Raises:
        InputError: A file is missing or is not what its name says; the message says how to get it.
    """
    folder = DEBIAN_FOLDER if folder is None else folder
    prefix = _FILES[split]
    images = read_idx(_find(folder, f"{prefix}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{prefix}-labels-idx1-ubyte"))
    if images.ndim != 3 or images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE) or len(images) == 0:
        raise InputError(f"expected {prefix} images of shape (n, 28, 28) in {folder}, got {images.shape}")
    if labels.shape != (len(images),) or labels.max() >= len(CLASS_NAMES):
        raise InputError(
            f"expected {len(images)} {prefix} labels from 0 to 9 in {folder}, "
            f"got shape {labels.shape} with largest {labels.max() if labels.size else 'none'}"
        )
    return LabelledImages(images[..., None], labels.astype(np.int64))


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Reads an idx file of unsigned bytes, gzipped or plain, of any shape.

    Raises:
        InputError: It cannot be read, is damaged, or holds another type.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"could not read {path} ({error}); download it again") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTE or data[3] == 0:
        raise InputError(f"expected an idx file of unsigned bytes at {path}, but it begins with {data[:4].hex()!r}")
    dimensions = data[3]
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise InputError(f"expected a header of {start} bytes in {path}, got {len(data)}; download it again")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise InputError(f"expected {math.prod(shape)} bytes for shape {shape} in {path}, got {len(data) - start}")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape).copy()


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    mend = (
        "run: apt install dataset-fashion-mnist"
        if folder == DEBIAN_FOLDER
        else "give the folder that holds it, or none after: apt install dataset-fashion-mnist"
    )
    raise InputError(f"expected the Fashion-MNIST file {name}[.gz] in {folder}, but it is not there; {mend}")


__all__ = ["CLASS_NAMES", "DEBIAN_FOLDER", "IMAGE_SIZE", "LabelledImages", "load", "read_idx", "to_latents"]
