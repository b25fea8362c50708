"""What a backbone decodes and an oracle judges: arrays, images, molecules, and the reason when there is none.

May import only numpy and the standard library: a sample travels to oracle processes that must start fast,
and it is stored in the ledger, so every kind of sample can be written to JSON plus bytes and read back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt


@runtime_checkable
class Sample(Protocol):
    """A decoded sample, immutable.

    Attributes:
        media: The kind of sample, e.g. ``"image"``; oracles name the kinds that they accept.
    """

    media: ClassVar[str]

    def identity(self) -> str:
        """Returns a canonical key: equal keys mean the same thing to a chemist or a viewer."""
        ...

    def label(self) -> str:
        """Returns a short text for tables, e.g. the SMILES."""
        ...

    def payload(self) -> tuple[dict[str, Any], bytes]:
        """Returns the sample as JSON-compatible fields and bytes, for the ledger."""
        ...

    @classmethod
    def from_payload(cls, fields: Mapping[str, Any], blob: bytes) -> Self:
        """Rebuilds a sample from what :meth:`payload` returned."""
        ...


@dataclass(frozen=True)
class Invalid:
    """A latent that decodes to nothing an oracle could be asked about.

    Attributes:
        reason: One line, e.g. ``"two fragments"``.
        stage: Where it was found: ``"decode"`` or the name of a constraint.
    """

    reason: str
    stage: str = "decode"


@dataclass(frozen=True, eq=False)
class ArraySample:
    """A plain vector or array, for analytic backbones and numerical problems.

    Attributes:
        array: float32, any shape.
    """

    array: npt.NDArray[np.float32]
    media: ClassVar[str] = "array"

    def identity(self) -> str:
        return _digest(np.ascontiguousarray(self.array))

    def label(self) -> str:
        return f"array {'x'.join(map(str, self.array.shape))} {self.identity()[:8]}"

    def payload(self) -> tuple[dict[str, Any], bytes]:
        array = np.ascontiguousarray(self.array, dtype=np.float32)
        return {"shape": list(array.shape)}, array.tobytes()

    @classmethod
    def from_payload(cls, fields: Mapping[str, Any], blob: bytes) -> Self:
        return cls(np.frombuffer(blob, dtype=np.float32).reshape(fields["shape"]).copy())


@dataclass(frozen=True, eq=False)
class ImageSample:
    """An image.

    Attributes:
        pixels: uint8 of shape (height, width, channels) with 1 (grey), 3 (RGB) or 4 (RGBA) channels.
        class_name: What the image was asked to show, or None.
    """

    pixels: npt.NDArray[np.uint8]
    class_name: str | None = None
    media: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] not in (1, 3, 4):
            raise ValueError(
                "pixels must be uint8 of shape (height, width, 1 | 3 | 4), "
                f"got {self.pixels.dtype} of shape {self.pixels.shape}"
            )

    def identity(self) -> str:
        return _digest(np.ascontiguousarray(self.pixels))

    def label(self) -> str:
        return f"{self.class_name or 'image'} {self.identity()[:8]}"

    def payload(self) -> tuple[dict[str, Any], bytes]:
        fields = {"shape": list(self.pixels.shape), "class_name": self.class_name}
        return fields, np.ascontiguousarray(self.pixels).tobytes()

    @classmethod
    def from_payload(cls, fields: Mapping[str, Any], blob: bytes) -> Self:
        pixels = np.frombuffer(blob, dtype=np.uint8).reshape(fields["shape"]).copy()
        return cls(pixels, fields.get("class_name"))


@dataclass(frozen=True)
class MoleculeSample:
    """A molecule in three dimensions.

    Attributes:
        mol_block: An MDL mol block with all hydrogens and coordinates in Å.
        smiles: The canonical SMILES without explicit hydrogens.
        strictly_valid: True if nothing that was sampled had to be repaired.
        repaired_hydrogens: How many hydrogens the decoder added or removed against what was sampled.
    """

    mol_block: str
    smiles: str
    strictly_valid: bool = True
    repaired_hydrogens: int = 0
    media: ClassVar[str] = "molecule"

    def identity(self) -> str:
        return self.smiles

    def label(self) -> str:
        return self.smiles

    def payload(self) -> tuple[dict[str, Any], bytes]:
        fields = {
            "smiles": self.smiles,
            "strictly_valid": self.strictly_valid,
            "repaired_hydrogens": self.repaired_hydrogens,
        }
        return fields, self.mol_block.encode()

    @classmethod
    def from_payload(cls, fields: Mapping[str, Any], blob: bytes) -> Self:
        return cls(blob.decode(), fields["smiles"], fields["strictly_valid"], fields["repaired_hydrogens"])


SAMPLE_TYPES: Mapping[str, type[Sample]] = {kind.media: kind for kind in (ArraySample, ImageSample, MoleculeSample)}


def sample_from_payload(media: str, fields: Mapping[str, Any], blob: bytes) -> Sample:
    """Rebuilds a sample of the named media from its stored form.

    Raises:
        ValueError: The media is not one of :data:`SAMPLE_TYPES`.
    """
    if media not in SAMPLE_TYPES:
        raise ValueError(f"expected media to be one of {sorted(SAMPLE_TYPES)}, got {media!r}")
    return SAMPLE_TYPES[media].from_payload(fields, blob)


def _digest(array: npt.NDArray[Any]) -> str:
    header = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(header + array.tobytes()).hexdigest()


__all__ = [
    "SAMPLE_TYPES",
    "ArraySample",
    "ImageSample",
    "Invalid",
    "MoleculeSample",
    "Sample",
    "sample_from_payload",
]
