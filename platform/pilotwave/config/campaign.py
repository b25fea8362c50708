"""The schema of a campaign file.

:class:`CampaignConfig` states the fields; :func:`campaign_model` narrows the sections that are chosen by
``kind`` to the union of all installed plug-ins, so that validation, JSON Schema and editors know them all.
May import :mod:`pilotwave.config` and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    field_validator,
    model_validator,
)

from pilotwave.archive.spending import Limits
from pilotwave.config.components import (
    CONFIG_BASES,
    AlgorithmConfig,
    BackboneConfig,
    ComponentConfig,
    ConstraintConfig,
    OracleConfig,
    RuntimeConfig,
    TrackingConfig,
    path_in_campaign,
)
from pilotwave.config.registry import available

DEFAULT_KINDS = {"algorithm": "trust-direct", "runtime": "inline", "tracking": "none"}
"""What is chosen in a section that does not say."""
DEFAULT_RADIUS = 0.05
"""How near is near, in root-mean-square latent distance, where a campaign does not say."""


class Section(BaseModel):
    """A part of a campaign file that is not chosen by kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Objective(Section):
    """What to do with the oracle's value; the one place where the direction is normalised."""

    direction: Literal["maximize", "minimize"] = Field(
        "maximize", description="Whether a larger or a smaller value of the oracle is better."
    )

    def loss(self, value: float) -> float:
        """Returns the value as a loss, to be minimised."""
        return value if self.direction == "minimize" else -value

    def is_better(self, value: float, than: float | None) -> bool:
        """Says whether a value beats another one (anything beats None)."""
        return than is None or self.loss(value) < self.loss(than)


class Budget(Section):
    """How much may be asked. Never overspent, by even one query."""

    queries: int = Field(
        ge=1,
        le=10_000_000,
        description="How many candidates the oracle may be asked about; a repeated attempt at one is not counted.",
    )
    cost: float | None = Field(
        None,
        gt=0,
        description="What all attempts together may cost, in the oracle's own unit; no limit by default. An "
        "attempt is made only if what it is expected to cost fits (oracle.expected_cost).",
    )
    wall_hours: float | None = Field(
        None,
        gt=0,
        description="For how many hours the campaign may be at work, over all its drivers, pauses not counted; "
        "then nothing new is asked, and what is in flight is waited for. No limit by default.",
    )
    batch_size: int = Field(16, ge=1, le=100_000, description="How many candidates are proposed at once.")

    @property
    def limits(self) -> Limits:
        """As the ledger knows them."""
        return Limits(self.queries, self.cost, self.wall_hours)

    @model_validator(mode="after")
    def _batch_fits(self) -> Budget:
        if self.batch_size > self.queries:
            raise ValueError(
                f"batch_size must be at most queries ({self.queries}), got {self.batch_size}; "
                "lower batch_size or raise queries"
            )
        return self


class Generation(Section):
    """How candidates are made feasible before the oracle is asked."""

    redraws: int = Field(
        8,
        ge=0,
        le=1000,
        description="How often more candidates are drawn in place of those that are invalid, break a "
        "constraint or repeat a known answer.",
    )


class Failures(Section):
    """When to stop rather than to go on paying for failures."""

    maximum_rate: float = Field(
        0.5, gt=0, le=1, description="Stop (exit code 3) if more than this share of recent evaluations failed."
    )
    window: int = Field(20, ge=1, le=10_000, description="How many recent evaluations the share is taken over.")


class Archive(Section):
    """A project archive that the campaign writes to, and what it takes from there.

    Attributes:
        radius: Set exactly if ``reuse`` is ``near``.
        near: Likewise.
    """

    path: Path = Field(description="The archive's folder; made if it isn't there. Several campaigns may share it.")
    contributor: str = Field(
        "", max_length=200, description="Written beside every answer, so that a person's data can be forgotten."
    )
    reuse: Literal["off", "exact", "near"] | None = Field(
        None,
        description="Which questions are answered from the archive: none (off), those asked before (exact), or "
        "also those near them (near). Default: exact if the oracle is deterministic, otherwise off.",
    )
    radius: float | None = Field(
        None,
        gt=0,
        description="With reuse: near, how far apart two latents may lie, in root-mean-square distance. "
        f"Default: {DEFAULT_RADIUS}.",
    )
    near: Literal["reuse", "average", "query"] | None = Field(
        None,
        description="With reuse: near, what is done: reuse the nearest answer (the default), average those within "
        "the radius, or ask all the same and only count what it would have saved (query).",
    )
    latents: Literal["float16", "float32"] = Field(
        "float16", description="How latents and noise are kept, if the archive is made now."
    )
    warm_start: int = Field(
        0,
        ge=0,
        le=100_000,
        description="How many earlier answers to the same question on the same backbone the algorithm is told "
        "before it begins; 0 for none.",
    )

    @field_validator("path", mode="before")
    @classmethod
    def _absolute(cls, path: Any, info: ValidationInfo) -> Any:
        if path == "":
            raise ValueError("expected the path of a folder, e.g. runs/archive, got nothing")
        return path_in_campaign(path, info) if isinstance(path, str | Path) else path

    @model_validator(mode="before")
    @classmethod
    def _near_is_whole(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping):
            return fields
        fields = dict(fields)
        if fields.get("reuse") is False:  # YAML reads a bare off as false
            fields["reuse"] = "off"
        given = [key for key in ("radius", "near") if fields.get(key) is not None]
        if fields.get("reuse") == "near":
            defaults = {"radius": DEFAULT_RADIUS, "near": "reuse"}
            fields.update({key: value for key, value in defaults.items() if key not in given})
        elif given:
            raise ValueError(f"{given[0]} is for near answers only; add reuse: near, or remove {given[0]}")
        return fields

    def identity(self) -> dict[str, Any] | None:
        """Returns what decides which questions are asked; None if nothing does, and the archive is only written."""
        if self.reuse == "off" and not self.warm_start:
            return None
        return self.model_dump(mode="json", include={"reuse", "radius", "near", "warm_start"})


class CampaignConfig(Section):
    """One campaign: steer this backbone with this oracle, within this budget."""

    name: str = Field(
        "campaign",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Names the run directory: letters, digits, dot, dash, underscore.",
    )
    backbone: SerializeAsAny[BackboneConfig] = Field(description="The generative model that is steered.")
    oracle: SerializeAsAny[OracleConfig] = Field(description="The expensive judge.")
    objective: Objective = Field(default_factory=lambda: Objective(), description="What to do with its value.")
    constraints: tuple[SerializeAsAny[ConstraintConfig], ...] = Field(
        (), description="Cheap checks that a candidate passes before the oracle is asked."
    )
    algorithm: SerializeAsAny[AlgorithmConfig] = Field(description="Decides what to ask next.")
    budget: Budget = Field(description="How much may be asked.")
    generation: Generation = Field(
        default_factory=lambda: Generation(), description="How candidates are made feasible."
    )
    failures: Failures = Field(default_factory=lambda: Failures(), description="When to stop.")
    runtime: SerializeAsAny[RuntimeConfig] = Field(description="Where and how it runs.")
    tracking: SerializeAsAny[TrackingConfig] = Field(description="Where it is written down for people.")
    archive: Archive | None = Field(None, description="A memory that outlives the campaign; none by default.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of all randomness.")

    @model_validator(mode="after")
    def _media_fit(self) -> CampaignConfig:
        media = self.backbone.media
        judges: list[tuple[str, OracleConfig | ConstraintConfig]] = [("oracle", self.oracle)]
        judges += [("constraint", item) for item in self.constraints]
        for word, part in judges:
            accepted = part.accepted_media() if isinstance(part, OracleConfig) else part.media
            if media not in accepted:
                raise ValueError(
                    f"backbone {self.backbone.kind!r} makes a sample of kind {media!r}, but {word} {part.kind!r} "
                    f"takes {', '.join(sorted(accepted))}; choose another {word} or backbone"
                )
        return self

    @model_validator(mode="after")
    def _direction_fits(self) -> CampaignConfig:
        wished = self.oracle.only_direction()
        if wished is not None and wished != self.objective.direction:
            raise ValueError(
                f"oracle {self.oracle.kind!r} answers with a desirability, expected objective.direction: {wished}; "
                f"got {self.objective.direction}"
            )
        return self

    def components(self) -> list[ComponentConfig]:
        """Returns everything chosen by kind."""
        return [self.backbone, self.oracle, *self.constraints, self.algorithm, self.runtime, self.tracking]

    def identity(self) -> str:
        """Returns a digest of all that decides which questions are asked; where it runs does not."""
        fields = self.model_dump(mode="json", exclude={"runtime", "tracking", "budget", "failures", "archive"})
        for section in ("backbone", "oracle", "algorithm"):
            fields[section] = getattr(self, section).identity()
        fields["constraints"] = [constraint.identity() for constraint in self.constraints]
        for policy in OracleConfig.model_fields.keys() - {"kind"}:
            fields["oracle"].pop(policy)  # how patiently it is asked changes no answer
        fields["batch_size"] = self.budget.batch_size
        fields["mode"] = self.runtime.mode
        if self.archive is not None and (remembered := self.archive.identity()) is not None:
            fields["archive"] = remembered
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


@functools.cache
def campaign_model() -> type[CampaignConfig]:
    """Returns :class:`CampaignConfig` with every ``kind`` section narrowed to the installed plug-ins."""
    described = {name: field.description for name, field in CampaignConfig.model_fields.items()}
    fields: dict[str, Any] = {
        section: (_union(section), Field(description=described[section])) for section in ("backbone", "oracle")
    }
    for section, kind in DEFAULT_KINDS.items():
        default = Field({"kind": kind}, validate_default=True, description=described[section])
        fields[section] = (_union(section), default)
    several = GenericAlias(tuple, (_union("constraint"), ...))
    fields["constraints"] = (several, Field((), description=described["constraints"]))
    model = create_model("Campaign", __base__=CampaignConfig, __doc__=CampaignConfig.__doc__, **fields)
    return cast("type[CampaignConfig]", model)


def campaign_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a campaign file, with descriptions, so that editors complete it."""
    schema = campaign_model().model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _union(section: str) -> Any:
    # Without any plug-in the base class stands in; no kind of it exists, so every file is refused by name.
    classes = available(section) or (CONFIG_BASES[section],)
    if len(classes) == 1:
        return Annotated[classes[0], WrapValidator(_objects_pass(CONFIG_BASES[section]))]
    one_of: Any = functools.reduce(operator.or_, classes)
    named: Any = Annotated[one_of, Field(discriminator="kind")]
    # A section that is given as an object (from Python) is taken as it is.
    return Annotated[named, WrapValidator(_objects_pass(CONFIG_BASES[section]))]


def _objects_pass(base: type[ComponentConfig]) -> Callable[[Any, ValidatorFunctionWrapHandler], Any]:
    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        return value if isinstance(value, base) else handler(value)

    return validate


__all__ = [
    "DEFAULT_KINDS",
    "Archive",
    "Budget",
    "CampaignConfig",
    "Failures",
    "Generation",
    "Objective",
    "campaign_model",
    "campaign_schema",
]
