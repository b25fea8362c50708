"""The best molecules of a run as an SDF and drawn as a grid.

May import :mod:`pilotwave.report`; rdkit and matplotlib are imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pilotwave.report.molecule_cards import MoleculeCard, draw_cards
from pilotwave.report.ranking import Ranked
from pilotwave.report.tables import format_value, pretty_unit
from pilotwave.samples import MoleculeSample


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
        records.append(sdf_record(molecule.mol_block, item.query_id, fields))
    return "".join(records)


def draw_molecules(ranked: Sequence[Ranked], *, unit: str = "", columns: int = 5) -> bytes:
    """Draws the molecules side by side, all at one scale, with rank, value, validity and query id below each.

    Returns:
        A PNG; one cell is 380 x 340 pixels.

    Raises:
        MissingDependencyError: rdkit or matplotlib is not installed.
        ValueError: There is nothing to draw.
    """
    cards = [
        MoleculeCard(
            _molecule(item),
            title=f"{format_value(item.value)} {pretty_unit(unit)}".strip(),
            detail=" · ".join([f"#{item.rank}", item.query_id, item.validity]),
        )
        for item in ranked
    ]
    return draw_cards(cards, columns)


def sdf_record(mol_block: str, title: str, fields: Mapping[str, Any]) -> str:
    """Returns one record of an SDF; the first line of the mol block becomes the title."""
    _, _, rest = mol_block.partition("\n")
    lines = [title, rest.rstrip("\n")]
    for name, value in fields.items():
        text = " ".join(str(value).split())
        if text:
            lines += [f">  <{name}>", text, ""]
    return "\n".join([*lines, "$$$$", ""])


def _molecule(item: Ranked) -> MoleculeSample:
    if not isinstance(item.sample, MoleculeSample):
        raise ValueError(f"expected a molecule, got a sample of kind {item.sample.media!r} ({item.query_id})")
    return item.sample


__all__ = ["draw_molecules", "molecules_sdf", "sdf_record"]
