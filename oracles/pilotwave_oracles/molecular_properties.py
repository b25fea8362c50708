"""Cheap numbers of a molecule by RDKit: what the oracle ``rdkit`` and the constraint ``property`` share.

May import pydantic, pilotwave and pilotwave_oracles; RDKit inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from pilotwave.config.components import path_in_campaign

MolecularProperty = Literal[
    "qed",
    "synthetic_accessibility",
    "logp",
    "tpsa",
    "molecular_weight",
    "heavy_atoms",
    "rotatable_bonds",
    "hydrogen_bond_donors",
    "hydrogen_bond_acceptors",
    "fraction_sp3",
    "rings",
    "aromatic_rings",
    "largest_ring",
    "fused_rings",
    "stereocentres",
    "formal_charge",
    "lipinski_violations",
    "alerts",
    "similarity",
    "shape_similarity",
]

PROPERTY_UNITS: dict[MolecularProperty, str] = {"tpsa": "Å^2", "molecular_weight": "g/mol", "formal_charge": "e"}
"""Units of those that have one."""

NEED_REFERENCES = frozenset({"similarity", "shape_similarity"})

AlertCatalogue = Literal["pains", "brenk", "nih", "zinc"]

Measure = Callable[[Any], float]
"""From a sanitised RDKit molecule with all hydrogens and coordinates to a number."""


class MolecularPropertySettings(BaseModel):
    """What is measured; the part of a configuration that the oracle and the constraint have in common."""

    property: MolecularProperty = Field(
        description="What is measured: qed (0 to 1), synthetic_accessibility (1 easy to 10 hard), logp (Crippen), "
        "tpsa (Å^2), molecular_weight (g/mol), counts such as rotatable_bonds, rings, alerts, "
        "lipinski_violations; similarity (Morgan, Tanimoto) or shape_similarity (aligned in 3D) to the nearest "
        "reference, 0 to 1."
    )
    references: tuple[str, ...] = Field(
        (), max_length=10_000, description="SMILES of the molecules that similarity is measured to."
    )
    reference_file: Path | None = Field(
        None,
        description="More of them: an SDF file (whose 3D coordinates are the reference shape), or a text file with "
        "a SMILES at the beginning of each line; relative to the campaign file.",
    )
    catalogues: tuple[AlertCatalogue, ...] = Field(
        ("pains", "brenk"),
        min_length=1,
        description="For alerts, whose patterns are counted: pains, brenk, nih, zinc.",
    )

    @field_validator("reference_file", mode="before")
    @classmethod
    def _absolute(cls, path: Any, info: ValidationInfo) -> Any:
        if not isinstance(path, str | Path):
            return path
        place = path_in_campaign(path, info)
        if not place.is_file():
            raise ValueError(f"expected a file of reference molecules, found none at {place}")
        return place

    @model_validator(mode="after")
    def _references_fit(self) -> MolecularPropertySettings:
        given = bool(self.references) or self.reference_file is not None
        if self.property in NEED_REFERENCES and not given:
            raise ValueError(
                f"property: {self.property} needs molecules to compare with; give references or reference_file"
            )
        if self.property not in NEED_REFERENCES and given:
            raise ValueError(
                f"references are for similarity and shape_similarity, not for property: {self.property}; "
                "remove them"
            )
        return self


def measure_of(settings: MolecularPropertySettings) -> Measure:
    """Builds the function that measures the property.

    Raises:
        InputError: A reference cannot be read, or has no shape.
        MissingDependencyError: RDKit lacks the Contrib folder that the synthetic accessibility needs.
    """
    name = settings.property
    if name == "synthetic_accessibility":
        from pilotwave_oracles.synthesizability import load_scorer

        return _of_heavy(load_scorer().calculateScore)
    if name == "alerts":
        return _alert_counter(settings.catalogues)
    if name in NEED_REFERENCES:
        from pilotwave_oracles import references

        read = references.read_references(settings.references, settings.reference_file)
        return references.similarity_to(read) if name == "similarity" else references.shape_similarity_to(read)
    return _of_heavy(descriptors()[name])


def descriptors() -> Mapping[str, Callable[[Any], float]]:
    """Returns the properties that need nothing but a molecule without explicit hydrogens, by name."""
    from rdkit import Chem
    from rdkit.Chem import QED, rdMolDescriptors

    def logp(molecule: Any) -> float:
        return float(rdMolDescriptors.CalcCrippenDescriptors(molecule)[0])

    def weight(molecule: Any) -> float:
        return float(rdMolDescriptors._CalcMolWt(molecule))

    return {
        "qed": QED.qed,
        "logp": logp,
        "tpsa": rdMolDescriptors.CalcTPSA,
        "molecular_weight": weight,
        "heavy_atoms": lambda molecule: molecule.GetNumHeavyAtoms(),
        "rotatable_bonds": rdMolDescriptors.CalcNumRotatableBonds,
        "hydrogen_bond_donors": rdMolDescriptors.CalcNumHBD,
        "hydrogen_bond_acceptors": rdMolDescriptors.CalcNumHBA,
        "fraction_sp3": rdMolDescriptors.CalcFractionCSP3,
        "rings": rdMolDescriptors.CalcNumRings,
        "aromatic_rings": rdMolDescriptors.CalcNumAromaticRings,
        "largest_ring": lambda molecule: max(map(len, molecule.GetRingInfo().AtomRings()), default=0),
        "fused_rings": _most_fused_rings,
        "stereocentres": rdMolDescriptors.CalcNumAtomStereoCenters,
        "formal_charge": Chem.GetFormalCharge,
        "lipinski_violations": lambda molecule: (
            (weight(molecule) > 500)
            + (logp(molecule) > 5)
            + (rdMolDescriptors.CalcNumLipinskiHBD(molecule) > 5)
            + (rdMolDescriptors.CalcNumLipinskiHBA(molecule) > 10)
        ),
    }


def _of_heavy(function: Callable[[Any], float]) -> Measure:
    return lambda molecule: float(function(_heavy(molecule)))


def _heavy(molecule: Any) -> Any:
    from rdkit import Chem

    return Chem.RemoveHs(molecule)


def _most_fused_rings(molecule: Any) -> int:
    """Returns how many smallest rings the largest ring system has: 1 for biphenyl, 2 for naphthalene."""
    systems: list[tuple[set[int], int]] = []
    for ring in molecule.GetRingInfo().AtomRings():
        joined, count = set(ring), 1
        apart = []
        for atoms, rings in systems:
            if joined & atoms:
                joined, count = joined | atoms, count + rings
            else:
                apart.append((atoms, rings))
        systems = [*apart, (joined, count)]
    return max((count for _, count in systems), default=0)


def _alert_counter(catalogues: tuple[AlertCatalogue, ...]) -> Measure:
    from rdkit.Chem import FilterCatalog

    parameters = FilterCatalog.FilterCatalogParams()
    for name in dict.fromkeys(catalogues):
        parameters.AddCatalog(getattr(FilterCatalog.FilterCatalogParams.FilterCatalogs, name.upper()))
    catalogue = FilterCatalog.FilterCatalog(parameters)
    return lambda molecule: float(len(catalogue.GetMatches(_heavy(molecule))))


__all__ = [
    "NEED_REFERENCES",
    "PROPERTY_UNITS",
    "AlertCatalogue",
    "Measure",
    "MolecularProperty",
    "MolecularPropertySettings",
    "descriptors",
    "measure_of",
]
