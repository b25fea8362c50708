"""Samples from files of the user's: molecules from SDF, images from a folder or a file, arrays from CSV or NPY.

May import numpy, :mod:`pilotwave.samples` and :mod:`pilotwave.errors`; RDKit and pillow inside functions.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pilotwave.errors import InputError, MissingDependencyError
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample, Sample

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
READABLE = "an .sdf or .sdf.gz, a folder of images or an image, a .csv or .npy of arrays"


@dataclass(frozen=True)
class NamedSample:
    """A sample and what its file calls it."""

    name: str
    sample: Sample


def read_samples(path: Path, media: Collection[str], *, add_hydrogens: bool = False) -> list[NamedSample]:
    """Reads every sample of a file or folder.

    Args:
        path: See :data:`READABLE`.
        media: The kinds that are wanted; a ``.npy`` of uint8 with three or four axes holds images if those are.
        add_hydrogens: Add the hydrogens that molecules lack, with coordinates.

    Raises:
        InputError: It is not there, not readable, empty, or of a media that is not wanted.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file; expected {READABLE}")
    suffix = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    found: list[NamedSample]
    if path.is_dir() or suffix in IMAGE_SUFFIXES:
        found = _images(path)
    elif suffix in (".sdf", ".sdf.gz", ".mol"):
        found = _molecules(path, add_hydrogens)
    elif suffix == ".csv":
        found = _table(path)
    elif suffix == ".npy":
        found = _arrays(path, as_images="image" in media)
    else:
        raise InputError(f"{path}: expected {READABLE}")
    if not found:
        raise InputError(f"{path}: there is nothing in it; expected {READABLE}")
    if found[0].sample.media not in media:
        wanted = " or ".join(sorted(media))
        raise InputError(f"{path}: expected {wanted} samples, got {found[0].sample.media} samples")
    return found


def _molecules(path: Path, add_hydrogens: bool) -> list[NamedSample]:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return [
        _molecule(record, f"{path.stem}-{number}", add_hydrogens)
        for number, record in enumerate(_records(data), 1)
        if record.strip()
    ]


def _records(data: bytes) -> list[str]:
    records: list[list[str]] = [[]]
    for line in data.decode("utf-8", errors="replace").splitlines():
        if line.startswith("$$$$"):
            records.append([])
        else:
            records[-1].append(line)
    return ["\n".join(lines) for lines in records]


def _molecule(record: str, name: str, add_hydrogens: bool) -> NamedSample:
    """Keeps the block as it stands, readable or not: what is wrong with it the oracle says."""
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise MissingDependencyError(
            "reading molecules needs rdkit, which is not installed; run: pip install 'pilotwave[molecules]'"
        ) from error
    lines = record.splitlines()
    end = lines.index("M  END") + 1 if "M  END" in lines else len(lines)
    block = "\n".join([*lines[:end], ""])
    title = lines[0].strip() or name
    with rdBase.BlockLogs():
        try:
            molecule = Chem.MolFromMolBlock(block, removeHs=False)
            if molecule is None:
                return NamedSample(title, MoleculeSample(block, title))
            if add_hydrogens and molecule.GetNumConformers():
                molecule = Chem.AddHs(molecule, addCoords=True)
                block = Chem.MolToMolBlock(molecule)
            smiles = Chem.MolToSmiles(Chem.RemoveHs(molecule))
        except (ValueError, RuntimeError):
            smiles = title
    return NamedSample(title, MoleculeSample(block, smiles))


def _images(path: Path) -> list[NamedSample]:
    files = [path]
    if path.is_dir():
        files = sorted(item for item in path.rglob("*") if item.suffix.lower() in IMAGE_SUFFIXES)
    named = []
    for file in files:
        inside = file.relative_to(path) if path.is_dir() else Path(file.name)
        class_name = inside.parent.name or None
        named.append(NamedSample(str(inside), ImageSample(_pixels(file), class_name)))
    return named


def _pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(
            "reading images needs Pillow, which is not installed; run: pip install 'pilotwave[images]'"
        ) from error
    try:
        with Image.open(path) as file:
            transparent = "A" in file.getbands() or "transparency" in file.info
            grey = file.mode in ("1", "L") and not transparent
            pixels = np.asarray(file.convert("RGBA" if transparent else "L" if grey else "RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: expected an image: {' '.join(str(error).split())}") from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _table(path: Path) -> list[NamedSample]:
    """Reads an array from every line; a first line that is no numbers is a header, and a column ``id`` names."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, row) for number, row in enumerate(csv.reader(file), 1) if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error
    header: Sequence[str] = []
    if lines and any(_as_number(item) is None for item in lines[0][1]):
        header = [item.strip().lower() for item in lines.pop(0)[1]]
    place = header.index("id") if "id" in header else None
    named: list[NamedSample] = []
    for number, row in lines:
        items = [item for column, item in enumerate(row) if column != place]
        values = [_as_number(item) for item in items]
        wrong = next((item for item, value in zip(items, values, strict=True) if value is None), None)
        if wrong is not None:
            raise InputError(f"{path}: line {number}: expected numbers, got {wrong!r:.40}")
        name = row[place] if place is not None and place < len(row) else f"{path.stem}-{len(named) + 1}"
        named.append(NamedSample(name, ArraySample(np.array(values, dtype=np.float32))))
    return named


def _arrays(path: Path, as_images: bool) -> list[NamedSample]:
    try:
        stack = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: expected arrays as numpy.save writes them: {error}") from error
    if not isinstance(stack, np.ndarray) or stack.ndim < 1 or stack.dtype.kind not in "fiub":
        raise InputError(f"{path}: expected an array of numbers with a first axis for the samples")
    names = [f"{path.stem}-{number}" for number in range(1, len(stack) + 1)]
    if as_images and stack.dtype == np.uint8 and stack.ndim in (3, 4):
        images = stack if stack.ndim == 4 else stack[..., None]
        if images.shape[-1] not in (1, 3, 4):
            raise InputError(f"{path}: expected images with 1, 3 or 4 channels last, got shape {stack.shape}")
        return [NamedSample(name, ImageSample(image)) for name, image in zip(names, images, strict=True)]
    return [
        NamedSample(name, ArraySample(np.asarray(item, dtype=np.float32)))
        for name, item in zip(names, stack, strict=True)
    ]


def _as_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


__all__ = ["IMAGE_SUFFIXES", "READABLE", "NamedSample", "read_samples"]
