"""A page of pictures as one PNG. May import :mod:`pilotwave.samples` and numpy; pillow inside the function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pilotwave.errors import MissingDependencyError, StorageError
from pilotwave.samples import ImageSample

_GAP = 4
_TEXT_HEIGHT = 14
_PAPER = 255


def save_image_grid(
    samples: Sequence[ImageSample],
    path: Path,
    columns: int = 8,
    labels: Sequence[str] | None = None,
    zoom: int = 2,
) -> None:
    """Writes pictures, row by row, into one PNG.

    Args:
        samples: One at least; they may differ in size and channels.
        path: Of the PNG; its folder is made if need be.
        columns: Pictures in a row.
        labels: One line of text under each picture, cut to its width; none if left out.
        zoom: Each pixel becomes a square of this side.

    Raises:
        ValueError: There are no samples, or not as many labels as samples.
        MissingDependencyError: Pillow is not installed.
        StorageError: The file could not be written.
    """
    if not samples or columns < 1 or zoom < 1:
        raise ValueError(f"expected samples, columns and zoom of 1 at least, got {len(samples)}, {columns}, {zoom}")
    if labels is not None and len(labels) != len(samples):
        raise ValueError(f"expected a label for each of {len(samples)} samples, got {len(labels)}")
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise MissingDependencyError(
            "pictures need pillow, which is not installed; run: pip install 'pilotwave[report]'"
        ) from error
    height = max(sample.pixels.shape[0] for sample in samples) * zoom
    width = max(sample.pixels.shape[1] for sample in samples) * zoom
    text_height = 0 if labels is None else _TEXT_HEIGHT
    columns = min(columns, len(samples))
    rows = math.ceil(len(samples) / columns)
    size = (_GAP + columns * (width + _GAP), _GAP + rows * (height + text_height + _GAP))
    page = Image.new("RGB", size, (_PAPER,) * 3)
    pen = ImageDraw.Draw(page)
    for place, sample in enumerate(samples):
        left = _GAP + (place % columns) * (width + _GAP)
        top = _GAP + (place // columns) * (height + text_height + _GAP)
        page.paste(Image.fromarray(_on_paper(sample.pixels, zoom)), (left, top))
        if labels is not None:
            text = labels[place]
            while text and pen.textlength(text) > width:
                text = text[:-1]
            pen.text((left, top + height + 1), text, fill=(0, 0, 0))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(path, format="PNG", optimize=True)
    except OSError as error:
        raise StorageError(f"could not write {path}: {error.strerror or error}") from error


def _on_paper(pixels: npt.NDArray[np.uint8], zoom: int) -> npt.NDArray[np.uint8]:
    """Returns (height, width, 3) of any kind of picture, transparency laid on paper, enlarged."""
    channels = pixels.shape[2]
    colours = pixels[..., :3] if channels >= 3 else np.repeat(pixels, 3, axis=2)
    if channels == 4:
        opacity = pixels[..., 3:].astype(np.float32) / 255
        colours = (colours * opacity + _PAPER * (1 - opacity)).round().astype(np.uint8)
    return np.ascontiguousarray(colours.repeat(zoom, axis=0).repeat(zoom, axis=1))


__all__ = ["save_image_grid"]
