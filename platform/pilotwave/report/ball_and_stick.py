"""A molecule as it stands in space: atoms as shaded balls, bonds as sticks, near ones over far ones.

May import :mod:`pilotwave.samples` and numpy; rdkit and matplotlib inside the function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pilotwave.samples import MoleculeSample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {
    "H": "#e9ecef", "C": "#495057", "N": "#1971c2", "O": "#e03131", "F": "#2f9e44", "S": "#f2c037", "Cl": "#12b886",
}  # fmt: skip
_OTHER = "#ae3ec9"
_RADII = {"H": 0.26, "C": 0.40, "N": 0.39, "O": 0.38, "F": 0.36, "S": 0.48, "Cl": 0.46}
"""Å; balls are smaller than atoms, so that bonds can be seen."""
_SPAN = 3.4
"""Å that are seen at least, from the middle upwards, so that small molecules look small."""
_STICK = 0.085
_TILT = 0.35
"""Radians by which the widest plane is turned away, so that what stands behind shows."""


def draw_in_space(molecule: MoleculeSample, size: tuple[int, int], dpi: int = 100) -> npt.NDArray[np.uint8]:
    """Draws a molecule with its hydrogens, seen so that it is widest.

    Args:
        molecule: Its mol block is drawn, as it is.
        size: Width and height in pixels.
        dpi: Of the page the drawing goes to.

    Returns:
        uint8 of shape (height, width, 4).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from rdkit import Chem

    found = Chem.MolFromMolBlock(molecule.mol_block, removeHs=False, sanitize=False)
    symbols = [atom.GetSymbol() for atom in found.GetAtoms()]
    places = seen_widest(np.asarray(found.GetConformer().GetPositions()))
    figure = Figure(figsize=(size[0] / dpi, size[1] / dpi), dpi=dpi, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    aspect = size[0] / size[1]
    span = max(_SPAN, np.abs(places[:, 1]).max() + 0.6, (np.abs(places[:, 0]).max() + 0.6) / aspect)
    axes.set_xlim(-span * aspect, span * aspect)
    axes.set_ylim(-span, span)
    for bond in found.GetBonds():
        first, second = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        _add_stick(axes, places[[first, second]], int(np.ceil(bond.GetBondTypeAsDouble())))
    for symbol, place in zip(symbols, places, strict=True):
        _add_ball(axes, symbol, place)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba()).copy()  # type: ignore[no-untyped-call]


def seen_widest(positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Turns positions (atoms, 3), not mirrored; the widest plane then nearly faces the viewer, the third axis."""
    centred = positions - positions.mean(0)
    _, columns = np.linalg.eigh(centred.T @ centred)
    axes = columns.T[::-1].copy()  # the widest first
    axes[2] *= np.sign(np.linalg.det(axes))
    cosine, sine = np.cos(_TILT), np.sin(_TILT)
    tilt = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    turned: npt.NDArray[np.float64] = centred @ axes.T @ tilt.T
    turned[:, :2] -= (turned[:, :2].max(0) + turned[:, :2].min(0)) / 2
    return turned


def _add_stick(axes: Axes, ends: npt.NDArray[np.float64], order: int) -> None:
    """Draws a bond as one to three parallel sticks, at the depth of its middle."""
    from matplotlib.patches import Polygon

    along = (ends[1] - ends[0])[:2]
    length = float(np.linalg.norm(along))
    if length < 1e-6:  # seen from its end
        return
    across = np.array([-along[1], along[0]]) / length
    width = _STICK / (1 if order == 1 else 1.6)
    for place in range(order):
        shift = across * (place - (order - 1) / 2) * 3 * width
        corners = [ends[0, :2] + shift - across * width, ends[0, :2] + shift + across * width]
        corners += [ends[1, :2] + shift + across * width, ends[1, :2] + shift - across * width]
        style: dict[str, Any] = {"facecolor": "#adb5bd", "edgecolor": "#868e96", "linewidth": 0.5}
        axes.add_patch(Polygon(corners, zorder=10 + float(ends[:, 2].mean()), **style))


def _add_ball(axes: Axes, symbol: str, place: npt.NDArray[np.float64]) -> None:
    """Draws an atom as a ball with a highlight; perspective is slight: nearer ones are a little larger."""
    from matplotlib.patches import Circle

    radius = _RADII.get(symbol, 0.45) * (1 + 0.03 * float(place[2]))
    depth = 10 + float(place[2])
    colour = _COLOURS.get(symbol, _OTHER)
    x, y = float(place[0]), float(place[1])
    axes.add_patch(Circle((x, y), radius, facecolor=colour, edgecolor="#343a40", linewidth=0.6, zorder=depth))
    light = (x - 0.3 * radius, y + 0.3 * radius)
    for share, opacity in ((0.5, 0.18), (0.3, 0.28), (0.14, 0.5)):
        axes.add_patch(Circle(light, share * radius, facecolor="white", alpha=opacity, linewidth=0, zorder=depth))


__all__ = ["draw_in_space", "seen_widest"]
