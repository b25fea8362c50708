"""What a molecule is to the diffusion model: a list of united atoms, each a position and a class.

A *united atom* is a heavy atom together with the hydrogens attached to it. Its class names the element and
the number of hydrogens. A :class:`Chemistry` says how many united atoms there may be and of which classes; two
are built in: :data:`QM9` (nine atoms; its ten classes cover 99.5% of the data set) and :data:`DRUGLIKE` (27
atoms, with sulphur and chlorine). A molecule's latent is a fixed-shape tensor:

    latent[slot, 0:3]   position of the united atom, in units of `length_unit` (Å), centred on the molecule
    latent[slot, 3:]    one-hot of its class, times `class_scale`

Slots hold the heavy atoms in the order in which RDKit writes the canonical SMILES (without stereo marks), so
neighbours in the list are mostly neighbours in the molecule. Slots at and after the molecule's atom count are
padding: the model neither reads nor writes them, and they are zero in a finished latent.

May import: numpy; RDKit inside functions only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rdkit.Chem import Mol

FEWEST_ATOMS = 2
POSITION_CHANNELS = 3


@dataclass(frozen=True)
class UnitedAtom:
    """A heavy atom's element symbol and the number of hydrogens it carries."""

    element: str
    hydrogens: int

    def __str__(self) -> str:
        return f"{self.element}{self.hydrogens}"

    @classmethod
    def parse(cls, text: str) -> UnitedAtom:
        """Reads what `str` wrote, e.g. ``"C3"``.

        Raises:
            ValueError: It is no such class, or of an element or a number of hydrogens the decoder cannot place.
        """
        element, hydrogens = text[:-1], text[-1:]
        if element not in VALENCE or not hydrogens.isdigit() or int(hydrogens) > MOST_HYDROGENS[element]:
            raise ValueError(
                f"expected an element of {', '.join(VALENCE)} and its hydrogens, such as C3, got {text!r}"
            )
        return cls(element, int(hydrogens))


VALENCE: dict[str, tuple[int, ...]] = {"C": (4,), "N": (3,), "O": (2,), "F": (1,), "S": (2, 4, 6), "Cl": (1,)}
"""Valences of each element, uncharged; where there are several, the number of neighbours decides."""
MOST_HYDROGENS = {"C": 3, "N": 2, "O": 1, "F": 0, "S": 0, "Cl": 0}


@dataclass(frozen=True)
class Chemistry:
    """Which molecules a model can say.

    Attributes:
        slots: most heavy atoms.
        classes: the united atoms, in the order of the latent's class channels.
    """

    slots: int
    classes: tuple[UnitedAtom, ...]

    @property
    def channels(self) -> int:
        """Channels of a latent's slot."""
        return POSITION_CHANNELS + len(self.classes)

    @cached_property
    def class_index(self) -> dict[tuple[str, int], int]:
        """Index of each class by element and hydrogens."""
        return {(atom.element, atom.hydrogens): index for index, atom in enumerate(self.classes)}


def _all_classes(*elements: str) -> tuple[UnitedAtom, ...]:
    return tuple(
        UnitedAtom(element, hydrogens) for element in elements for hydrogens in range(MOST_HYDROGENS[element] + 1)
    )


QM9 = Chemistry(9, _all_classes("C", "N", "O", "F"))
DRUGLIKE = Chemistry(27, _all_classes("C", "N", "O", "F", "S", "Cl"))

AROMATIC = 4
"""Bond-order label of an aromatic bond; 0 is no bond, 1 to 3 are themselves."""
BOND_LABEL_COUNT = 5


class NotRepresentable(ValueError):
    """The molecule does not fit the slots or the classes of a chemistry."""


@dataclass(frozen=True)
class EncodedMolecule:
    """A molecule as the model sees it, before scaling and padding.

    Attributes:
        positions: heavy-atom coordinates in Å, shape (atoms, 3), not centred.
        classes: index into the chemistry's classes per atom, shape (atoms,).
        bonds: bond label per pair (0 none, 1-3 order, 4 aromatic), shape (atoms, atoms), symmetric.
        smiles: canonical SMILES without stereo marks; the atoms are in its order.
    """

    positions: NDArray[np.float32]
    classes: NDArray[np.int8]
    bonds: NDArray[np.int8]
    smiles: str


def encode_molecule(molecule: Mol, chemistry: Chemistry) -> EncodedMolecule:
    """Encodes an RDKit molecule with a 3D conformer.

    Hydrogens may be explicit or implicit; only their number matters.

    Args:
        molecule: a sanitised molecule whose first conformer is three-dimensional (Å).
        chemistry: which molecules fit.

    Returns:
        Its united atoms in canonical-SMILES order.

    Raises:
        NotRepresentable: another element, a charge or radical, too few or too many heavy atoms, or a class
            that the chemistry lacks (methane, ammonia, water, hydrogen fluoride).
    """
    from rdkit import Chem

    heavy = Chem.RemoveHs(molecule)
    if not FEWEST_ATOMS <= heavy.GetNumAtoms() <= chemistry.slots:
        raise NotRepresentable(f"{heavy.GetNumAtoms()} heavy atoms; {FEWEST_ATOMS} to {chemistry.slots} fit")
    smiles = Chem.MolToSmiles(heavy, isomericSmiles=False)
    order = list(heavy.GetPropsAsDict(includePrivate=True, includeComputed=True)["_smilesAtomOutputOrder"])
    heavy = Chem.RenumberAtoms(heavy, order)
    classes = np.array([_class_of(atom, chemistry) for atom in heavy.GetAtoms()], dtype=np.int8)
    bonds = np.zeros((len(classes), len(classes)), dtype=np.int8)
    for bond in heavy.GetBonds():
        label = AROMATIC if bond.GetIsAromatic() else int(bond.GetBondTypeAsDouble())
        first, second = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        bonds[first, second] = bonds[second, first] = label
    positions = np.asarray(heavy.GetConformer().GetPositions(), dtype=np.float32)
    return EncodedMolecule(positions, classes, bonds, smiles)


def _class_of(atom: Any, chemistry: Chemistry) -> int:
    """Returns the class index of an RDKit atom, or raises `NotRepresentable`."""
    key = (atom.GetSymbol(), atom.GetTotalNumHs())
    if atom.GetFormalCharge() != 0 or atom.GetNumRadicalElectrons() != 0 or key not in chemistry.class_index:
        raise NotRepresentable(f"atom {key[0]} with {key[1]} hydrogens, charge {atom.GetFormalCharge()}")
    return chemistry.class_index[key]
