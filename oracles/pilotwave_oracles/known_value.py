"""A question whose answer the user knows, as it stands in a campaign file: asked before the first paid query.

May import pydantic, numpy and pilotwave; RDKit and Pillow inside functions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from pilotwave.config.components import path_in_campaign
from pilotwave.errors import InputError, MissingDependencyError
from pilotwave.protocols import KnownAnswer
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample, Sample


class KnownValue(BaseModel):
    """A question whose answer you know, asked before the first paid query.

    Exactly one of ``array``, ``mol_block`` and ``image`` says what is asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    array: tuple[float, ...] | None = Field(None, description="A vector, for functions of arrays.")
    mol_block: str | None = Field(None, description="An MDL mol block, for functions of molecules.")
    image: Path | None = Field(
        None, description="An image file, for functions of images; relative to the campaign file."
    )
    value: float | None = Field(None, description="The known value; null: any finite value will do.")
    tolerance: float = Field(1e-6, ge=0, description="How far from it the answer may lie.")

    @field_validator("image")
    @classmethod
    def _resolve(cls, image: Path | None, info: ValidationInfo) -> Path | None:
        if image is None:
            return None
        path = path_in_campaign(image, info)
        if not path.is_file():
            raise ValueError(f"expected an image file, found none at {path}")
        return path

    @model_validator(mode="after")
    def _one_question(self) -> KnownValue:
        if sum(question is not None for question in (self.array, self.mol_block, self.image)) != 1:
            raise ValueError("expected exactly one of array, mol_block and image")
        return self

    def as_known_answer(self) -> KnownAnswer:
        """Returns the question as an oracle names it.

        Raises:
            InputError: The image cannot be read.
        """
        sample: Sample
        if self.mol_block is not None:
            sample = MoleculeSample(self.mol_block, _smiles_of(self.mol_block))
        elif self.image is not None:
            sample = read_image(self.image)
        else:
            sample = ArraySample(np.asarray(self.array, dtype=np.float32))
        return KnownAnswer(sample, self.value, self.tolerance)


def read_image(path: Path) -> ImageSample:
    """Reads an image file as grey, RGB or RGBA.

    Raises:
        MissingDependencyError: Pillow is not installed.
        InputError: It is no image.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingDependencyError(
            "reading an image file needs Pillow, which is not installed; run: pip install 'pilotwave[images]'"
        ) from error
    try:
        with Image.open(path) as file:
            transparent = "A" in file.getbands() or "transparency" in file.info
            grey = file.mode in ("1", "L", "I", "I;16", "F") and not transparent
            image = file.convert("RGBA" if transparent else "L" if grey else "RGB")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: expected an image: {' '.join(str(error).split())}") from error
    pixels = np.asarray(image, dtype=np.uint8)
    return ImageSample(pixels[:, :, None] if pixels.ndim == 2 else pixels)


def _smiles_of(mol_block: str) -> str:
    """Returns the canonical SMILES of a mol block, or words if it has none: the oracle says what is wrong."""
    try:
        from rdkit import Chem, rdBase
    except ImportError:
        return "known molecule"
    with rdBase.BlockLogs():
        molecule = Chem.MolFromMolBlock(mol_block)
    return "known molecule" if molecule is None else str(Chem.MolToSmiles(molecule))


__all__ = ["KnownValue", "read_image"]
