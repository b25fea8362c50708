"""The best molecules as an SDF and drawn as a grid.

May import :mod:`pilotwave.report`; rdkit (extra ``molecules``) and matplotlib (extra
``report``) inside the functions that draw.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pilotwave.errors import MissingDependencyError
from pilotwave.report.ranking import Ranked
from pilotwave.report.tables import format_value, pretty_unit
from pilotwave.samples import MoleculeSample

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rdkit.Chem import Mol

_CELL = (380, 340)
"""Width and height of one molecule's card, in pixels."""
_DRAWING = (356, 240)
"""Width and height of the drawing on it."""
_DPI = 100
_INK, _FAINT, _PAGE, _EDGE = "#1f2933", "#7b8794", "#f1f3f5", "#dee2e6"


def molecules_sdf(ranked: Sequence[Ranked], *, oracle: str = "value", unit: str = "") -> str:
    """Returns an SDF: the three-dimensional structures as they were judged, with what is known of them.

    Args:
        ranked: Molecules, in the order of the file.
        oracle: Its name; kept as the field ``oracle``.
        unit: The oracle's; kept as the field ``unit``.
    """
    records = []
    for item in ranked:
        molecule = _molecule(item)
        fields = {
            "rank": item.rank,
            "query_id": item.query_id,
            "value": item.value,
            "oracle": oracle,
            "unit": unit,
            "smiles": molecule.smiles,
            "strictly_valid": molecule.strictly_valid,
            "repaired_hydrogens": molecule.repaired_hydrogens,
            "fidelity": item.fidelity,
            **item.constraints,
            **item.properties,
        }
        records.append(_sdf_record(molecule.mol_block, item.query_id, fields))
    return "".join(records)


def draw_molecules(ranked: Sequence[Ranked], *, unit: str = "", columns: int = 5) -> bytes:
    """Draws the molecules side by side, all at one scale, with rank, value, validity and query id below each.

    Returns:
        A PNG; one cell is 380 x 340 pixels.

    Raises:
        MissingDependencyError: rdkit or matplotlib is not installed.
        ValueError: There is nothing to draw.
    """
    if not ranked:
        raise ValueError("expected at least one molecule to draw, got none")
    try:
        import rdkit  # noqa: F401
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f"drawing molecules needs {error.name}, which is not installed; "
            "run: pip install 'pilotwave[molecules,report]'"
        ) from error
    columns = min(columns, len(ranked))
    rows = -(-len(ranked) // columns)
    width, height = _CELL
    figure = Figure(figsize=(width * columns / _DPI, height * rows / _DPI), dpi=_DPI, facecolor=_PAGE)
    for i, item in enumerate(ranked):
        row, column = divmod(i, columns)
        _add_card(figure, item, unit, left=column * width, bottom=(rows - 1 - row) * height)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI)
    return png.getvalue()


def _add_card(figure: Figure, item: Ranked, unit: str, *, left: int, bottom: int) -> None:
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
    figure.figimage(_drawing(_molecule(item)), left + 12, bottom + 84, zorder=1)
    value = f"{format_value(item.value)} {pretty_unit(unit)}".strip()
    caption: dict[str, Any] = {"transform": pixels, "ha": "center", "va": "baseline", "zorder": 2}
    middle = left + width / 2
    figure.text(middle, bottom + 54, value, color=_INK, fontsize=15, fontweight="bold", **caption)
    detail = " · ".join([f"#{item.rank}", item.query_id, item.validity])
    figure.text(middle, bottom + 26, detail, color=_FAINT, fontsize=11, **caption)


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


def _molecule(item: Ranked) -> MoleculeSample:
    if not isinstance(item.sample, MoleculeSample):
        raise ValueError(f"expected a molecule, got a sample of kind {item.sample.media!r} ({item.query_id})")
    return item.sample


def _sdf_record(mol_block: str, title: str, fields: Mapping[str, Any]) -> str:
    """Returns one record; the first line of the mol block is its title."""
    _, _, rest = mol_block.partition("\n")
    lines = [title, rest.rstrip("\n")]
    for name, value in fields.items():
        text = " ".join(str(value).split())
        if text:
            lines += [f">  <{name}>", text, ""]
    return "\n".join([*lines, "$$$$", ""])


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


__all__ = ["draw_molecules", "molecules_sdf"]
