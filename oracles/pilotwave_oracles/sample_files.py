"""Samples in the formats that other programs read: PNG, NPY, XYZ, SDF.

May import numpy, pilotwave.samples, pilotwave.errors and pilotwave_oracles.geometry; RDKit for XYZ only.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from pilotwave.errors import OracleFailure
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample
from pilotwave_oracles.geometry import BOHR, read_geometry

_PNG_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""From channels to the colour type of the PNG specification (ISO/IEC 15948): grey, RGB, RGBA."""

_PNG_LONGEST = 65_500


@dataclass(frozen=True)
class Xyz:
    """A molecule as programs of quantum chemistry take it.

    Attributes:
        text: An XYZ file, Å.
        charge: In units of e.
        multiplicity: 2 S + 1, by the unpaired electrons.
    """

    text: str
    charge: int
    multiplicity: int


def png_bytes(sample: ImageSample) -> bytes:
    """Returns the image as a PNG file, the same bytes on every machine.

    Raises:
        OracleFailure: Stage ``"encode"``: it has no pixels or is longer than 65,500 pixels.
    """
    height, width, channels = sample.pixels.shape
    if min(height, width) < 1 or max(height, width) > _PNG_LONGEST:
        raise OracleFailure(f"expected sides of 1 to {_PNG_LONGEST} pixels, got {width}x{height}", stage="encode")
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLOUR_TYPES[channels], 0, 0, 0)
    rows = np.zeros((height, 1 + width * channels), dtype=np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = sample.pixels.reshape(height, width * channels)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, data) for name, data in chunks)


def npy_bytes(sample: ArraySample) -> bytes:
    """Returns the array as a ``.npy`` file."""
    stream = io.BytesIO()
    np.save(stream, np.asarray(sample.array, dtype=np.float32, order="C"), allow_pickle=False)
    return stream.getvalue()


def xyz_of(sample: MoleculeSample) -> Xyz:
    """Returns the molecule as an XYZ file with its charge and multiplicity.

    Raises:
        OracleFailure: Stage ``"parse"``: the mol block is no molecule with all its hydrogens and coordinates.
    """
    from rdkit import Chem

    geometry = read_geometry(sample)
    table = Chem.GetPeriodicTable()
    lines = [
        f"{table.GetElementSymbol(int(number)):2} {x:14.8f} {y:14.8f} {z:14.8f}"
        for number, (x, y, z) in zip(geometry.numbers, geometry.positions * BOHR, strict=True)
    ]
    title = " ".join(sample.smiles.split())
    return Xyz("\n".join([str(len(lines)), title, *lines, ""]), geometry.charge, geometry.unpaired + 1)


def sdf_record(sample: MoleculeSample, title: str, fields: dict[str, str]) -> str:
    """Returns one record of an SD file: the mol block under a title, with data fields.

    Raises:
        OracleFailure: Stage ``"parse"``: the mol block has no end.
    """
    lines = sample.mol_block.splitlines()
    if "M  END" not in lines:
        raise OracleFailure("expected a mol block that ends with 'M  END'", stage="parse")
    block = [" ".join(title.split()), *lines[1 : lines.index("M  END") + 1]]
    for name, value in fields.items():
        block += [f">  <{name}>", " ".join(value.split()), ""]
    return "\n".join([*block, "$$$$", ""])


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


__all__ = ["Xyz", "npy_bytes", "png_bytes", "sdf_record", "xyz_of"]
