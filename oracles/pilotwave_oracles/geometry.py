"""A molecule as quantum chemistry wants it: nuclei in bohr, charge, unpaired electrons; read from a mol block.

May import numpy, pilotwave.samples and pilotwave.errors; RDKit inside functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotwave.errors import OracleFailure
from pilotwave.samples import MoleculeSample, Sample

BOHR = 0.529177210903
"""Å per bohr (CODATA 2018)."""

CLOSEST_ALLOWED = 0.5
"""Å; two nuclei nearer than this are no molecule (H2 has 0.74)."""


@dataclass(frozen=True)
class Geometry:
    """Nuclei, electrons and bonds.

    Attributes:
        numbers: Atomic numbers, int32 of shape (atoms,).
        positions: bohr, float64 of shape (atoms, 3).
        charge: In units of e.
        unpaired: Unpaired electrons, 0 for a closed shell.
        bonds: Pairs of atom indices, the lower first.
    """

    numbers: NDArray[np.int32]
    positions: NDArray[np.float64]
    charge: int
    unpaired: int
    bonds: frozenset[tuple[int, int]]

    def moved(self, positions: NDArray[np.float64]) -> Geometry:
        """Returns the same molecule with its nuclei elsewhere."""
        return Geometry(self.numbers, positions, self.charge, self.unpaired, self.bonds)

    def with_electrons(self, charge: int | None, multiplicity: int | None) -> Geometry:
        """Returns the same nuclei with another charge or spin; None keeps what the molecule has.

        A charge without a multiplicity gives the lowest spin that the number of electrons allows.

        Args:
            charge: In units of e.
            multiplicity: 2 S + 1: unpaired electrons and one.

        Raises:
            OracleFailure: Stage ``"electrons"``: there are not so many electrons, or their number has the other
                parity.
        """
        if charge is None and multiplicity is None:
            return self
        total = self.charge if charge is None else charge
        electrons = int(self.numbers.sum()) - total
        kept = self.unpaired if total == self.charge else electrons % 2
        unpaired = kept if multiplicity is None else multiplicity - 1
        if electrons < max(unpaired, 1) or (electrons - unpaired) % 2:
            raise OracleFailure(
                f"expected charge and multiplicity that fit the molecule; {electrons} electrons at charge "
                f"{total:+d} cannot have multiplicity {unpaired + 1}",
                stage="electrons",
            )
        return Geometry(self.numbers, self.positions, total, unpaired, self.bonds)


def read_geometry(sample: Sample) -> Geometry:
    """Reads a molecule sample.

    The charge is the sum of the formal charges; the unpaired electrons are the radical electrons that RDKit
    sees, or the parity of the electron count where the two disagree.

    Raises:
        OracleFailure: Stage ``"media"`` for another kind of sample; stage ``"parse"`` if the mol block cannot
            be read, lacks hydrogens, or has coordinates that are no molecule.
    """
    if not isinstance(sample, MoleculeSample):
        raise OracleFailure(f"expected a molecule sample, got {sample.media}", stage="media")
    molecule = parse_mol_block(sample.mol_block)
    positions = np.asarray(molecule.GetConformer().GetPositions(), dtype=np.float64)
    _check_positions(positions)
    atoms = list(molecule.GetAtoms())
    numbers = np.array([atom.GetAtomicNum() for atom in atoms], dtype=np.int32)
    charge = sum(atom.GetFormalCharge() for atom in atoms)
    radicals = sum(atom.GetNumRadicalElectrons() for atom in atoms)
    parity = (int(numbers.sum()) - charge) % 2
    bonds = frozenset(
        (min(ends), max(ends))
        for ends in ((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds())
    )
    return Geometry(numbers, positions / BOHR, charge, radicals if radicals % 2 == parity else parity, bonds)


def parse_mol_block(mol_block: str) -> Any:
    """Returns the RDKit molecule of a mol block, sanitised, with all its hydrogens as atoms.

    Raises:
        OracleFailure: Stage ``"parse"``.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        try:
            molecule = Chem.MolFromMolBlock(mol_block, sanitize=False, removeHs=False)
            if molecule is None or molecule.GetNumAtoms() == 0:
                raise ValueError("it holds no atoms")
            Chem.SanitizeMol(molecule)
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise OracleFailure(f"expected a mol block that RDKit can read: {reason}", stage="parse") from error
    missing = sum(atom.GetTotalNumHs(includeNeighbors=False) for atom in molecule.GetAtoms())
    if missing:
        raise OracleFailure(f"expected all hydrogens in the mol block, {missing} are missing", stage="parse")
    if molecule.GetNumConformers() == 0:
        raise OracleFailure("expected a mol block with coordinates", stage="parse")
    return molecule


def _check_positions(positions: NDArray[np.float64]) -> None:
    if not np.isfinite(positions).all():
        raise OracleFailure("expected finite coordinates", stage="parse")
    if len(positions) < 2:
        return
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.min()
    if nearest < CLOSEST_ALLOWED:
        first, second = np.unravel_index(int(distances.argmin()), distances.shape)
        raise OracleFailure(
            f"expected nuclei at least {CLOSEST_ALLOWED} Å apart, atoms {first + 1} and {second + 1} "
            f"are {nearest:.2f} Å apart",
            stage="parse",
        )


__all__ = ["BOHR", "CLOSEST_ALLOWED", "Geometry", "parse_mol_block", "read_geometry"]
