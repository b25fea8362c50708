"""Is a study right? Said before anything is paid: every combination of its choices must make a valid campaign.

Where there are too many to try them all, every choice and both ends of every range are tried at least once, with
the fields that they depend on. May import :mod:`pilotwave.config` and the modules beside it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pilotwave.config import registry
from pilotwave.config.campaign import CampaignConfig
from pilotwave.errors import ConfigError
from pilotwave.tuning.config import StudyConfig
from pilotwave.tuning.plans import TrialPlan, every_of, objective_of, plan_trial, tasks_of, tracking_of
from pilotwave.tuning.space import Point, grid, grid_size, one_at_a_time

MOST_TRIED = 512
"""So many combinations are checked one by one."""
LARGEST_GRID = 10_000
SAMPLES = 20
"""How many points are tried if a study does not say."""
OF_THE_STUDY = {
    "name": "name",
    "seed": "seeds",
    "tracking": "tracking",
    "objective": "tasks",
    "archive": None,
    "runtime.kind": "runtime",
    "runtime.address": "runtime",
    "runtime.plugins": "runtime",
    "runtime.storage": "runtime",
    "runtime.share": None,
}
"""Fields that are no part of a search, and where a study says them instead."""


def check_campaigns(study: StudyConfig, source: str) -> TrialPlan:
    """Makes sure that whatever is searched makes valid campaigns.

    Args:
        study: Checked in itself.
        source: What to call it in messages.

    Returns:
        The dearest trial that was tried.

    Raises:
        ConfigError: One line that says what is wrong and where.
    """
    _check_fields(study, source)
    _check_seeds(study, source)
    tracking_of(study, source)
    dearest = dearest_trial(study, source)
    _check_targets(study, source)
    _check_archive(dearest.campaigns[0].config, source)
    _check_amounts(study, dearest, source)
    return dearest


def dearest_trial(study: StudyConfig, source: str = "study") -> TrialPlan:
    """Returns the trial that may ask most, of those that are tried.

    Raises:
        ConfigError: One of them is wrong.
    """
    return max((_checked(study, point, source) for point in _points(study)), key=lambda plan: plan.cost)


def samples_of(study: StudyConfig) -> int:
    """Returns how many points are tried."""
    if study.searcher.kind == "grid":
        return sum(1 for _ in grid(study.search, study.campaign))
    return study.samples or SAMPLES


def in_words(point: Point) -> str:
    """Returns ``"algorithm=trust-direct, backbone.steps=5"``."""
    return ", ".join(f"{name}={value_in_words(value)}" for name, value in point.items()) or "nothing changed"


def value_in_words(value: Any) -> str:
    """Returns a section by its kind and settings, a number with four digits."""
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key}={value_in_words(item)}" for key, item in value.items() if key != "kind")
        kind = str(value.get("kind", ""))
        return f"{kind}({rest})" if rest else kind or "{}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _points(study: StudyConfig) -> Iterator[Point]:
    if grid_size(study.search) <= MOST_TRIED:
        return grid(study.search, study.campaign)
    return itertools.islice(one_at_a_time(study.search, study.campaign), 4 * MOST_TRIED)


def _checked(study: StudyConfig, point: Point, source: str) -> TrialPlan:
    try:
        return plan_trial(study, 0, point, source=f"{source}: with {in_words(point)}")
    except ConfigError as error:
        hint = ""
        if "unknown key" in str(error):
            nested = [name for name in study.search if any(name.startswith(f"{other}.") for other in study.search)]
            named = [name for name in nested if f": {name}:" in str(error)]
            if named:
                section = named[0].rpartition(".")[0]
                hint = f"; or say when it counts, e.g. when: {{{section}.kind: ...}}"
        raise ConfigError(f"{error}{hint}") from None


def _check_fields(study: StudyConfig, source: str) -> None:
    changed = [(f"search.{name}", name) for name in study.search]
    changed += [(f"tasks.{task}.set.{name}", name) for task, each in study.tasks.items() for name in each.set]
    for at, name in changed:
        top = name.partition(".")[0]
        sections = CampaignConfig.model_fields
        if top not in sections:
            near = registry.suggestion(top, dict(sections))
            raise ConfigError(f"{source}: {at}: a campaign has no field {top!r}{near}")
        if at.startswith("tasks.") and top == "objective":
            continue
        for field, instead in OF_THE_STUDY.items():
            if name == field or name.startswith(f"{field}."):
                rather = f"; say it in the study's {instead}" if instead else ""
                raise ConfigError(f"{source}: {at}: {field} cannot be varied between campaigns of a study{rather}")
    for name, dimension in study.search.items():
        for other in dimension.when:
            if other == name:
                raise ConfigError(f"{source}: search.{name}.when: it cannot depend on itself")


def _check_seeds(study: StudyConfig, source: str) -> None:
    for seed in study.seeds:
        if not 0 <= seed < 2**63:
            raise ConfigError(f"{source}: seeds: expected numbers from 0 on, got {seed}")


def _check_targets(study: StudyConfig, source: str) -> None:
    objective = objective_of(study)
    plan = plan_trial(study, 0, next(iter(_points(study))), source)
    for campaign in plan.campaigns:
        task = tasks_of(study)[campaign.task]
        target = task.target or study.target
        at = f"tasks.{campaign.task}.target" if task.target else "target"
        if target is None and objective == "queries_to_target":
            raise ConfigError(
                f"{source}: objective queries_to_target needs a target, and task {campaign.task!r} has none; add "
                "target: VALUE, or choose objective: level"
            )
        if target is not None and (wrong := target.contradicts(campaign.config.objective)):
            raise ConfigError(f"{source}: {at}: {wrong}")
        if target is not None and objective != "queries_to_target":
            raise ConfigError(f"{source}: {at}: objective {objective} looks at no target; remove one of the two")


def _check_archive(config: CampaignConfig, source: str) -> None:
    archive = config.archive
    if archive is not None and (archive.reuse != "off" or archive.warm_start):
        raise ConfigError(
            f"{source}: campaign.archive: trials that take answers from one another cannot be compared; set "
            "archive.reuse: off and no warm_start, or leave the archive out"
        )


def _check_amounts(study: StudyConfig, dearest: TrialPlan, source: str) -> None:
    if study.searcher.kind == "grid":
        ranges = [name for name, each in study.search.items() if each.way != "choice"]
        if ranges:
            raise ConfigError(
                f"{source}: searcher grid: search.{ranges[0]} is a range; list its values as a choice"
            )
        if study.samples is not None:
            raise ConfigError(f"{source}: samples: a grid has as many points as it has; remove samples")
        size = grid_size(study.search)
        if size > LARGEST_GRID:
            raise ConfigError(
                f"{source}: searcher grid: {size} combinations, expected at most {LARGEST_GRID}; use searcher: "
                "random with samples, or fewer choices"
            )
    if study.budget is not None:
        if study.budget < dearest.cost:
            raise ConfigError(
                f"{source}: budget: {study.budget} questions are not enough for one trial, which may ask "
                f"{dearest.cost} ({len(dearest.campaigns)} campaigns); raise it, or lower campaign.budget.queries"
            )
        if study.searcher.kind == "grid" and study.scheduler.kind == "none":
            needed = samples_of(study) * dearest.cost
            if needed > study.budget:
                raise ConfigError(
                    f"{source}: searcher grid: {samples_of(study)} trials may ask {needed} questions, and the "
                    f"budget is {study.budget}; raise it, or let a scheduler stop some"
                )
    every, grace = every_of(study), study.scheduler.grace
    if every > min(campaign.queries for campaign in dearest.campaigns):
        raise ConfigError(
            f"{source}: scheduler.every: trials would be compared every {every} questions, but a campaign has only "
            f"{min(campaign.queries for campaign in dearest.campaigns)}; lower it"
        )
    if grace is not None and (grace % every or grace >= dearest.queries):
        raise ConfigError(
            f"{source}: scheduler.grace: expected a multiple of every ({every}) below the queries of a campaign "
            f"({dearest.queries}), got {grace}"
        )


__all__ = ["check_campaigns", "dearest_trial", "in_words", "samples_of", "value_in_words"]
