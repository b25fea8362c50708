"""The xTB oracle: semi-empirical quantum chemistry of a molecule in milliseconds (kind ``xtb``).

Method: GFN2-xTB, C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019); or GFN1-xTB,
S. Grimme, C. Bannwarth, P. Shushkov, J. Chem. Theory Comput. 13, 1989 (2017). May import pilotwave and
pilotwave_oracles; tblite, xtb, scipy and RDKit only when the oracle is built or asked.
"""

from __future__ import annotations

import importlib.util
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pilotwave.config.components import OracleConfig, TimeLimit
from pilotwave.protocols import Oracle
from pilotwave_oracles.desirability import Desirability
from pilotwave_oracles.engine import EngineName, Method, SolvationModel

XtbProperty = Literal[
    "polarizability",
    "gap",
    "homo",
    "lumo",
    "dipole",
    "energy_per_atom",
    "energy",
    "atomization_energy",
    "strain",
    "heat_capacity",
    "solvation_energy",
]

AT_A_MINIMUM = frozenset({"strain", "heat_capacity"})
"""Properties that mean nothing without a relaxation."""


class XtbOracleConfig(OracleConfig):
    """Asks xTB for one property of a molecule at the geometry that was generated, or relaxed from there."""

    media: ClassVar[frozenset[str]] = frozenset({"molecule"})
    packages: ClassVar[tuple[str, ...]] = ("rdkit", "tblite")
    extra: ClassVar[str | None] = "molecules"
    named_by: ClassVar[str] = "property"
    summary: ClassVar[str] = "xTB quantum chemistry: polarizability, gap, dipole, energies, strain, heat capacity."

    later_fields: ClassVar[frozenset[str]] = frozenset(
        {"charge", "multiplicity", "solvent", "solvation", "desirability"}
    )

    kind: Literal["xtb"] = "xtb"
    property: XtbProperty = Field(
        "polarizability",
        description="What is asked: polarizability (isotropic, bohr^3), gap, homo, lumo (eV), dipole (debye), "
        "energy, energy_per_atom (hartree), atomization_energy (eV), strain (kcal/mol above the relaxed "
        "geometry), heat_capacity (298.15 K, constant volume, cal/(mol K)), solvation_energy (kcal/mol).",
    )
    method: Method = Field("gfn2", description="The Hamiltonian: gfn2 (GFN2-xTB) or gfn1 (GFN1-xTB).")
    engine: EngineName = Field(
        "tblite",
        description="The program: tblite, or xtb (xtb-python), which is slower and has no electric field.",
    )
    charge: int | None = Field(
        None, ge=-20, le=20, description="Charge of every molecule; null: the sum of its formal charges."
    )
    multiplicity: int | None = Field(
        None,
        ge=1,
        le=20,
        description="Spin multiplicity 2S+1 of every molecule; null: by its radical electrons, or the lowest.",
    )
    solvent: str | None = Field(
        None, min_length=1, description="Name of an implicit solvent, e.g. water, dmso, toluene; null: vacuum."
    )
    solvation: SolvationModel = Field(
        "alpb",
        description="With a solvent, its model: alpb, gbsa (both parametrised for the method), cpcm "
        "(electrostatics alone); engine: xtb has gbsa only.",
    )
    desirability: Desirability | None = Field(
        None,
        description="Answers not with the property but with how desirable it is, 0 to 1, to be maximized: "
        "low and high say between what, margin how far outside it reaches 0.",
    )
    relax: bool = Field(False, description="Relax the geometry first; a change of bonds fails the evaluation.")
    relax_steps: int = Field(200, ge=1, le=10_000, description="Steps that a relaxation may take.")
    field_step: float = Field(
        1e-3,
        ge=1e-5,
        le=1e-2,
        description="Field of the finite differences for the polarizability, hartree / (e bohr).",
    )
    time_limit: TimeLimit = Field(
        120.0,
        description="Wall-clock seconds for one attempt at one query; auto: learned from how long answers take.",
    )
    recycle_after: int | None = Field(
        1000,
        ge=1,
        description="Replace the oracle's process after so many answers, because xtb-python leaks.",
    )

    @model_validator(mode="after")
    def _engine_can(self) -> XtbOracleConfig:
        if self.property == "polarizability" and self.engine == "xtb":
            raise ValueError(
                "property: polarizability needs an engine with electric fields, got engine: xtb, which has none; "
                "use engine: tblite"
            )
        if self.solvent is not None and self.engine == "xtb" and self.solvation != "gbsa":
            raise ValueError(
                f"engine: xtb has solvation: gbsa only, got solvation: {self.solvation}; set solvation: gbsa or "
                "use engine: tblite"
            )
        if self.property == "solvation_energy" and self.solvent is None:
            raise ValueError("property: solvation_energy needs a solvent; set solvent: water, for example")
        return self

    def relaxes(self) -> bool:
        """Says whether the geometry is relaxed, because it was wished or because the property needs it."""
        return self.relax or self.property in AT_A_MINIMUM

    def only_direction(self) -> Literal["maximize"] | None:
        """Returns ``"maximize"`` where the answer is a desirability."""
        return None if self.desirability is None else "maximize"

    def missing_packages(self) -> list[str]:
        """Returns what this engine needs and lacks; see the base class."""
        needed = ["rdkit", self.engine, *(["scipy"] if self.relaxes() else [])]
        return [name for name in needed if importlib.util.find_spec(name) is None]

    def build(self) -> Oracle:
        """Imports the engine and returns the oracle.

        Raises:
            MissingDependencyError: A package is not installed.
            InputError: The engine does not know the solvent.
        """
        self.check_dependencies()
        from pilotwave_oracles.xtb_oracle import XtbOracle

        return XtbOracle(self)


__all__ = ["AT_A_MINIMUM", "XtbOracleConfig", "XtbProperty"]
