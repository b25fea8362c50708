"""Energies of free atoms, which atomisation energies are measured against.

May import numpy and pilotwave_oracles.
"""

from __future__ import annotations

import numpy as np

from pilotwave.errors import OracleFailure
from pilotwave_oracles.engine import Engine
from pilotwave_oracles.geometry import Geometry

UNPAIRED_BY_PERIOD = (
    (1, "1 0"),
    (3, "1 0 1 2 3 2 1 0"),
    (11, "1 0 1 2 3 2 1 0"),
    (19, "1 0 1 2 3 6 5 4 3 2 1 0 1 2 3 2 1 0"),
    (37, "1 0 1 2 5 6 5 4 3 0 1 0 1 2 3 2 1 0"),
    (55, "1 0 1"),
    (72, "2 3 4 5 4 3 2 1 0 1 2 3 2 1 0"),
)
"""Unpaired electrons of the atoms' ground states (NIST Atomic Spectra Database), by the first atomic number of
each stretch. The lanthanides after La are left out: GFN-xTB keeps their f electrons in the core."""

UNPAIRED = {
    first + place: int(count) for first, counts in UNPAIRED_BY_PERIOD for place, count in enumerate(counts.split())
}


class FreeAtoms:
    """Energies of atoms in their ground states by one engine, each computed once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._energies: dict[tuple[int, float], float] = {}

    def atomization_energy(self, geometry: Geometry, energy: float, temperature: float) -> float:
        """Returns the energy of the free neutral atoms less that of the molecule, hartree: positive if bound.

        Args:
            geometry: The molecule, neutral.
            energy: The molecule's, hartree.
            temperature: Electronic temperature of both, K.

        Raises:
            OracleFailure: Stage ``"electrons"``: a charged molecule, or a lanthanide.
            ScfNotConvergedError: For an atom.
            EngineError: See the engine.
        """
        if geometry.charge:
            raise OracleFailure(
                f"expected a neutral molecule for an atomisation energy, got charge {geometry.charge:+d}",
                stage="electrons",
            )
        return sum(self._energy(int(number), temperature) for number in geometry.numbers) - energy

    def _energy(self, number: int, temperature: float) -> float:
        if number not in UNPAIRED:
            raise OracleFailure(
                "expected elements up to lanthanum, or from hafnium to radon, for an atomisation energy; "
                f"got Z = {number}",
                stage="electrons",
            )
        if (number, temperature) not in self._energies:
            numbers = np.array([number], dtype=np.int32)
            atom = Geometry(numbers, np.zeros((1, 3)), 0, UNPAIRED[number], frozenset())
            self._energies[number, temperature] = self._engine.single_point(atom, temperature).energy
        return self._energies[number, temperature]


__all__ = ["UNPAIRED", "FreeAtoms"]
