"""The schema of a study file: which campaign is varied, how, on which tasks, and what is minimised.

May import pydantic, :mod:`pilotwave.config`, :mod:`pilotwave.errors` and the modules beside it.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pilotwave.config import registry
from pilotwave.config.campaign import Objective as Direction
from pilotwave.config.campaign import campaign_schema
from pilotwave.config.loading import KeyPath, apply_override, read_yaml
from pilotwave.errors import ConfigError
from pilotwave.tuning.space import Dimension

Objective = Literal["queries_to_target", "level", "best"]
Section = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$"


class Target(BaseModel):
    """What is good enough: a value, with its direction if one likes to be sure."""

    model_config = Section

    at_least: float | None = Field(None, description="For campaigns that maximize.")
    at_most: float | None = Field(None, description="For campaigns that minimize.")
    value: float | None = Field(None, description="For either.")

    @model_validator(mode="before")
    @classmethod
    def _number(cls, given: Any) -> Any:
        if isinstance(given, int | float) and not isinstance(given, bool):
            return {"value": given}
        return given

    @model_validator(mode="after")
    def _one(self) -> Target:
        if len([each for each in (self.at_least, self.at_most, self.value) if each is not None]) != 1:
            raise ValueError("expected a number, {at_least: number} or {at_most: number}")
        return self

    @property
    def number(self) -> float:
        """The value."""
        return next(each for each in (self.at_least, self.at_most, self.value) if each is not None)

    def contradicts(self, objective: Direction) -> str:
        """Says what is wrong where the campaign goes in the other direction; nothing otherwise."""
        wrong = "at_most" if objective.direction == "maximize" else "at_least"
        if getattr(self, wrong) is None:
            return ""
        right = "at_least" if wrong == "at_most" else "at_most"
        return f"the campaign is to {objective.direction}, so expected {right}, got {wrong}: {self.number:g}"


class Task(BaseModel):
    """One task of a study."""

    model_config = Section

    set: dict[str, Any] = Field(
        default_factory=dict, description="What differs from the campaign, e.g. {oracle.property: dipole}."
    )
    target: Target | None = Field(None, description="Instead of the study's.")


class Chosen(BaseModel):
    """A scheduler or searcher: its name, or a mapping with its settings."""

    model_config = Section

    kind: str = Field(min_length=1, description="A known name, or package.module:Class.")
    options: dict[str, Any] = Field(default_factory=dict, description="Handed to its constructor.")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"kind": given} if isinstance(given, str) else given


class Scheduler(Chosen):
    """Which trials are stopped early. All numbers are of questions to each campaign of a trial."""

    grace: int | None = Field(None, ge=1, description="None is stopped before. Default: as every.")
    reduction_factor: float = Field(3, gt=1, description="Of asha and hyperband: the best of so many go on.")
    every: int | None = Field(
        None, ge=1, description="How often trials are compared. Default: the campaign's batch_size."
    )


class StudyConfig(BaseModel):
    """One study."""

    model_config = Section

    name: str = Field("study", pattern=NAME, description="Names the study's directory.")
    campaign: dict[str, Any] = Field(description="What is varied: the path of a campaign file, or its fields.")
    folder: Path = Field(Path(), description="Where relative paths in the campaign start.")
    search: dict[str, Dimension] = Field(min_length=1, description="Fields of the campaign, and what is tried.")
    tasks: dict[str, Task] = Field(default_factory=dict, description="Named changes; a trial is judged on all.")
    seeds: tuple[int, ...] = Field((), description="Of the campaigns of each trial; the campaign's by default.")
    target: Target | None = Field(None, description="What is good enough, on every task that names none.")
    objective: Objective | None = Field(
        None, description="What is minimised; queries_to_target where there is a target, otherwise level."
    )
    samples: int | None = Field(None, ge=1, le=100_000, description="How many points are tried.")
    concurrent_trials: int = Field(2, ge=1, le=1000, description="How many at once.")
    searcher: Chosen = Field(Chosen(kind="random"), description="Which points.")
    scheduler: Scheduler = Field(Scheduler(kind="asha"), description="Which of them are stopped early.")
    budget: int | None = Field(None, ge=1, description="Questions over all trials; never overspent.")
    runtime: dict[str, Any] | None = Field(None, description="Instead of the campaign's.")
    tracking: dict[str, Any] = Field(default_factory=lambda: {"kind": "none"}, description="As in a campaign.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of what is drawn.")

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        twins = [seed for seed in seeds if seeds.count(seed) > 1]
        if twins:
            raise ValueError(f"the seed {twins[0]} is said twice; keep one")
        return seeds

    @field_validator("tasks")
    @classmethod
    def _tasks_have_names(cls, tasks: dict[str, Task]) -> dict[str, Task]:
        import re

        for name in tasks:
            if not re.match(NAME, name):
                raise ValueError(f"a task's name has letters, digits, dot, dash, underscore; got {name!r}")
        return tasks

    def identity(self) -> str:
        """Returns a digest of all that decides what a trial is and how it is judged.

        How many there may be, how many at once, where they run and where they are written down may be changed.
        """
        free = {"samples", "concurrent_trials", "budget", "runtime", "tracking", "folder", "scheduler"}
        fields = self.model_dump(mode="json", exclude=free)
        fields["campaign"] = {
            key: item for key, item in self.campaign.items() if key not in ("runtime", "tracking")
        }
        return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()


def load_study(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Reads a study file; :mod:`pilotwave.tuning.checks` says whether its campaigns are right.

    Args:
        path: The YAML file.
        overrides: ``"samples=40"``, ``"campaign.budget.queries=64"``.

    Raises:
        ConfigError: One line that says what was expected, what came and where.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the path of a study file")
    fields, lines = read_yaml(path)
    fields = with_campaign(fields, path.parent, str(path))
    if any(override.startswith("runtime") for override in overrides) and fields.get("runtime") is None:
        campaign = fields["campaign"] if isinstance(fields.get("campaign"), Mapping) else {}
        fields["runtime"] = copy.deepcopy(dict(campaign.get("runtime") or {}))  # what is not said stays
    for override in overrides:
        apply_override(fields, override)
    return check_study(fields, source=str(path), lines=lines)


def with_campaign(fields: Mapping[str, Any], base_dir: Path, source: str) -> dict[str, Any]:
    """Puts the fields of the campaign file in the place of its path."""
    fields = dict(fields)
    campaign = fields.get("campaign")
    fields.setdefault("folder", str(base_dir.resolve()))
    if isinstance(campaign, str):
        place = base_dir / Path(campaign).expanduser()
        if not place.is_file():
            raise ConfigError(f"{source}: campaign: no such file: {place}")
        fields["campaign"], _ = read_yaml(place)
        fields["folder"] = str(place.parent.resolve())
    return fields


def check_study(
    fields: Mapping[str, Any], *, source: str = "study", lines: Mapping[KeyPath, int] | None = None
) -> StudyConfig:
    """Checks the fields of a study, but not its campaigns.

    Raises:
        ConfigError: One line that says what was expected, what came and where.
    """
    try:
        return StudyConfig.model_validate(dict(fields))
    except ValidationError as error:
        raise ConfigError(_explain(error, source, lines or {})) from error


def study_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a study file, with descriptions, so that editors complete it."""
    schema = StudyConfig.model_json_schema()
    campaign = campaign_schema()
    schema["$defs"] |= campaign.pop("$defs")
    fields, defs = schema["properties"], schema["$defs"]
    fields.pop("folder")  # of a study that is written down
    campaign.pop("$schema")
    path = {"type": "string", "description": "The path of a campaign file."}
    fields["campaign"] = {"anyOf": [path, campaign], "description": fields["campaign"]["description"]}
    defs["Target"] = {"anyOf": [{"type": "number"}, defs["Target"]]}
    for name in ("Chosen", "Scheduler"):
        defs[name] = {"anyOf": [{"type": "string"}, defs[name]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def to_yaml(study: StudyConfig) -> str:
    """Writes a study down so that :func:`load_study` reads the same one from any folder."""
    return yaml.safe_dump(study.model_dump(mode="json", exclude_none=True), sort_keys=False)


def _explain(error: ValidationError, source: str, lines: Mapping[KeyPath, int]) -> str:
    found = sorted(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
    first, *others = found
    location = first["loc"]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = {**StudyConfig.model_fields, **Scheduler.model_fields, **Task.model_fields}
        known = dict(StudyConfig.model_fields) if len(location) == 1 else known
        message = f"unknown key{registry.suggestion(str(location[-1]), known)}; remove it or mend its name"
    elif first["type"] == "missing":
        message = "this key is missing; add it"
    elif first["type"] not in ("value_error", "assertion_error"):
        got = repr(first["input"])
        message = f"{message}, got {got if len(got) <= 60 else got[:57] + '...'}"
    line = next((lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), None)
    dotted = ".".join(str(part) for part in location)
    where = ": ".join(part for part in (source, f"line {line}" if line else "", dotted) if part)
    more = f" (and {len(others)} more)" if others else ""
    return " ".join(f"{where}: {message}{more}".split())


__all__ = [
    "Chosen",
    "Scheduler",
    "StudyConfig",
    "Target",
    "Task",
    "check_study",
    "load_study",
    "study_schema",
    "to_yaml",
]
