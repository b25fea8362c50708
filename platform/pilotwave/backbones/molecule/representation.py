"""What a molecule is to the diffusion model: at most nine heavy atoms, each a position and a class.

A *united atom* is a heavy atom together with the hydrogens attached to it. Its class names the element and
the number of hydrogens; ten classes cover 99.5% of QM9. A molecule's latent is a fixed-shape tensor:

    latent[slot, 0:3]   position of the united atom, in units of `length_unit` (Å), centred on the molecule
    latent[slot, 3:13]  one-hot of its class, times `class_scale`

Slots hold the heavy atoms in the order in which RDKit writes the canonical SMILES (without stereo marks), so
neighbours in the list are mostly neighbours in the molecule. Slots at and after the molecule's atom count are
padding: the model neither reads nor writes them, and they are zero in a finished latent.

May import: numpy; RDKit inside functions only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rdkit.Chem import Mol

SLOTS = 9
FEWEST_ATOMS = 2
POSITION_CHANNELS = 3


@dataclass(frozen=True)
class UnitedAtom:
    """A heavy atom's element symbol and the number of hydrogens it carries."""

    element: str
    hydrogens: int


CLASSES: tuple[UnitedAtom, ...] = tuple(
    UnitedAtom(element, hydrogens)
    for element, most in (("C", 3), ("N", 2), ("O", 1), ("F", 0))
    for hydrogens in range(most + 1)
)
CLASS_COUNT = len(CLASSES)
CHANNELS = POSITION_CHANNELS + CLASS_COUNT
CLASS_INDEX = {(atom.element, atom.hydrogens): index for index, atom in enumerate(CLASSES)}

VALENCE = {"C": 4, "N": 3, "O": 2, "F": 1}
MOST_HYDROGENS = {
    element: max(atom.hydrogens for atom in CLASSES if atom.element == element) for element in VALENCE
}

AROMATIC = 4
"""Bond-order label of an aromatic bond; 0 is no bond, 1 to 3 are themselves."""
BOND_LABEL_COUNT = 5


class NotRepresentable(ValueError):
    """The molecule does not fit nine united atoms of the ten classes."""


@dataclass(frozen=True)
class EncodedMolecule:
    """A molecule as the model sees it, before scaling and padding.

    Attributes:
        positions: heavy-atom coordinates in Å, shape (atoms, 3), not centred.
        classes: index into `CLASSES` per atom, shape (atoms,).
        bonds: bond label per pair (0 none, 1-3 order, 4 aromatic), shape (atoms, atoms), symmetric.
        smiles: canonical SMILES without stereo marks; the atoms are in its order.
    """

    positions: NDArray[np.float32]
    classes: NDArray[np.int8]
    bonds: NDArray[np.int8]
    smiles: str


def encode_molecule(molecule: Mol) -> EncodedMolecule:
    """Encodes an RDKit molecule with a 3D conformer.

    Hydrogens may be explicit or implicit; only their number matters.

    Args:
        molecule: a sanitised molecule whose first conformer is three-dimensional (Å).

    Returns:
        Its united atoms in canonical-SMILES order.

    Raises:
        NotRepresentable: another element, a charge or radical, more than nine heavy atoms, or a class
            outside `CLASSES` (methane, ammonia, water, hydrogen fluoride).
    """
    from rdkit import Chem

    heavy = Chem.RemoveHs(molecule)
    if not FEWEST_ATOMS <= heavy.GetNumAtoms() <= SLOTS:
        raise NotRepresentable(f"{heavy.GetNumAtoms()} heavy atoms; {FEWEST_ATOMS} to {SLOTS} fit")
    smiles = Chem.MolToSmiles(heavy, isomericSmiles=False)
    order = list(heavy.GetPropsAsDict(includePrivate=True, includeComputed=True)["_smilesAtomOutputOrder"])
    heavy = Chem.RenumberAtoms(heavy, order)
    classes = np.array([_class_of(atom) for atom in heavy.GetAtoms()], dtype=np.int8)
    bonds = np.zeros((len(classes), len(classes)), dtype=np.int8)
    for bond in heavy.GetBonds():
        label = AROMATIC if bond.GetIsAromatic() else int(bond.GetBondTypeAsDouble())
        first, second = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        bonds[first, second] = bonds[second, first] = label
    positions = np.asarray(heavy.GetConformer().GetPositions(), dtype=np.float32)
    return EncodedMolecule(positions, classes, bonds, smiles)


def _class_of(atom: Any) -> int:
    """Returns the class index of an RDKit atom, or raises `NotRepresentable`."""
    key = (atom.GetSymbol(), atom.GetTotalNumHs())
    if atom.GetFormalCharge() != 0 or atom.GetNumRadicalElectrons() != 0 or key not in CLASS_INDEX:
        raise NotRepresentable(f"atom {key[0]} with {key[1]} hydrogens, charge {atom.GetFormalCharge()}")
    return CLASS_INDEX[key]
