"""Structural vetoes: what a molecule must not contain before an oracle is paid for it (kind ``structure``).

An objective like the polarizability is raised most easily by cumulenes, cages and chains of heteroatoms that
could never be made. May import pilotwave and pilotwave_oracles; RDKit when the constraint is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from pilotwave.config.components import ConstraintConfig
from pilotwave.errors import OracleFailure
from pilotwave.protocols import Constraint, Verdict
from pilotwave.samples import MoleculeSample, Sample
from pilotwave_oracles.geometry import parse_mol_block
from pilotwave_oracles.ring_strain import bridgehead_double_bonds, largest_system_strain, smallest_rings
from pilotwave_oracles.structural_alerts import ALERTS, compile_alerts, first_alert

LONG_CUMULENE = "[*]=[#6X2,#7X2]=[#6X2,#7X2]=[*]"
LINEAR_IN_RING = "[#6X2;R]"
NITRO = "[N+](=O)[O-]"


class StructureConstraintConfig(ConstraintConfig):
    """Refuses molecules that are no neutral closed-shell molecule, or that no chemist would believe in.

    Formal charges are refused even if they cancel, except in nitro groups.
    """

    media: ClassVar[frozenset[str]] = frozenset({"molecule"})
    packages: ClassVar[tuple[str, ...]] = ("rdkit",)
    extra: ClassVar[str | None] = "molecules"
    summary: ClassVar[str] = "Structural vetoes: cumulenes and alkynes in small rings, anti-Bredt, strain, alerts."

    kind: Literal["structure"] = "structure"
    maximum_strain: float = Field(
        60.0,
        ge=0,
        description="Ring strain allowed in one ring system, kcal/mol, by an additive estimate "
        "(cyclopropane 27.5, bicyclobutane 55, cubane 157).",
    )
    smallest_linear_ring: int = Field(
        8,
        ge=3,
        description="Smallest ring that may hold a triple bond; the middle of an allene needs one atom more "
        "(cyclooctyne and cyclonona-1,2-diene can be isolated, smaller ones cannot).",
    )
    largest_ring: int | None = Field(None, ge=3, description="Largest ring allowed, or null for any.")
    fewest_heavy_atoms: int = Field(1, ge=1, description="Fewest atoms besides hydrogen.")
    alerts: tuple[str, ...] = Field(
        tuple(ALERTS),
        description="Names of the functional groups that are refused; all by default, [] for none: "
        + "; ".join(ALERTS),
    )

    @field_validator("alerts")
    @classmethod
    def _alerts_are_known(cls, alerts: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in alerts if name not in ALERTS]
        if unknown:
            raise ValueError(f"expected names among {', '.join(ALERTS)}; got {', '.join(map(repr, unknown))}")
        return alerts

    def build(self) -> Constraint:
        """Compiles the patterns."""
        self.check_dependencies()
        return StructureConstraint(self)


class StructureConstraint:
    """See :class:`StructureConstraintConfig` and :class:`pilotwave.protocols.Constraint`.

    Measures ``ring_strain`` (kcal/mol, of the most strained ring system), ``largest_ring`` (atoms) and
    ``heavy_atoms``. The reason of a refusal begins with the veto's name.
    """

    name = "structure"
    media = frozenset({"molecule"})

    def __init__(self, config: StructureConstraintConfig) -> None:
        from rdkit import Chem

        self._config = config
        self._alerts = compile_alerts(config.alerts)
        self._long_cumulene = Chem.MolFromSmarts(LONG_CUMULENE)
        self._nitro = Chem.MolFromSmarts(NITRO)
        self._linear_in_ring = Chem.MolFromSmarts(LINEAR_IN_RING)

    def check(self, sample: Sample) -> Verdict:
        """Judges one sample; vetoes are tried in a fixed order and the first that holds is the reason."""
        if not isinstance(sample, MoleculeSample):
            return Verdict(f"not a molecule: {sample.media}", {})
        try:
            molecule = parse_mol_block(sample.mol_block)
        except OracleFailure as error:
            return Verdict(f"unreadable: {error}", {})
        return self.check_molecule(molecule)

    def check_molecule(self, molecule: Any) -> Verdict:
        """Judges a sanitised RDKit molecule, with or without explicit hydrogens."""
        properties = {
            "heavy_atoms": float(molecule.GetNumHeavyAtoms()),
            "largest_ring": float(max(map(len, smallest_rings(molecule)), default=0)),
            "ring_strain": largest_system_strain(molecule),
        }
        vetoes: tuple[Callable[[Any, dict[str, float]], str | None], ...] = (
            self._no_molecule,
            self._size,
            self._cumulated,
            self._rings,
            lambda molecule, _: first_alert(molecule, self._alerts),
        )
        reasons = (veto(molecule, properties) for veto in vetoes)
        return Verdict(next((reason for reason in reasons if reason is not None), None), properties)

    def _no_molecule(self, molecule: Any, properties: dict[str, float]) -> str | None:
        from rdkit import Chem

        fragments = len(Chem.GetMolFrags(molecule))
        if fragments != 1:
            return f"more than one fragment: {fragments}"
        in_nitro = {index for match in molecule.GetSubstructMatches(self._nitro) for index in match}
        for atom in molecule.GetAtoms():
            if atom.GetFormalCharge() and atom.GetIdx() not in in_nitro:
                return f"charged atom: {atom.GetSymbol()}{atom.GetFormalCharge():+d}"
            if atom.GetNumRadicalElectrons():
                kind = "radical" if atom.GetNumRadicalElectrons() == 1 else "carbene"
                return f"{kind}: {atom.GetSymbol()}"
        return None

    def _size(self, molecule: Any, properties: dict[str, float]) -> str | None:
        if properties["heavy_atoms"] < self._config.fewest_heavy_atoms:
            return f"too few heavy atoms: {properties['heavy_atoms']:.0f}"
        if self._config.largest_ring is not None and properties["largest_ring"] > self._config.largest_ring:
            return f"ring too large: {properties['largest_ring']:.0f} atoms"
        return None

    def _cumulated(self, molecule: Any, properties: dict[str, float]) -> str | None:
        if molecule.HasSubstructMatch(self._long_cumulene):
            return "cumulene longer than allene"
        rings = molecule.GetRingInfo()
        for (index,) in molecule.GetSubstructMatches(self._linear_in_ring):
            size = rings.MinAtomRingSize(index)
            triple = any(bond.GetBondTypeAsDouble() == 3.0 for bond in molecule.GetAtomWithIdx(index).GetBonds())
            # The smallest allene that can be isolated, cyclonona-1,2-diene, has one atom more than the alkyne.
            if size < self._config.smallest_linear_ring + (not triple):
                return f"{'alkyne' if triple else 'allene'} in a small ring: {size} atoms"
        return None

    def _rings(self, molecule: Any, properties: dict[str, float]) -> str | None:
        if bridgehead_double_bonds(molecule):
            return "bridgehead double bond in a small bicycle"
        if properties["ring_strain"] > self._config.maximum_strain:
            return f"ring strain: {properties['ring_strain']:.0f} kcal/mol"
        return None


__all__ = ["StructureConstraint", "StructureConstraintConfig"]
