"""The parts of a campaign that decide what is generated, read without those that judge, track or run it.

So more samples can be made where the oracle's plug-in is not installed, and of a campaign whose oracle was a Python
function. May import :mod:`pilotwave.config` and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pilotwave.config import registry
from pilotwave.config.campaign import CampaignConfig, Generation, Objective
from pilotwave.config.components import AlgorithmConfig, BackboneConfig, ConstraintConfig
from pilotwave.config.loading import apply_override, read_yaml
from pilotwave.errors import ConfigError, InputError, RunDirectoryError

Chosen = TypeVar("Chosen", BackboneConfig, AlgorithmConfig, ConstraintConfig)
Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True)
class GuidanceConfig:
    """What is generated and how.

    Attributes:
        name: The campaign's.
        backbone: The model.
        algorithm: What learned.
        constraints: What a sample has to pass.
        objective: What a loss means.
        generation: How samples are made feasible.
        batch_size: How many the campaign proposed at once.
        seed: The campaign's.
        device: Where the campaign had its model.
        threads: CPU threads of the model.
    """

    name: str
    backbone: BackboneConfig
    algorithm: AlgorithmConfig
    constraints: tuple[ConstraintConfig, ...]
    objective: Objective
    generation: Generation
    batch_size: int
    seed: int
    device: str = "auto"
    threads: int = 1

    @classmethod
    def of(cls, config: CampaignConfig) -> Self:
        """Takes them from a checked campaign."""
        return cls(
            name=config.name,
            backbone=config.backbone,
            algorithm=config.algorithm,
            constraints=tuple(config.constraints),
            objective=config.objective,
            generation=config.generation,
            batch_size=config.budget.batch_size,
            seed=config.seed,
            device=config.runtime.device,
            threads=config.runtime.generator_threads,
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads them from a resolved campaign file; relative paths start at its folder.

        Raises:
            RunDirectoryError: The file cannot be read, or a plug-in is not installed.
        """
        try:
            fields, _ = read_yaml(path)
            return cls._checked(fields, path.parent)
        except ConfigError as error:
            raise RunDirectoryError(f"{path}: nothing can be generated from it: {error}") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RunDirectoryError(
                f"{path}: expected a resolved campaign, but {error!r}; undo the change"
            ) from error

    @classmethod
    def _checked(cls, fields: Mapping[str, Any], base_dir: Path) -> Self:
        runtime = fields.get("runtime") or {}
        return cls(
            name=str(fields["name"]),
            backbone=_chosen("backbone", fields["backbone"], base_dir, BackboneConfig),
            algorithm=_chosen("algorithm", fields["algorithm"], base_dir, AlgorithmConfig),
            constraints=tuple(
                _chosen("constraint", item, base_dir, ConstraintConfig) for item in fields.get("constraints") or ()
            ),
            objective=_section("objective", Objective, fields.get("objective") or {}),
            generation=_section("generation", Generation, fields.get("generation") or {}),
            batch_size=int(fields["budget"]["batch_size"]),
            seed=int(fields["seed"]),
            device=str(runtime.get("device", "auto")),
            threads=int(runtime.get("generator_threads", 1)),
        )

    def under(self, conditions: Mapping[str, Any]) -> Self:
        """Returns it with other conditions of the model.

        Args:
            conditions: Values for the model's fields that say which conditions are drawn, e.g.
                ``{"classes": ["sneaker"]}``.

        Raises:
            InputError: It has no such conditions.
        """
        known = sorted(self.backbone.condition_fields)
        for name in conditions:
            if name not in known:
                has = f"has the conditions {', '.join(known)}" if known else "has no conditions to choose"
                near = registry.suggestion(name, dict.fromkeys(known))
                raise InputError(f"condition {name}: a model of kind {self.backbone.kind!r} {has}{near}")
        if not conditions:
            return self
        fields = {**self.backbone.model_dump(), **conditions}
        try:
            chosen = type(self.backbone).model_validate(fields)
        except (ValidationError, ConfigError) as error:
            raise InputError(f"condition {', '.join(conditions)}: {_first_line(error)}") from None
        return replace(self, backbone=chosen)

    def to_yaml(self, backbone: Mapping[str, Any]) -> bytes:
        """Returns the file that :meth:`read` reads.

        Args:
            backbone: The section of the model, with its paths as they shall be.
        """
        fields = {
            "name": self.name,
            "backbone": dict(backbone),
            "objective": self.objective.model_dump(mode="json"),
            "constraints": [item.model_dump(mode="json") for item in self.constraints],
            "algorithm": self.algorithm.model_dump(mode="json"),
            "budget": {"batch_size": self.batch_size},
            "generation": self.generation.model_dump(mode="json"),
            "runtime": {"generator_threads": self.threads},
            "seed": self.seed,
        }
        return yaml.safe_dump(fields, sort_keys=False).encode()


def parse_conditions(given: list[str]) -> dict[str, Any]:
    """Reads ``["atoms=9"]``; values are YAML.

    Raises:
        InputError: One of them is not ``name=value``.
    """
    fields: dict[str, Any] = {}
    for text in given:
        try:
            apply_override(fields, text)
        except ConfigError:
            raise InputError(f"--condition {text}: expected name=value, e.g. --condition atoms=9") from None
    return fields


def _chosen(section: str, fields: Mapping[str, Any], base_dir: Path, base: type[Chosen]) -> Chosen:
    kind = str(fields.get("kind"))
    if kind == "given":
        raise ConfigError(
            f"{section}: it was given as a Python object, which no file holds; in Python call generate() of the "
            "result that pilotwave.optimize returned"
        )
    config_class = registry.load(section, kind)
    try:
        chosen = config_class.model_validate(dict(fields), context={"base_dir": base_dir.resolve()})
    except ValidationError as error:
        raise ConfigError(f"{section}: {_first_line(error)}") from None
    assert isinstance(chosen, base), "the registry looks at this"
    return chosen


def _section(name: str, kind: type[Part], fields: Mapping[str, Any]) -> Part:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"{name}: {_first_line(error)}") from None


def _first_line(error: ValidationError | ConfigError) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    return f"{message}, got {first['input']!r}"


__all__ = ["GuidanceConfig", "parse_conditions"]
