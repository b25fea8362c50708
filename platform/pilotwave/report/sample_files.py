"""Writes what a model drew to a file whose ending says its format.

| ending | of | holds |
|---|---|---|
| ``.sdf`` | molecules | the valid ones in 3D, with SMILES, validity, number, seed, prediction as fields |
| ``.smi`` | molecules | a SMILES and a name per valid one |
| ``.csv`` | molecules, arrays | a line for every draw, valid or not |
| ``.png`` | molecules, images | the first 100 draws, side by side |
| ``.npy`` | images, arrays | all valid ones as one array |

May import :mod:`pilotwave.report`, :mod:`pilotwave.samples` and :mod:`pilotwave.errors`; RDKit, matplotlib and
pillow are imported when something is drawn.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pilotwave.errors import InputError, MissingDependencyError
from pilotwave.report.image_grid import save_image_grid
from pilotwave.report.molecule_cards import MoleculeCard, draw_cards
from pilotwave.report.molecules import sdf_record
from pilotwave.report.tables import format_value
from pilotwave.samples import ArraySample, ImageSample, Invalid, MoleculeSample, Sample
from pilotwave.storage import write_atomically

SUFFIXES = {
    "molecule": (".sdf", ".smi", ".csv", ".png"),
    "image": (".png", ".npy"),
    "array": (".npy", ".csv"),
}
"""The endings that samples of each media can be written as, the usual one first."""
PICTURED = 100
"""How many samples a picture holds at most."""
_PICTURE_NEEDS = {
    "molecule": (("rdkit", "matplotlib"), "molecules,report"),
    "image": (("PIL",), "report"),
}
_PIXELS = 112
"""Side of a picture on its page, at least; small ones are enlarged by a whole number."""


@dataclass(frozen=True)
class Drawn:
    """One draw of a model.

    Attributes:
        index: Its place, from 0.
        seed: Of this draw alone.
        sample: What it decoded to.
        predicted: The value that is expected of it, or None.
    """

    index: int
    seed: int
    sample: Sample | Invalid
    predicted: float | None = None


def check_output(path: Path, media: str, *, overwrite: bool = False) -> None:
    """Makes sure, before anything is drawn, that samples can be written there.

    Raises:
        InputError: The ending does not suit the media, or there is something already.
        MissingDependencyError: A package that the format needs is not installed.
    """
    suffixes = SUFFIXES.get(media, ())
    if path.suffix.lower() not in suffixes:
        known = (
            f"a file name that ends in {', '.join(suffixes)}" if suffixes else f"no output for {media!r} samples"
        )
        raise InputError(f"--output {path}: expected {known}, because the model draws samples of kind {media!r}")
    if path.is_dir():
        raise InputError(f"--output {path}: expected the name of a file, got a folder")
    if path.exists() and not overwrite:
        raise InputError(f"--output {path}: there is such a file already; choose another name, or say --force")
    if path.suffix.lower() == ".png":
        packages, extras = _PICTURE_NEEDS[media]
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingDependencyError(
                f"a picture of samples needs {', '.join(missing)}, which is not installed; "
                f"run: pip install 'pilotwave[{extras}]'"
            )


def write_samples(drawn: Sequence[Drawn], path: Path, name: str, *, in_space: bool = False) -> str:
    """Writes draws of one media to a file, whole or not at all.

    Args:
        drawn: In order; one of them at least is valid.
        path: Checked by :func:`check_output`; its folder is made if need be.
        name: What the samples are called in the file, followed by their number.
        in_space: Whether a picture shows molecules as they stand in space, rather than their formulas.

    Returns:
        What the file holds, in words.

    Raises:
        StorageError: The file cannot be written.
    """
    media = next(item.sample.media for item in drawn if not isinstance(item.sample, Invalid))
    suffix = path.suffix.lower()
    valid = [item for item in drawn if not isinstance(item.sample, Invalid)]
    if suffix == ".png":
        pictured = drawn if media == "molecule" else valid
        _write_picture(pictured[:PICTURED], path, media, in_space)
        return (
            f"the first {PICTURED} of {len(drawn)} draws" if len(pictured) > PICTURED else f"{len(pictured)} draws"
        )
    if suffix == ".csv":
        write_atomically(path, _table(drawn, media).encode())
        return f"{len(drawn)} draws"
    if suffix == ".npy":
        write_atomically(path, _array(drawn))
    else:
        write_atomically(path, (_sdf(drawn, name) if suffix == ".sdf" else _smiles(drawn, name)).encode())
    return f"{len(valid)} valid samples"


def _sdf(drawn: Sequence[Drawn], name: str) -> str:
    records = []
    for item in drawn:
        if isinstance(item.sample, MoleculeSample):
            fields = {
                "smiles": item.sample.smiles,
                "strictly_valid": item.sample.strictly_valid,
                "repaired_hydrogens": item.sample.repaired_hydrogens,
                "index": item.index,
                "seed": item.seed,
                **({} if item.predicted is None else {"predicted": item.predicted}),
            }
            records.append(sdf_record(item.sample.mol_block, f"{name}-{item.index}", fields))
    return "".join(records)


def _smiles(drawn: Sequence[Drawn], name: str) -> str:
    return "".join(
        f"{item.sample.smiles} {name}-{item.index}\n" for item in drawn if isinstance(item.sample, MoleculeSample)
    )


def _table(drawn: Sequence[Drawn], media: str) -> str:
    text = io.StringIO()
    columns = ["smiles", "strictly_valid", "repaired_hydrogens"] if media == "molecule" else []
    arrays = [item.sample.array.ravel() for item in drawn if isinstance(item.sample, ArraySample)]
    columns += [f"x{place}" for place in range(len(arrays[0]) if arrays else 0)]
    writer = csv.writer(text, lineterminator="\n")
    expected = any(item.predicted is not None for item in drawn)
    writer.writerow(["index", "seed", *columns, "invalid", *(["predicted"] if expected else [])])
    for item in drawn:
        cells: list[object] = [""] * len(columns)
        if isinstance(item.sample, MoleculeSample):
            cells = [item.sample.smiles, item.sample.strictly_valid, item.sample.repaired_hydrogens]
        elif isinstance(item.sample, ArraySample):
            cells = [float(value) for value in item.sample.array.ravel()]
        reason = item.sample.reason if isinstance(item.sample, Invalid) else ""
        value = "" if item.predicted is None else item.predicted
        writer.writerow([item.index, item.seed, *cells, reason, *([value] if expected else [])])
    return text.getvalue()


def _array(drawn: Sequence[Drawn]) -> bytes:
    arrays = [
        item.sample.pixels if isinstance(item.sample, ImageSample) else item.sample.array
        for item in drawn
        if isinstance(item.sample, ImageSample | ArraySample)
    ]
    buffer = io.BytesIO()
    np.save(buffer, np.stack(arrays))
    return buffer.getvalue()


def _write_picture(drawn: Sequence[Drawn], path: Path, media: str, in_space: bool) -> None:
    if media == "molecule":
        write_atomically(path, draw_cards([_card(item, in_space) for item in drawn], columns=6))
        return
    shown = [item.sample for item in drawn if isinstance(item.sample, ImageSample)]
    labels = [_caption(item) for item in drawn if isinstance(item.sample, ImageSample)]
    with tempfile.TemporaryDirectory(prefix="pilotwave-") as folder:
        page = Path(folder) / "page.png"
        save_image_grid(
            shown,
            page,
            columns=8,
            labels=labels if any(labels) else None,
            zoom=max(1, _PIXELS // max(shown[0].pixels.shape[:2])),
        )
        write_atomically(path, page.read_bytes())


def _caption(item: Drawn) -> str:
    """What stands below an image: its class, and the value that is expected of it."""
    name = item.sample.class_name if isinstance(item.sample, ImageSample) else None
    value = "" if item.predicted is None else format_value(item.predicted)
    return " ".join(filter(None, (name, value)))


def _card(item: Drawn, in_space: bool) -> MoleculeCard:
    if isinstance(item.sample, MoleculeSample):
        repaired = item.sample.repaired_hydrogens
        validity = "strictly valid" if item.sample.strictly_valid else f"{repaired} H repaired"
        value = "" if item.predicted is None else f" · expects {format_value(item.predicted)}"
        detail = f"draw {item.index} · {validity}{value}"
        return MoleculeCard(item.sample, item.sample.smiles, detail, in_space=in_space, small_title=True)
    reason = item.sample.reason if isinstance(item.sample, Invalid) else ""
    return MoleculeCard(None, "", f"draw {item.index} · invalid", small_title=True, reason=reason)


__all__ = ["PICTURED", "SUFFIXES", "Drawn", "check_output", "write_samples"]
