"""A molecule's geometry as a number that no turn, shift or renumbering of the atoms changes.

Read from the mol block by hand, because chemistry tools have no place in the archive. May import numpy.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

RESOLUTION = 0.01
"""Distances are rounded to this, in Å."""
_FLAT = 1e-3

Atoms = tuple[list[str], npt.NDArray[np.float64]]


def parse_mol_block(block: str) -> Atoms | None:
    """Reads elements and positions of an MDL mol block, V2000 or V3000.

    Returns:
        The element symbols and the positions in Å, shape (atoms, 3); None if the block cannot be read.
    """
    lines = block.splitlines()
    try:
        return _parse_v3000(lines) if "V3000" in lines[3] else _parse_v2000(lines)
    except (IndexError, ValueError):
        return None


def geometry_fingerprint(elements: list[str], positions: npt.NDArray[np.float64]) -> str:
    """Returns 128 bits, as hex, of the geometry at a resolution of 0.01 Å.

    Each atom is described by its element and the sorted distances to all other atoms with their elements, the
    molecule by the sorted list of these and its handedness, so the fingerprint is invariant to rotation,
    translation and atom order, and differs between mirror images.

    Args:
        elements: Symbols, one an atom.
        positions: In Å, shape (atoms, 3).
    """
    difference = positions[:, None, :] - positions[None, :, :]
    distances = np.rint(np.sqrt((difference**2).sum(-1)) / RESOLUTION).astype(np.int64)
    atoms = []
    for index, element in enumerate(elements):
        others = sorted(
            (other, int(distance))
            for place, (other, distance) in enumerate(zip(elements, distances[index], strict=True))
            if place != index
        )
        atoms.append((element, others))
    text = repr((sorted(atoms), handedness(elements, positions)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def handedness(elements: list[str], positions: npt.NDArray[np.float64]) -> int:
    """Returns 1 or -1 for the two mirror images of a chiral arrangement, 0 for one that is (nearly) its own.

    The sign of the volume that three moments of the arrangement span: turning and renumbering leave it alone,
    mirroring inverts it.
    """
    centred = positions - positions.mean(axis=0)
    radius = np.sqrt((centred**2).sum(-1, keepdims=True))
    scale = float(radius.max())
    if scale == 0.0:
        return 0
    unit, radius = centred / scale, radius / scale
    weights = np.array([_weights(element) for element in elements])
    moments = [(weights[:, [power]] * unit * radius ** (2 * power)).sum(0) for power in range(3)]
    spanned = math.prod(float(np.linalg.norm(moment)) for moment in moments)
    volume = float(np.linalg.det(np.stack(moments)))
    # Where the volume is that of rounded coordinates, its sign says nothing.
    return 0 if abs(volume) < _FLAT * max(spanned, 1e-3) else int(np.sign(volume))


def _weights(element: str) -> tuple[float, float, float]:
    """Returns three fixed numbers from 0.5 to 1.5 an element: only that elements differ matters."""
    data = hashlib.sha256(element.encode()).digest()
    return (0.5 + data[0] / 255, 0.5 + data[1] / 255, 0.5 + data[2] / 255)


def _parse_v2000(lines: list[str]) -> Atoms:
    count = int(lines[3][0:3])
    rows = lines[4 : 4 + count]
    if count < 1 or len(rows) != count:
        raise ValueError(f"expected {count} atoms")
    elements = [row[31:34].strip() for row in rows]
    positions = np.array([[float(row[start : start + 10]) for start in (0, 10, 20)] for row in rows])
    return _checked(elements, positions)


def _parse_v3000(lines: list[str]) -> Atoms:
    words = [line.split()[2:] for line in lines if line.startswith("M  V30 ")]
    rows = words[words.index(["BEGIN", "ATOM"]) + 1 : words.index(["END", "ATOM"])]
    elements = [row[1] for row in rows]
    return _checked(elements, np.array([[float(number) for number in row[2:5]] for row in rows]))


def _checked(elements: list[str], positions: npt.NDArray[np.float64]) -> Atoms:
    if not all(elements) or positions.shape != (len(elements), 3) or not np.isfinite(positions).all():
        raise ValueError("expected an element and three finite coordinates an atom")
    return elements, positions


__all__ = ["RESOLUTION", "geometry_fingerprint", "handedness", "parse_mol_block"]
