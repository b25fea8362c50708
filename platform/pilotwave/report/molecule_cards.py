"""Molecules drawn side by side, a card each, with what is known of them below.

May import :mod:`pilotwave.report`, :mod:`pilotwave.samples` and :mod:`pilotwave.errors`; rdkit (extra
``molecules``) and matplotlib (extra ``report``) inside the functions that draw.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pilotwave.errors import MissingDependencyError
from pilotwave.report.ball_and_stick import draw_in_space
from pilotwave.samples import MoleculeSample

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rdkit.Chem import Mol

_CELL = (380, 340)
"""Width and height of one molecule's card, in pixels."""
_DRAWING = (356, 240)
"""Width and height of the drawing on it."""
_DPI = 100
_LETTERS = 44
"""That fit on a line of a small title."""
_INK, _FAINT, _PAGE, _EDGE = "#1f2933", "#7b8794", "#f1f3f5", "#dee2e6"


@dataclass(frozen=True)
class MoleculeCard:
    """One molecule of a page.

    Attributes:
        molecule: None if there is nothing to draw; the card then says why.
        title: The line under the drawing.
        detail: A smaller line under that.
        in_space: Whether it is drawn as it stands in space, rather than as a formula.
        small_title: Whether the title is long, such as a SMILES, and set in small letters on two lines.
        reason: Why there is no molecule.
    """

    molecule: MoleculeSample | None
    title: str
    detail: str
    in_space: bool = False
    small_title: bool = False
    reason: str = ""


def draw_cards(cards: Sequence[MoleculeCard], columns: int = 5) -> bytes:
    """Draws molecules side by side, all at one scale as far as they fit.

    Returns:
        A PNG; one card is 380 x 340 pixels.

    Raises:
        MissingDependencyError: rdkit or matplotlib is not installed.
        ValueError: There is nothing to draw.
    """
    if not cards:
        raise ValueError("expected at least one molecule to draw, got none")
    try:
        import rdkit  # noqa: F401
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f"drawing molecules needs {error.name}, which is not installed; "
            "run: pip install 'pilotwave[molecules,report]'"
        ) from error
    columns = min(columns, len(cards))
    rows = -(-len(cards) // columns)
    width, height = _CELL
    figure = Figure(figsize=(width * columns / _DPI, height * rows / _DPI), dpi=_DPI, facecolor=_PAGE)
    for i, card in enumerate(cards):
        row, column = divmod(i, columns)
        _add_card(figure, card, left=column * width, bottom=(rows - 1 - row) * height)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI)
    return png.getvalue()


def _add_card(figure: Figure, card: MoleculeCard, *, left: int, bottom: int) -> None:
    """Places one molecule and its captions; left and bottom are pixels of the whole picture."""
    from matplotlib.patches import FancyBboxPatch
    from matplotlib.transforms import IdentityTransform

    width, height = _CELL
    frame: dict[str, Any] = {
        "boxstyle": "round,pad=0,rounding_size=10",
        "facecolor": "white",
        "edgecolor": _EDGE,
        "zorder": 0,
    }
    pixels = IdentityTransform()
    figure.add_artist(FancyBboxPatch((left + 6, bottom + 6), width - 12, height - 12, transform=pixels, **frame))
    caption: dict[str, Any] = {"transform": pixels, "ha": "center", "va": "baseline", "zorder": 2}
    middle = left + width / 2
    if card.molecule is not None:
        drawing = draw_in_space(card.molecule, _DRAWING, _DPI) if card.in_space else _drawing(card.molecule)
        figure.figimage(drawing, left + 12, bottom + 84, zorder=1)
    else:
        reason = textwrap.fill(card.reason, 30)
        figure.text(middle, bottom + 200, reason, color=_FAINT, fontsize=13, **{**caption, "va": "center"})
    if card.small_title:
        letters = len(card.title)
        width_of_title = letters if letters <= _LETTERS else min(_LETTERS, -(-letters // 2))
        lines = textwrap.wrap(card.title, max(1, width_of_title), break_on_hyphens=False)[:2]
        for i, line in enumerate(lines):
            figure.text(middle, bottom + 62 - 17 * i, line, color=_INK, fontsize=9.5, family="monospace", **caption)
    else:
        figure.text(middle, bottom + 54, card.title, color=_INK, fontsize=15, fontweight="bold", **caption)
    small = 10 if card.small_title else 11
    height_of_detail = 22 if card.small_title else 26
    figure.text(middle, bottom + height_of_detail, card.detail, color=_FAINT, fontsize=small, **caption)


def _drawing(molecule: MoleculeSample) -> npt.NDArray[np.uint8]:
    """Returns the structural formula, uint8 of shape (height, width, 4)."""
    from matplotlib.image import imread
    from rdkit.Chem.Draw import rdMolDraw2D

    drawer = rdMolDraw2D.MolDraw2DCairo(*_DRAWING)
    options: Any = drawer.drawOptions()
    options.fixedBondLength = 46
    options.bondLineWidth = 2
    options.minFontSize = options.maxFontSize = 20
    options.padding = 0.06
    drawer.DrawMolecule(_flat(molecule))
    drawer.FinishDrawing()
    drawing = imread(io.BytesIO(drawer.GetDrawingText()), format="png")
    return (drawing * 255).astype(np.uint8)


def _flat(molecule: MoleculeSample) -> Mol:
    """Returns the molecule laid out in the plane, without its hydrogens."""
    from rdkit import Chem
    from rdkit.Chem import rdDepictor
    from rdkit.Chem.Draw import rdMolDraw2D

    flat = Chem.MolFromSmiles(molecule.smiles)
    if flat is None:  # an exotic SMILES: the structure itself is always there
        flat = Chem.RemoveHs(
            Chem.MolFromMolBlock(molecule.mol_block, removeHs=False, sanitize=False), sanitize=False
        )
    rdDepictor.SetPreferCoordGen(True)
    return rdMolDraw2D.PrepareMolForDrawing(flat, kekulize=False)


__all__ = ["MoleculeCard", "draw_cards"]
