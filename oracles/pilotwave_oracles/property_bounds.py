"""Bounds on a cheap molecular property, checked before an expensive oracle is asked (kind ``property``).

May import pilotwave and pilotwave_oracles; RDKit only when the constraint is built.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pilotwave.config.components import ConstraintConfig
from pilotwave.errors import OracleFailure
from pilotwave.protocols import Constraint, Verdict
from pilotwave.samples import MoleculeSample, Sample
from pilotwave_oracles.geometry import parse_mol_block
from pilotwave_oracles.molecular_properties import MolecularPropertySettings, measure_of


class PropertyConstraintConfig(ConstraintConfig, MolecularPropertySettings):
    """Refuses molecules whose property lies outside of bounds; several properties are several constraints."""

    media: ClassVar[frozenset[str]] = frozenset({"molecule"})
    packages: ClassVar[tuple[str, ...]] = ("rdkit",)
    extra: ClassVar[str | None] = "molecules"
    summary: ClassVar[str] = "Bounds on an RDKit property: QED, logP, weight, rings, alerts, similarity."

    kind: Literal["property"] = "property"
    minimum: float | None = Field(None, description="The least value that passes; null: any.")
    maximum: float | None = Field(None, description="The largest value that passes; null: any.")

    @model_validator(mode="after")
    def _bounds_fit(self) -> PropertyConstraintConfig:
        if self.minimum is None and self.maximum is None:
            raise ValueError(f"expected minimum, maximum or both for property: {self.property}, got neither")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(
                f"expected minimum up to maximum, got minimum: {self.minimum:g} and maximum: {self.maximum:g}"
            )
        return self

    def build(self) -> Constraint:
        """Reads the references and prepares the measure.

        Raises:
            MissingDependencyError: RDKit is not installed, or without its Contrib folder.
            InputError: A reference cannot be read.
        """
        self.check_dependencies()
        return PropertyConstraint(self)


class PropertyConstraint:
    """See :class:`PropertyConstraintConfig` and :class:`pilotwave.protocols.Constraint`."""

    media = frozenset({"molecule"})

    def __init__(self, config: PropertyConstraintConfig) -> None:
        self.name = f"property:{config.property}"
        self._config = config
        self._measure = measure_of(config)

    def check(self, sample: Sample) -> Verdict:
        """Measures one sample; what cannot be read or measured is refused with the reason."""
        name = self._config.property
        if not isinstance(sample, MoleculeSample):
            return Verdict(f"not a molecule: {sample.media}", {})
        try:
            value = self._measure(parse_mol_block(sample.mol_block))
        except (OracleFailure, ValueError, RuntimeError) as error:
            return Verdict(f"unreadable: {' '.join(str(error).split())}", {})
        return Verdict(self._reason(value), {name: value})

    def _reason(self, value: float) -> str | None:
        name, low, high = self._config.property, self._config.minimum, self._config.maximum
        if low is not None and value < low:
            return f"{name} too low: {value:.4g}, minimum {low:g}"
        if high is not None and value > high:
            return f"{name} too high: {value:.4g}, maximum {high:g}"
        return None


__all__ = ["PropertyConstraint", "PropertyConstraintConfig"]
