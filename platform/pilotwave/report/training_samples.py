"""What a model in training draws, on the disk: a page of pictures, and molecules as an SDF, written anew each time.

May import :mod:`pilotwave.report`, :mod:`pilotwave.samples` and :mod:`pilotwave.storage`; RDKit, matplotlib and
pillow are imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pilotwave.report.image_grid import save_image_grid
from pilotwave.report.molecule_cards import MoleculeCard, draw_cards
from pilotwave.report.molecules import sdf_record
from pilotwave.samples import ImageSample, Invalid, MoleculeSample, Sample
from pilotwave.storage import write_atomically

PICTURE_NAME, SDF_NAME = "samples.png", "samples.sdf"
_COLUMNS = 6
_PIXELS = 112
"""Side of a picture on its page, at least; small ones are enlarged by a whole number."""


def write_training_samples(samples: Sequence[Sample | Invalid], folder: Path, seen: int) -> None:
    """Writes ``samples.png`` and, of molecules, ``samples.sdf``.

    Args:
        samples: The first draws of a measurement; nothing is written if there are none.
        folder: Of the training run.
        seen: Training examples seen; told in the SDF.

    Raises:
        MissingDependencyError: A package that draws is not installed; the SDF was written before.
        StorageError: A file could not be written.
    """
    molecules = [sample for sample in samples if isinstance(sample, MoleculeSample)]
    pictures = [sample for sample in samples if isinstance(sample, ImageSample)]
    if molecules:
        write_atomically(folder / SDF_NAME, "".join(_records(samples, seen)).encode())
        cards = [_card(place, sample) for place, sample in enumerate(samples)]
        write_atomically(folder / PICTURE_NAME, draw_cards(cards, columns=_COLUMNS))
    elif pictures:
        names = [picture.class_name or "" for picture in pictures]
        zoom = max(1, _PIXELS // max(pictures[0].pixels.shape[:2]))
        save_image_grid(pictures, folder / PICTURE_NAME, labels=names if any(names) else None, zoom=zoom)


def _records(samples: Sequence[Sample | Invalid], seen: int) -> list[str]:
    return [
        sdf_record(
            sample.mol_block,
            f"draw-{place}",
            {
                "smiles": sample.smiles,
                "strictly_valid": sample.strictly_valid,
                "repaired_hydrogens": sample.repaired_hydrogens,
                "molecules_seen": seen,
            },
        )
        for place, sample in enumerate(samples)
        if isinstance(sample, MoleculeSample)
    ]


def _card(place: int, sample: Sample | Invalid) -> MoleculeCard:
    if isinstance(sample, MoleculeSample):
        validity = "strictly valid" if sample.strictly_valid else f"{sample.repaired_hydrogens} H repaired"
        return MoleculeCard(sample, sample.smiles, f"draw {place} · {validity}", small_title=True)
    reason = sample.reason if isinstance(sample, Invalid) else ""
    return MoleculeCard(None, "", f"draw {place} · invalid", small_title=True, reason=reason)


__all__ = ["PICTURE_NAME", "SDF_NAME", "write_training_samples"]
