"""Base classes of everything a campaign file chooses by ``kind``: each is its own configuration.

An entry point of the groups in :data:`GROUPS` names a subclass; importing it must be cheap, because the
schema of a campaign is assembled from all of them. Heavy packages (rdkit, ray, diffusers, tblite, mlflow)
are imported inside ``build`` or later. May import pydantic, :mod:`pilotwave.errors` and :mod:`pilotwave.protocols`.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from pilotwave.errors import MissingDependencyError
from pilotwave.protocols import Invariants, flattened

if TYPE_CHECKING:
    from pilotwave.execution.job import Runtime
    from pilotwave.protocols import Algorithm, Backbone, Constraint, Oracle, Tracker

GROUPS: dict[str, str] = {
    "backbone": "pilotwave.backbones",
    "oracle": "pilotwave.oracles",
    "constraint": "pilotwave.constraints",
    "algorithm": "pilotwave.algorithms",
    "runtime": "pilotwave.runtimes",
    "tracking": "pilotwave.trackers",
}
"""From the word in a campaign file to the entry-point group that fills it."""


def _seconds_or_auto(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto" or (is_number and value > 0):  # type: ignore[operator]
        return value
    raise ValueError(f"expected seconds above 0, or auto, got {value!r}")


TimeLimit = Annotated[float | Literal["auto"], BeforeValidator(_seconds_or_auto)]
"""Seconds, or ``"auto"``: learned from how long the answers took."""


def path_in_campaign(place: str | Path, info: ValidationInfo) -> Path:
    """Makes a path absolute: a relative one in a campaign file starts at the file's folder.

    Args:
        place: What the file says; ``~`` is expanded.
        info: A validator's; the loader passes the folder as the context ``{"base_dir": Path}``.
    """
    base_dir = (info.context or {}).get("base_dir") or Path.cwd()
    return (Path(base_dir) / Path(place).expanduser()).resolve()


_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def _bytes(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    words = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", value) if isinstance(value, str) else None
    amount = 0 if words is None else int(float(words[1]) * _UNITS.get(words[2].upper(), 0))
    if amount <= 0:
        raise ValueError(f"expected bytes above 0, or an amount such as 4 GiB or 500 MB, got {value!r}")
    return amount


Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)]
"""A whole number, or a text such as ``"4 GiB"`` (1024) or ``"4 GB"`` (1000)."""


class ComponentConfig(BaseModel):
    """One choice in a campaign file; unknown keys are refused.

    Attributes:
        kind: The name of the choice; a subclass narrows it to a Literal with itself as default-free value.
        packages: Import names that must be installed for this choice, e.g. ``("tblite", "rdkit")``.
        extra: The extra of the distribution that installs them, e.g. ``"molecules"``.
        summary: One line for ``pilotwave list``.
        later_fields: Fields that run directories of an earlier version do not know. At their defaults they are
            no part of a campaign's identity, so that one that began under that version can be resumed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str | None] = None
    summary: ClassVar[str] = ""
    later_fields: ClassVar[frozenset[str]] = frozenset()

    kind: str

    def identity(self) -> dict[str, Any]:
        """Returns its fields for JSON, as they count in a campaign's identity."""
        fields = self.model_dump(mode="json")
        for name in self.later_fields:
            if getattr(self, name) == type(self).model_fields[name].default:
                del fields[name]
        return fields

    def missing_packages(self) -> list[str]:
        """Returns the needed packages that are not installed, without importing them."""
        return [name for name in self.packages if not self.is_installed(name)]

    @staticmethod
    def is_installed(package: str) -> bool:
        """Says whether a package can be imported, without importing it."""
        return importlib.util.find_spec(package) is not None

    def check_dependencies(self) -> None:
        """Makes sure that this choice can run here.

        Raises:
            MissingDependencyError: A package is not installed; the message says what to install.
        """
        missing = self.missing_packages()
        if missing:
            target = f"'pilotwave[{self.extra}]'" if self.extra else " ".join(missing)
            raise MissingDependencyError(
                f"kind {self.kind!r} needs {', '.join(missing)}, which is not installed; run: pip install {target}"
            )


class BackboneConfig(ComponentConfig):
    """Base of every backbone's configuration.

    Attributes:
        condition_fields: Names of fields that say which conditions are drawn and change nothing else, e.g.
            ``classes``: what was learned under some holds for others.
    """

    media: ClassVar[str]
    condition_fields: ClassVar[frozenset[str]] = frozenset()

    def build(self, device: str = "auto") -> Backbone:
        """Loads the model.

        Args:
            device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

        Raises:
            CheckpointError: The checkpoint cannot be used; the message says why.
        """
        raise NotImplementedError


class OracleConfig(ComponentConfig):
    """Base of every oracle's configuration: how it is asked is the same for all.

    Attributes:
        time_limit: Wall-clock seconds for one attempt; then its process group is killed. ``"auto"``: learned from
            how long answers take, see :mod:`pilotwave.execution.time_limits`.
        time_limit_cap: Where ``auto`` begins and what it never exceeds.
        attempts: How often a retryable failure is tried in all.
        backoff_seconds: Pause before the second attempt; it doubles with each further one.
        expected_cost: What one attempt is expected to cost before one was seen, in the oracle's own unit.
        calls_per_minute: How many attempts may begin in a minute, over all evaluators.
        cost_per_minute: What they may cost.
        recycle_after: The oracle's process is replaced after so many answers (leaks), or never.
        memory_limit: Bytes that the oracle's process and whatever it starts may hold together; over it they are
            killed, and the attempt failed in the stage ``"memory limit"``.
        isolation: ``"process"``: in a child process group that can be killed, the rule for native and
            third-party code. ``"thread"``: in the evaluator itself, for cheap trusted Python.
        named_by: The setting that ``kind:value`` means on the command line, e.g. xTB's ``property``; "" for none.
    """

    media: ClassVar[frozenset[str]]
    named_by: ClassVar[str] = ""

    time_limit: TimeLimit = Field(
        600.0,
        description="Wall-clock seconds for one attempt at one query; auto: learned from how long answers take.",
    )
    time_limit_cap: float = Field(
        3600.0, gt=0, description="Seconds that time_limit: auto begins with and never exceeds."
    )
    attempts: int = Field(2, ge=1, le=20, description="Attempts in all at a query whose failure is retryable.")
    backoff_seconds: float = Field(
        1.0,
        ge=0,
        le=3600,
        description="Pause before a second attempt, give or take half; it doubles with each further one, to at "
        "most five minutes (or this, if it is more).",
    )
    expected_cost: float | None = Field(
        None,
        ge=0,
        description="What one attempt costs at most, in the oracle's own unit, so that budget.cost holds from the "
        "first on. Default: the largest cost seen so far, 1 before that.",
    )
    calls_per_minute: float | None = Field(
        None, gt=0, description="How many attempts may begin in a minute, over all evaluators; evenly spaced."
    )
    cost_per_minute: float | None = Field(
        None, gt=0, description="What the attempts of a minute may cost, over all evaluators."
    )
    recycle_after: int | None = Field(None, ge=1, description="Replace the oracle's process after so many answers.")
    memory_limit: Bytes | None = Field(
        None,
        description="What the oracle's process and the programs it starts may hold in memory, e.g. 4 GiB; over it "
        "they are killed, which costs the attempt. One that leaks is replaced before, between two questions.",
    )
    isolation: Literal["process", "thread"] = Field(
        "process",
        description="Where the oracle's code runs: a child process that can be killed, or a thread.",
    )

    @model_validator(mode="after")
    def _can_be_watched(self) -> Self:
        if self.memory_limit is not None and self.isolation == "thread":
            raise ValueError(
                "memory_limit needs a process that can be killed: choose isolation: process, or remove it"
            )
        return self

    @property
    def longest(self) -> float:
        """Wall-clock seconds that no attempt may exceed, learned limit or not."""
        return self.time_limit_cap if self.time_limit == "auto" else self.time_limit

    def accepted_media(self) -> frozenset[str]:
        """Returns the kinds of sample that it takes as it is set: those of its class, or fewer."""
        return self.media

    def only_direction(self) -> Literal["maximize", "minimize"] | None:
        """Returns the only direction in which its value makes sense, e.g. up for a desirability; None: either."""
        return None

    def build(self) -> Oracle:
        """Builds the oracle, in the process that will ask it."""
        raise NotImplementedError


class ConstraintConfig(ComponentConfig):
    """Base of every constraint's configuration."""

    media: ClassVar[frozenset[str]]

    def build(self) -> Constraint:
        """Builds the constraint, next to the model."""
        raise NotImplementedError


@dataclass(frozen=True)
class AlgorithmSetting:
    """What an algorithm is told of the campaign it works in.

    Attributes:
        latent_shape: Of the backbone.
        steps: K of the backbone.
        media: What the backbone decodes to.
        batch_size: How many candidates are usually asked for at once.
        seed: The campaign's.
        conditions_are_free: Of the backbone, see :class:`pilotwave.protocols.Backbone`.
        invariants: Of the backbone.
        build_backbone: Loads the backbone, for algorithms that train a copy of it; None where that is not possible.
    """

    latent_shape: tuple[int, ...]
    steps: int
    media: str
    batch_size: int
    seed: int
    conditions_are_free: bool = False
    invariants: Invariants = flattened
    build_backbone: Callable[[], Backbone] | None = None


class AlgorithmConfig(ComponentConfig):
    """Base of every algorithm's configuration."""

    def build(self, setting: AlgorithmSetting) -> Algorithm:
        """Builds the algorithm with an empty memory."""
        raise NotImplementedError


class RuntimeConfig(ComponentConfig):
    """Base of every runtime's configuration.

    Attributes:
        evaluators: How many oracle workers, at most.
        evaluators_min: At least; between the two there are as many as there is work for.
        evaluators_idle_seconds: For how long one beyond the minimum has nothing to do before it is let go.
        mode: ``"asynchronous"``: the next proposal is made as soon as workers would run dry.
            ``"synchronous"``: a proposal is made when all answers of the last one are in; a resumed campaign
            then continues bit for bit.
        generators: How many copies of the model, each with a proposal of its own.
    """

    evaluators: int = Field(
        2, ge=1, le=10_000, description="How many oracle workers run side by side (at most, with evaluators_min)."
    )
    evaluators_min: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="How many run at least: the pool then grows with the backlog and shrinks when some are idle. "
        "Default: always evaluators.",
    )
    evaluators_idle_seconds: float = Field(
        60.0, gt=0, description="How long an evaluator beyond evaluators_min has nothing to do before it is let go."
    )
    mode: Literal["asynchronous", "synchronous"] = Field(
        "asynchronous",
        description="Whether the next batch waits for every answer of the last one (synchronous) or not.",
    )
    generators: int = Field(
        1,
        ge=1,
        le=1000,
        description="How many copies of the backbone make candidates side by side, each a batch of its own; "
        "synchronous campaigns have one batch at a time and use one.",
    )
    device: str = Field("auto", description="Where the backbone runs: auto, cpu, cuda, cuda:1.")
    generator_threads: int = Field(1, ge=1, le=256, description="CPU threads of the backbone.")
    log_level: Literal["debug", "info", "warning", "error", "none"] = Field(
        "info", description="What the run's log keeps, read by `pilotwave logs`; none for no log."
    )

    @model_validator(mode="after")
    def _minimum_within(self) -> Self:
        if self.evaluators_min is not None and self.evaluators_min > self.evaluators:
            raise ValueError(
                f"expected evaluators_min of at most evaluators ({self.evaluators}), got {self.evaluators_min}"
            )
        return self

    @property
    def fewest_evaluators(self) -> int:
        """How many there are at any time."""
        return self.evaluators if self.evaluators_min is None else self.evaluators_min

    @property
    def generators_in_use(self) -> int:
        """How many proposals can be in the making at once."""
        return self.generators if self.mode == "asynchronous" else 1

    def build(self) -> Runtime:
        """Builds the runtime; nothing is started yet."""
        raise NotImplementedError


class TrackingConfig(ComponentConfig):
    """Base of every tracker's configuration."""

    def build(self, run_dir: Path) -> Tracker:
        """Builds the tracker of the run in this directory."""
        raise NotImplementedError

    def nested(self, parent_dir: Path, experiment: str, run_name: str) -> TrackingConfig:
        """Returns the configuration of a part of the run in another directory, beside it in the same place.

        Args:
            parent_dir: Of the whole, e.g. of a study.
            experiment: What the whole is filed under.
            run_name: Of the part.
        """
        del parent_dir, experiment, run_name
        return self


CONFIG_BASES: dict[str, type[ComponentConfig]] = {
    "backbone": BackboneConfig,
    "oracle": OracleConfig,
    "constraint": ConstraintConfig,
    "algorithm": AlgorithmConfig,
    "runtime": RuntimeConfig,
    "tracking": TrackingConfig,
}
"""From the word in a campaign file to the base class its choices must have."""

__all__ = [
    "CONFIG_BASES",
    "GROUPS",
    "AlgorithmConfig",
    "AlgorithmSetting",
    "BackboneConfig",
    "ComponentConfig",
    "ConstraintConfig",
    "OracleConfig",
    "RuntimeConfig",
    "TimeLimit",
    "TrackingConfig",
    "path_in_campaign",
]
