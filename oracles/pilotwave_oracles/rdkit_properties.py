"""Cheap molecular properties as an oracle (kind ``rdkit``): for trying things out, and as parts of a composition.

May import pilotwave and pilotwave_oracles; RDKit only when the oracle is built or asked.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any, ClassVar, Literal

from pydantic import Field

from pilotwave.config.components import OracleConfig, TimeLimit
from pilotwave.errors import OracleFailure
from pilotwave.protocols import KnownAnswer, Oracle, QueryContext
from pilotwave.samples import MoleculeSample, Sample
from pilotwave.types import Answer
from pilotwave_oracles.desirability import Desirability
from pilotwave_oracles.geometry import parse_mol_block
from pilotwave_oracles.molecular_properties import (
    PROPERTY_UNITS,
    MolecularProperty,
    MolecularPropertySettings,
    descriptors,
    measure_of,
)

KNOWN = "CC(=O)Oc1ccccc1C(=O)O"
KNOWN_VALUES: dict[MolecularProperty, float] = {
    "qed": 0.5501,
    "synthetic_accessibility": 1.580,
    "logp": 1.3101,
    "tpsa": 63.60,
    "molecular_weight": 180.159,
    "heavy_atoms": 13.0,
    "rings": 1.0,
    "formal_charge": 0.0,
    "lipinski_violations": 0.0,
}
"""Of aspirin."""

TOLERANCE = 2e-3

FREE: tuple[MolecularProperty, ...] = ("qed", "logp", "tpsa", "molecular_weight", "rotatable_bonds", "rings")
"""Kept with every answer."""


class RdkitOracleConfig(OracleConfig, MolecularPropertySettings):
    """Measures one cheap property of a molecule by RDKit: drug-likeness, descriptors, similarity to references."""

    media: ClassVar[frozenset[str]] = frozenset({"molecule"})
    packages: ClassVar[tuple[str, ...]] = ("rdkit",)
    extra: ClassVar[str | None] = "molecules"
    summary: ClassVar[str] = "RDKit properties: QED, logP, TPSA, alerts, similarity in graph or shape."
    named_by: ClassVar[str] = "property"

    kind: Literal["rdkit"] = "rdkit"
    desirability: Desirability | None = Field(
        None,
        description="Answers not with the property but with how desirable it is, 0 to 1, to be maximized: "
        "low and high say between what, margin how far outside it reaches 0.",
    )
    time_limit: TimeLimit = Field(
        60.0,
        description="Wall-clock seconds for one attempt at one query; auto: learned from how long answers take.",
    )

    def only_direction(self) -> Literal["maximize"] | None:
        """Returns ``"maximize"`` where the answer is a desirability."""
        return None if self.desirability is None else "maximize"

    def build(self) -> Oracle:
        """Reads the references and prepares the measure.

        Raises:
            MissingDependencyError: RDKit is not installed, or without its Contrib folder.
            InputError: A reference cannot be read.
        """
        self.check_dependencies()
        return RdkitOracle(self)


class RdkitOracle:
    """See :class:`RdkitOracleConfig` and :class:`pilotwave.protocols.Oracle`."""

    media = frozenset({"molecule"})
    deterministic = True

    def __init__(self, config: RdkitOracleConfig) -> None:
        self._config = config
        self._measure = measure_of(config)
        self._free = {name: descriptors()[name] for name in FREE}
        self.name = f"rdkit:{config.property}"
        self.unit = PROPERTY_UNITS.get(config.property, "") if config.desirability is None else ""
        self.version = ", ".join([f"rdkit {version('rdkit')}", *_what_changes_values(config)])

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Measures the property.

        Raises:
            OracleFailure: Stage ``"media"`` or ``"parse"``: no molecule that RDKit can take; ``"measure"``: RDKit
                cannot compute the property for it.
        """
        from rdkit import Chem

        if not isinstance(sample, MoleculeSample):
            raise OracleFailure(f"expected a molecule sample, got {sample.media}", stage="media")
        molecule = parse_mol_block(sample.mol_block)
        try:
            value = self._measure(molecule)
            heavy = Chem.RemoveHs(molecule)
            values: dict[str, float] = {name: float(measure(heavy)) for name, measure in self._free.items()}
        except (ValueError, RuntimeError) as error:
            message = " ".join(str(error).split())
            raise OracleFailure(
                f"RDKit cannot measure {self._config.property}: {message}", stage="measure"
            ) from error
        values[self._config.property] = value
        if self._config.desirability is not None:
            return Answer(self._config.desirability.of(value), values, "rdkit")
        del values[self._config.property]
        return Answer(value, values, "rdkit")

    def known_answer(self) -> KnownAnswer:
        """Asks about aspirin; where no value is known (similarity, alerts) only that it works."""
        sample = aspirin()
        value = KNOWN_VALUES.get(self._config.property)
        if value is None:
            return KnownAnswer(sample)
        tolerance = TOLERANCE * max(1.0, abs(value))
        wished = self._config.desirability
        if wished is not None:
            return KnownAnswer(sample, wished.of(value), wished.tolerance(value, tolerance))
        return KnownAnswer(sample, value, tolerance)


def aspirin() -> MoleculeSample:
    """Returns aspirin with hydrogens and the coordinates of one conformer."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    molecule = Chem.AddHs(Chem.MolFromSmiles(KNOWN))
    rdDistGeom.EmbedMolecule(molecule, randomSeed=1)
    return MoleculeSample(Chem.MolToMolBlock(molecule), KNOWN)


def _what_changes_values(config: RdkitOracleConfig) -> list[str]:
    parts: list[Any] = []
    if config.property == "alerts":
        parts.append(f"alerts {' '.join(sorted(set(config.catalogues)))}")
    digest = hashlib.sha256("\n".join(config.references).encode())
    if config.reference_file is not None:
        digest.update(config.reference_file.read_bytes())
    if config.references or config.reference_file is not None:
        parts.append(f"references {digest.hexdigest()[:12]}")
    if config.desirability is not None:
        parts.append(f"desirability {config.desirability}")
    return parts


__all__ = ["RdkitOracle", "RdkitOracleConfig", "aspirin"]
