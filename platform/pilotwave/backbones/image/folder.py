"""A user's folder of pictures: PNG, JPEG or WebP, each sub-folder a class.

May import numpy, the modules beside it and :mod:`pilotwave.errors`; pillow inside functions.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pilotwave.backbones.image.dataset import LabelledImages
from pilotwave.errors import InputError, MissingDependencyError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FEWEST_PICTURES = 10
HELD_OUT_PERCENT = 10
SIDES = range(16, 129, 4)
"""Sides that a model can have, pixels."""


def load_folder(folder: Path) -> tuple[LabelledImages, LabelledImages]:
    """Reads all pictures of a folder and holds a tenth of them out, by their content.

    Pictures are laid over white; they are grey if all of them are, or else RGB. Each sub-folder (with all in it) is
    a class by its name, in alphabetical order; pictures right in the folder are of one class. Other files are left
    alone.

    Returns:
        The pictures to train on and the pictures held out, each in the order of their paths.

    Raises:
        InputError: There are too few pictures, one cannot be read, or one is not square, of a side that no model
            has, or of another size than the first; the message names the file.
        MissingDependencyError: Pillow is not installed.
    """
    by_class = _files_by_class(folder)
    files = [path for _, inside in by_class for path in inside]
    images = np.stack(_same_size(files))
    if (images == images[..., :1]).all():
        images = np.ascontiguousarray(images[..., :1])
    labels = np.repeat(np.arange(len(by_class), dtype=np.int64), [len(inside) for _, inside in by_class])
    whole = LabelledImages(images, labels, tuple(name for name, _ in by_class))
    held_out = held_out_rows(images)
    return whole.select(np.flatnonzero(~held_out)), whole.select(np.flatnonzero(held_out))


def held_out_rows(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Says which pictures are held out: the tenth with the lowest digests, copies of a picture together."""
    digests = np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in images])
    distinct = np.unique(digests)
    chosen = distinct[: max(1, len(distinct) * HELD_OUT_PERCENT // 100)]
    return np.isin(digests, chosen)


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Reads one picture file over white, uint8 of shape (height, width, 3); see :func:`picture_from_bytes`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"could not read the picture {path} ({error.strerror}); mend it or take it out") from error
    return picture_from_bytes(data, str(path))


def picture_from_bytes(data: bytes, name: str, side: int | None = None) -> npt.NDArray[np.uint8]:
    """Decodes one picture over white, uint8 of shape (height, width, 3).

    Args:
        data: A PNG, JPEG or WebP file.
        name: For the message.
        side: If given, the picture is scaled to this many pixels per side.

    Raises:
        InputError: It is no picture.
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise MissingDependencyError(
            "reading pictures needs pillow, which is not installed; run: pip install 'pilotwave[images]'"
        ) from error
    try:
        with Image.open(io.BytesIO(data)) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGBA")
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is no picture, or a damaged one; mend it or take it out") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"could not read the picture {name} ({reason}); mend it or take it out") from error
    if side is not None:
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    paper = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(paper, picture).convert("RGB"))


def _files_by_class(folder: Path) -> list[tuple[str, list[Path]]]:
    if not folder.is_dir():
        raise InputError(f"expected a folder of pictures at {folder}, but there is none")
    right_here = _pictures(folder.iterdir())
    below = {place.name: _pictures(place.rglob("*")) for place in sorted(folder.iterdir()) if place.is_dir()}
    classes = [(name, inside) for name, inside in below.items() if inside and not name.startswith(".")]
    if right_here and classes:
        raise InputError(
            f"pictures lie both in {folder} (such as {right_here[0].name}) and in its sub-folder {classes[0][0]}; "
            "put every picture into the sub-folder of its class, or all into one folder"
        )
    if right_here:
        classes = [(folder.resolve().name, right_here)]
    count = sum(len(inside) for _, inside in classes)
    if count < FEWEST_PICTURES:
        kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
        raise InputError(f"expected {FEWEST_PICTURES} pictures or more ({kinds}) in {folder}, found {count}")
    return classes


def _pictures(places: Iterable[Path]) -> list[Path]:
    return sorted(
        place
        for place in places
        if place.suffix.lower() in SUFFIXES and not place.name.startswith(".") and place.is_file()
    )


def _same_size(files: list[Path]) -> list[npt.NDArray[np.uint8]]:
    """Reads the files and makes sure that they are squares of one side that a model can have."""
    pictures: list[npt.NDArray[np.uint8]] = []
    for path in files:
        picture = read_picture(path)
        height, width = picture.shape[:2]
        if not pictures and (height != width or width not in SIDES):
            raise InputError(
                f"expected square pictures of 16 to 128 pixels, a multiple of 4, but {path} is {width}x{height}; "
                "scale all pictures to one such size, e.g. 64x64"
            )
        if pictures and picture.shape != pictures[0].shape:
            first = pictures[0].shape[1]
            raise InputError(
                f"expected pictures of one size, but {files[0]} is {first}x{first} and {path} is {width}x{height}; "
                "scale all pictures to one size"
            )
        pictures.append(picture)
    return pictures


__all__ = ["FEWEST_PICTURES", "SUFFIXES", "held_out_rows", "load_folder", "picture_from_bytes"]
