"""One part of a composite oracle: another oracle, what it must reach, and how much it counts.

May import pydantic, pilotwave and pilotwave_oracles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_serializer,
    model_validator,
)

from pilotwave.config.components import OracleConfig
from pilotwave.config.registry import load
from pilotwave.errors import ConfigError
from pilotwave_oracles.desirability import Desirability

POLICIES = frozenset(OracleConfig.model_fields) - {"kind", "time_limit"}
"""How patiently an oracle is asked; a composite is asked as a whole, so its parts have no say in that."""


def _any_oracle(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, Mapping):
        return value
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise ValueError("expected an oracle with its kind, e.g. {kind: xtb, property: gap}")
    try:
        return load("oracle", kind).model_validate(value, context=info.context)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    except ValidationError as error:
        found = (
            f"{'.'.join(str(word) for word in item['loc']) or kind}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise ValueError("; ".join(found)) from error


AnyOracle = Annotated[
    OracleConfig,
    BeforeValidator(_any_oracle),
    WithJsonSchema({"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}}),
]
"""The configuration of any installed oracle, chosen by ``kind``."""


class Requirement(BaseModel):
    """Bounds that a part's value must keep."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    minimum: float | None = Field(None, description="The least value that will do; null: any.")
    maximum: float | None = Field(None, description="The largest value that will do; null: any.")

    @model_validator(mode="after")
    def _is_one(self) -> Requirement:
        if self.minimum is None and self.maximum is None:
            raise ValueError("expected minimum, maximum or both; got neither")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(
                f"expected minimum up to maximum, got minimum: {self.minimum:g} and maximum: {self.maximum:g}"
            )
        return self

    def reason(self, value: float) -> str | None:
        """Returns why a value will not do, or None if it will."""
        if self.minimum is not None and value < self.minimum:
            return f"{value:.6g} is below the required {self.minimum:g}"
        if self.maximum is not None and value > self.maximum:
            return f"{value:.6g} is above the allowed {self.maximum:g}"
        return None


class Part(BaseModel):
    """One oracle of a composite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,39}$",
        description="Names the part's value among the properties of an answer: letters, digits, dash, underscore.",
    )
    oracle: AnyOracle = Field(description="The oracle, chosen by kind as at the top of a campaign file.")
    weight: float = Field(
        1.0,
        description="How much it counts; 0: it is only required and kept. Below 0, in a sum, less is better.",
    )
    desirability: Desirability | None = Field(
        None, description="How good a value is, 0 to 1; needed in a product if the weight is not 0."
    )
    require: Requirement | None = Field(
        None, description="Bounds that the value must keep; otherwise the parts after this one are not asked."
    )
    cost: float | None = Field(
        None, ge=0, description="What one answer of this part costs; null: what its oracle says, usually 1."
    )

    @model_validator(mode="after")
    def _is_asked_in_the_whole(self) -> Part:
        given = sorted(POLICIES & self.oracle.model_fields_set)
        if given:
            raise ValueError(
                f"part {self.name}: {', '.join(given)} cannot be set on a part, which is asked within the "
                "composite; set it on the composite"
            )
        return self

    @field_serializer("oracle")
    def _as_it_was_given(self, oracle: OracleConfig) -> dict[str, Any]:
        """Leaves policies out: one that a later version adds must not change a campaign's identity."""
        fields = oracle.identity()
        kept = {"time_limit"} & oracle.model_fields_set
        return {
            name: value for name, value in fields.items() if name in kept or name not in {*POLICIES, "time_limit"}
        }


__all__ = ["AnyOracle", "Part", "Requirement"]
