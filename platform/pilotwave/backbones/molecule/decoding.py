"""From a finished latent (or any united atoms) to an RDKit molecule with all hydrogens and coordinates.

A molecule is *valid* here when it is neutral, in one fragment, without radicals, with every valence exactly
met, and RDKit sanitises it. It is *strictly valid* when that holds with the hydrogen counts as they were
sampled; otherwise hydrogens were repaired, and the number of changes is reported.

May import: numpy, `representation`, `bond_perception`; RDKit inside functions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pilotwave.backbones.molecule import bond_perception
from pilotwave.backbones.molecule.bond_perception import PerceivedBonds
from pilotwave.backbones.molecule.representation import POSITION_CHANNELS, Chemistry

if TYPE_CHECKING:
    from rdkit.Chem import Mol

MOST_CHI_SQUARED_PER_BOND = 12.0
"""A molecule whose bonds are on average worse than this is not what was sampled, whatever the valences say."""


@dataclass(frozen=True)
class DecodedMolecule:
    """The outcome of decoding one sample.

    Attributes:
        molecule: RDKit molecule with explicit hydrogens and one conformer (Å), or None if undecodable.
        smiles: canonical SMILES (no hydrogens, no stereo marks), empty if undecodable.
        strictly_valid: valid with the hydrogens exactly as sampled.
        repaired_hydrogens: hydrogens that had to change, summed over atoms.
        chi_squared: bond-length chi-squared of the chosen bond orders.
        reason: why there is no molecule; empty if there is one.
    """

    molecule: Mol | None
    smiles: str = ""
    strictly_valid: bool = False
    repaired_hydrogens: int = 0
    chi_squared: float = 0.0
    reason: str = ""

    @property
    def valid(self) -> bool:
        """Whether there is a molecule."""
        return self.molecule is not None


def decode_latent(
    latent: NDArray[np.floating], atoms: int, length_unit: float, chemistry: Chemistry, repair: bool = True
) -> DecodedMolecule:
    """Decodes one finished latent.

    Args:
        latent: shape (slots, channels), in the model's units.
        atoms: how many leading slots hold atoms.
        length_unit: Å per unit of position.
        chemistry: what the class channels mean.
        repair: whether hydrogen counts may be changed where the sampled ones admit no molecule.
    """
    values = np.asarray(latent, dtype=np.float64)[:atoms]
    if not np.isfinite(values).all():
        return DecodedMolecule(None, reason="the latent holds values that are not finite")
    classes = values[:, POSITION_CHANNELS:].argmax(axis=1)
    return decode_united_atoms(values[:, :POSITION_CHANNELS] * length_unit, classes.tolist(), chemistry, repair)


def decode_united_atoms(
    positions: NDArray[np.floating], classes: Sequence[int], chemistry: Chemistry, repair: bool = True
) -> DecodedMolecule:
    """Decodes positions (Å, shape (atoms, 3)) and class indices into a molecule."""
    elements = [chemistry.classes[index].element for index in classes]
    hydrogens = [chemistry.classes[index].hydrogens for index in classes]
    edges = bond_perception.connect(elements, positions)
    if not bond_perception.is_connected(len(elements), edges):
        return DecodedMolecule(None, reason="more than one fragment")
    reason = "no bond orders meet the sampled valences"
    for penalty in (np.inf, bond_perception.HYDROGEN_PENALTY)[: 2 if repair else 1]:
        bonds = bond_perception.assign_bond_orders(elements, hydrogens, edges, penalty)
        if bonds is None:
            continue
        if bonds.chi_squared > MOST_CHI_SQUARED_PER_BOND * len(edges):
            reason = "bond lengths fit no bond orders"
            continue
        molecule = _build(elements, positions, bonds)
        if molecule is not None:
            return _decoded(molecule, bonds)
        reason = "RDKit does not sanitise the molecule"
    return DecodedMolecule(None, reason=reason)


def _decoded(molecule: Mol, bonds: PerceivedBonds) -> DecodedMolecule:
    from rdkit import Chem

    smiles = Chem.MolToSmiles(Chem.RemoveHs(molecule), isomericSmiles=False)
    return DecodedMolecule(
        molecule, smiles, bonds.repaired_hydrogens == 0, bonds.repaired_hydrogens, bonds.chi_squared
    )


def _build(elements: Sequence[str], positions: NDArray[np.floating], bonds: PerceivedBonds) -> Mol | None:
    """Makes the RDKit molecule and places its hydrogens, or returns None where RDKit refuses it."""
    from rdkit import Chem, rdBase
    from rdkit.Geometry import Point3D

    editable: Any = Chem.RWMol()
    for element, hydrogens in zip(elements, bonds.hydrogens, strict=True):
        atom = Chem.Atom(element)
        # Hydrogens are stated, not inferred: RDKit must not complete a valence on its own.
        atom.SetNoImplicit(True)
        atom.SetNumExplicitHs(int(hydrogens))
        editable.AddAtom(atom)
    kinds = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
    for first, second, order in bonds.bonds:
        editable.AddBond(first, second, kinds[order])
    molecule = editable.GetMol()
    conformer = Chem.Conformer(len(elements))
    for index, (x, y, z) in enumerate(np.asarray(positions, dtype=float).tolist()):
        conformer.SetAtomPosition(index, Point3D(x, y, z))
    molecule.AddConformer(conformer)
    with rdBase.BlockLogs():
        outcome = Chem.SanitizeMol(molecule, catchErrors=True)
    if outcome != Chem.SanitizeFlags.SANITIZE_NONE:
        return None
    if any(atom.GetNumRadicalElectrons() or atom.GetFormalCharge() for atom in molecule.GetAtoms()):
        return None
    return Chem.AddHs(molecule, addCoords=True)
