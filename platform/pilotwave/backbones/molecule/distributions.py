"""What a set of molecules is like, and how far two sets are from each other.

Geometry (bond lengths, angles, torsions, each by its kind), composition (elements, bonds, sizes, rings) and what
chemists rank by (QED, synthetic accessibility, logP, weight). Quantities are compared by the Wasserstein distance
in one dimension, in their own unit: how far a value must be moved on average. Frequencies are compared by total
variation: the share that must become something else. Both are zero for equal sets, symmetric, and never quite zero
for finite samples of one distribution; so a distance is read beside the one between two samples of the data.

Hydrogens are left out: their places are RDKit's, not the model's. May import numpy and pilotwave's samples; RDKit
and SciPy inside functions.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rdkit.Chem import Mol

Values = NDArray[np.float64]

FEWEST_VALUES = 20
"""Kinds of bonds, angles or torsions that are seldomer than this in either set are not compared by value."""
LARGEST_RING = 8
"""Rings of more atoms are counted as one kind."""
BOND_SIGNS = {1.0: "-", 1.5: ":", 2.0: "=", 3.0: "#"}

GEOMETRY = {"bond length": "Å", "angle": "°", "torsion": "°"}
"""Quantities that each molecule has many of, by kind, with their units."""
PROPERTIES = {"QED": "", "synthetic accessibility": "", "logP": "", "weight": "Da", "rotatable bonds": ""}
"""Quantities of which each molecule has one, with their units. QED is the drug-likeness of Bickerton et al. (Nature
Chemistry 4, 90, 2012), the accessibility is Ertl and Schuffenhauer's (J. Cheminformatics 1, 8, 2009; 1 is easy and
10 hard), logP is Wildman and Crippen's."""
FREQUENCIES = ("heavy atoms", "elements", "bonds", "rings", "ring sizes", "aromatic rings")


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a set of molecules is like.

    Attributes:
        molecules: How many.
        geometry: By the names of :data:`GEOMETRY`, then by kind (``"C=O"``, ``"C-C-N"`` with the middle atom in the
            middle, the middle bond of a torsion), all values.
        properties: By the names of :data:`PROPERTIES`, a value per molecule.
        frequencies: By the names of :data:`FREQUENCIES`, how often each kind occurs.
    """

    molecules: int
    geometry: Mapping[str, Mapping[str, Values]]
    properties: Mapping[str, Values]
    frequencies: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Distance:
    """How far two sets of molecules are from each other in one respect.

    Attributes:
        name: What was compared, a key of :data:`GEOMETRY`, :data:`PROPERTIES` or :data:`FREQUENCIES`.
        unit: Of the value; a share for frequencies.
        value: Not a number if the sets have nothing in common that could be compared.
    """

    name: str
    unit: str
    value: float


def statistics(molecules: Iterable[Mol]) -> Statistics:
    """Gathers the statistics of sanitised RDKit molecules with a conformer in Å, hydrogens explicit or not."""
    geometry: dict[str, dict[str, list[float]]] = {name: collections.defaultdict(list) for name in GEOMETRY}
    properties: dict[str, list[float]] = {name: [] for name in PROPERTIES}
    frequencies: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in FREQUENCIES}
    count = 0
    for molecule in molecules:
        count += 1
        heavy = _without_hydrogens(molecule)
        for name, values in _geometry(heavy).items():
            for kind, value in values:
                geometry[name][kind].append(value)
        for name, value in _properties(heavy).items():
            properties[name].append(value)
        for name, kinds in _kinds(heavy).items():
            frequencies[name].update(kinds)
    return Statistics(
        count,
        {
            name: {kind: np.asarray(values) for kind, values in sorted(kinds.items())}
            for name, kinds in geometry.items()
        },
        {name: np.asarray(values, dtype=np.float64) for name, values in properties.items()},
        {name: dict(sorted(kinds.items())) for name, kinds in frequencies.items()},
    )


def compare(first: Statistics, second: Statistics) -> list[Distance]:
    """Returns the distances of two sets: geometry, properties, then frequencies; symmetric.

    Lengths, angles and torsions are compared kind by kind, and the distances averaged by how frequent a kind is.
    """
    distances = [
        Distance(name, unit, _distance_by_kind(first.geometry[name], second.geometry[name]))
        for name, unit in GEOMETRY.items()
    ]
    distances += [
        Distance(name, unit, wasserstein(first.properties[name], second.properties[name]))
        for name, unit in PROPERTIES.items()
    ]
    distances += [
        Distance(name, "", total_variation(first.frequencies[name], second.frequencies[name]))
        for name in FREQUENCIES
    ]
    return distances


def wasserstein(first: Values, second: Values) -> float:
    """Returns the Wasserstein-1 distance of two sets of values, in their unit; not a number if one is empty."""
    from scipy.stats import wasserstein_distance

    if not len(first) or not len(second):
        return float("nan")
    return float(wasserstein_distance(first, second))


def total_variation(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """Returns the total variation of two frequency tables, 0 (equal) to 1; not a number if one is empty."""
    totals = sum(first.values()), sum(second.values())
    if not all(totals):
        return float("nan")
    kinds = sorted({*first, *second})
    one, other = (
        np.array([table.get(kind, 0) / total for kind in kinds])
        for table, total in zip((first, second), totals, strict=True)
    )
    return float(np.abs(one - other).sum() / 2)


def accessibility(molecule: Mol) -> float:
    """Returns the synthetic accessibility, 1 (easy) to 10 (hard), of a molecule without explicit hydrogens."""
    from rdkit.Contrib.SA_Score import sascorer

    return float(sascorer.calculateScore(molecule))


def drug_likeness(molecule: Mol) -> float:
    """Returns QED, 0 to 1, of a molecule without explicit hydrogens."""
    from rdkit.Chem import QED

    return float(QED.qed(molecule))  # type: ignore[no-untyped-call]


def bond_kind(bond: Any) -> str:
    """Names a bond by its elements, sorted, and its order, e.g. ``"C=O"`` or ``"C:N"`` (aromatic)."""
    ends = sorted((bond.GetBeginAtom().GetSymbol(), bond.GetEndAtom().GetSymbol()))
    return BOND_SIGNS[bond.GetBondTypeAsDouble()].join(ends)


def _without_hydrogens(molecule: Mol) -> Mol:
    from rdkit import Chem

    return Chem.RemoveHs(molecule)


def _distance_by_kind(first: Mapping[str, Values], second: Mapping[str, Values]) -> float:
    """Averages the distances of the kinds that both sets have enough of, by their mean share."""
    kinds = [
        kind
        for kind in sorted(first.keys() & second.keys())
        if min(len(first[kind]), len(second[kind])) >= FEWEST_VALUES
    ]
    if not kinds:
        return float("nan")
    totals = [sum(len(values) for values in kinds.values()) for kinds in (first, second)]
    weights = [len(first[kind]) / totals[0] + len(second[kind]) / totals[1] for kind in kinds]
    return float(np.average([wasserstein(first[kind], second[kind]) for kind in kinds], weights=weights))


def _geometry(heavy: Mol) -> dict[str, list[tuple[str, float]]]:
    """Returns kinds and values of all bond lengths (Å), angles (°) and acyclic torsions (°, 0 to 180)."""
    positions = np.asarray(heavy.GetConformer().GetPositions())
    symbols = [atom.GetSymbol() for atom in heavy.GetAtoms()]
    neighbours = [sorted(other.GetIdx() for other in atom.GetNeighbors()) for atom in heavy.GetAtoms()]
    linear = [str(atom.GetHybridization()) == "SP" for atom in heavy.GetAtoms()]
    lengths, torsions = [], []
    for bond in heavy.GetBonds():
        first, second = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        lengths.append((bond_kind(bond), float(np.linalg.norm(positions[first] - positions[second]))))
        if bond.IsInRing() or linear[first] or linear[second]:  # nothing turns about a straight chain
            continue
        for before in neighbours[first]:
            for after in neighbours[second]:
                if before != second and after != first:
                    angle = _torsion(positions[[before, first, second, after]])
                    torsions.append((bond_kind(bond), angle))
    angles = [
        ("-".join(_sorted_ends(symbols, before, middle, after)), _angle(positions[[before, middle, after]]))
        for middle, around in enumerate(neighbours)
        for place, before in enumerate(around)
        for after in around[place + 1 :]
    ]
    return {"bond length": lengths, "angle": angles, "torsion": torsions}


def _sorted_ends(symbols: Sequence[str], before: int, middle: int, after: int) -> tuple[str, str, str]:
    low, high = sorted((symbols[before], symbols[after]))
    return low, symbols[middle], high


def _angle(points: Values) -> float:
    """Returns the angle (°) at the second of three points."""
    one, two = points[0] - points[1], points[2] - points[1]
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(one, two)), one @ two)))


def _torsion(points: Values) -> float:
    """Returns the torsion (°) about the middle two of four points, without its sign: both hands are alike."""
    along = points[2] - points[1]
    left, right = np.cross(points[0] - points[1], along), np.cross(points[3] - points[2], along)
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(left, right)), left @ right)))


def _properties(heavy: Mol) -> dict[str, float]:
    from rdkit.Chem import Descriptors, rdMolDescriptors

    return {
        "QED": drug_likeness(heavy),
        "synthetic accessibility": accessibility(heavy),
        "logP": float(rdMolDescriptors.CalcCrippenDescriptors(heavy)[0]),
        "weight": float(Descriptors.MolWt(heavy)),  # type: ignore[attr-defined]
        "rotatable bonds": float(rdMolDescriptors.CalcNumRotatableBonds(heavy)),
    }


def _kinds(heavy: Mol) -> dict[str, list[str]]:
    rings = [len(ring) for ring in heavy.GetRingInfo().AtomRings()]
    aromatic = sum(
        all(heavy.GetAtomWithIdx(atom).GetIsAromatic() for atom in ring) for ring in heavy.GetRingInfo().AtomRings()
    )
    return {
        "heavy atoms": [f"{heavy.GetNumAtoms():2d}"],
        "elements": [atom.GetSymbol() for atom in heavy.GetAtoms()],
        "bonds": [bond_kind(bond) for bond in heavy.GetBonds()],
        "rings": [str(len(rings))],
        "ring sizes": [str(size) if size <= LARGEST_RING else f"> {LARGEST_RING}" for size in rings],
        "aromatic rings": [str(aromatic)],
    }


__all__ = [
    "FREQUENCIES",
    "GEOMETRY",
    "PROPERTIES",
    "Distance",
    "Statistics",
    "accessibility",
    "bond_kind",
    "compare",
    "drug_likeness",
    "statistics",
    "total_variation",
    "wasserstein",
]
