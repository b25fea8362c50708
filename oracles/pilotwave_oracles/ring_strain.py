"""How strained are the rings of a molecule: an additive estimate, and the rule of Bredt.

Increments are the ring-strain corrections of group additivity (S. W. Benson, Thermochemical Kinetics, 2nd ed.,
Wiley 1976; N. Cohen and S. W. Benson, Chem. Rev. 93, 2419 (1993)), rounded, for carbocycles. They serve for
rings with O and N too (oxirane 26.8 against 27.5, aziridine 27.7, oxetane 25.1); rings with S are less strained
than estimated (thiirane 17.8). In polycycles the increments of all smallest rings are added, which knows nothing
of the strain that fusion adds: bicyclobutane comes to 55 (measured 64 to 67), spiropentane to 55 (63), cubane to
157 (155 to 166). May import RDKit inside functions.
"""

from __future__ import annotations

from typing import Any

SATURATED = {3: 27.5, 4: 26.2, 5: 6.3, 6: 0.0, 7: 6.4, 8: 9.9, 9: 12.8, 10: 12.6, 11: 11.3, 12: 4.1}
"""kcal/mol by ring size; larger rings have none."""

ENDOCYCLIC_DOUBLE_BOND = {3: 28.0, 4: 3.6, 6: 1.4}
"""kcal/mol for each double bond in the ring: cyclopropene 55.5, cyclobutene 29.8, cyclohexene 1.4."""

EXOCYCLIC_DOUBLE_BOND = {3: 13.4}
"""kcal/mol for each double bond that leaves the ring: methylenecyclopropane 40.9."""

CYCLOBUTADIENE = 44.0
"""kcal/mol on top of two endocyclic double bonds in a ring of four: 77 in all."""

SMALLEST_BREDT_BICYCLE = 9
"""Fawcett's S, the atoms of a bicycle that are no bridgeheads: bridgehead double bonds can be isolated from 9 up
(F. S. Fawcett, Chem. Rev. 47, 219 (1950))."""


def smallest_rings(molecule: Any) -> list[tuple[int, ...]]:
    """Returns the symmetrised set of smallest rings as atom indices in ring order."""
    from rdkit import Chem

    return [tuple(ring) for ring in Chem.GetSymmSSSR(molecule)]


def largest_system_strain(molecule: Any) -> float:
    """Returns the strain of the most strained ring system, kcal/mol; 0 without rings.

    A ring system is all rings that share atoms, spiro unions included: two cyclopropanes at different ends
    of a chain are harmless, in one cage they are not.
    """
    systems: list[tuple[set[int], float]] = []
    for ring in smallest_rings(molecule):
        atoms, strain = set(ring), ring_strain(molecule, ring)
        apart = []
        for other_atoms, other_strain in systems:
            if atoms & other_atoms:
                atoms |= other_atoms
                strain += other_strain
            else:
                apart.append((other_atoms, other_strain))
        systems = [*apart, (atoms, strain)]
    return max((strain for _, strain in systems), default=0.0)


def ring_strain(molecule: Any, ring: tuple[int, ...]) -> float:
    """Returns the increment of one ring, kcal/mol; aromatic rings have that of their size, or none for six."""
    size = len(ring)
    strain = SATURATED.get(size, 0.0)
    inside = _bonds_of(molecule, ring)
    if all(bond.GetIsAromatic() for bond in inside):
        return strain
    double = sum(_is_double(bond) for bond in inside)
    leaving = sum(
        _is_double(bond) and bond.GetOtherAtomIdx(atom) not in ring
        for atom in ring
        for bond in molecule.GetAtomWithIdx(atom).GetBonds()
    )
    strain += double * ENDOCYCLIC_DOUBLE_BOND.get(size, 0.0) + leaving * EXOCYCLIC_DOUBLE_BOND.get(size, 0.0)
    return strain + (CYCLOBUTADIENE if size == 4 and double == 2 else 0.0)


def bridgehead_double_bonds(molecule: Any) -> list[int]:
    """Returns the bridgehead atoms that have a double or aromatic bond within a small bridged bicycle.

    A bicycle is two smallest rings that share more than one bond; it is small if fewer than
    :data:`SMALLEST_BREDT_BICYCLE` of its atoms are no bridgeheads.
    """
    rings = smallest_rings(molecule)
    bonds = [{bond.GetIdx() for bond in _bonds_of(molecule, ring)} for ring in rings]
    found: set[int] = set()
    for first in range(len(rings)):
        for second in range(first):
            shared = bonds[first] & bonds[second]
            union = set(rings[first]) | set(rings[second])
            if len(shared) < 2 or len(union) - 2 >= SMALLEST_BREDT_BICYCLE:
                continue
            found.update(_unsaturated_bridgeheads(molecule, bonds[first] | bonds[second]))
    return sorted(found)


def _unsaturated_bridgeheads(molecule: Any, bicycle: set[int]) -> list[int]:
    """Returns the atoms with three bonds in the bicycle, one of which is not single."""
    bonds_at: dict[int, list[Any]] = {}
    for index in bicycle:
        bond = molecule.GetBondWithIdx(index)
        for atom in (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()):
            bonds_at.setdefault(atom, []).append(bond)
    return [
        atom
        for atom, bonds in bonds_at.items()
        if len(bonds) >= 3 and any(_is_double(bond) or bond.GetIsAromatic() for bond in bonds)
    ]


def _bonds_of(molecule: Any, ring: tuple[int, ...]) -> list[Any]:
    ends = zip(ring, (*ring[1:], ring[0]), strict=True)
    return [molecule.GetBondBetweenAtoms(first, second) for first, second in ends]


def _is_double(bond: Any) -> bool:
    return not bond.GetIsAromatic() and bond.GetBondTypeAsDouble() == 2.0


__all__ = [
    "CYCLOBUTADIENE",
    "ENDOCYCLIC_DOUBLE_BOND",
    "EXOCYCLIC_DOUBLE_BOND",
    "SATURATED",
    "SMALLEST_BREDT_BICYCLE",
    "bridgehead_double_bonds",
    "largest_system_strain",
    "ring_strain",
    "smallest_rings",
]
