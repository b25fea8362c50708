"""From a point of the search to the campaigns of its trial, one for every task and seed.

May import :mod:`pilotwave.config` and the modules beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pilotwave.config.campaign import CampaignConfig
from pilotwave.config.components import TrackingConfig
from pilotwave.config.loading import check_campaign, set_field
from pilotwave.tuning.config import Objective, StudyConfig, Task
from pilotwave.tuning.space import Point


@dataclass(frozen=True)
class CampaignPlan:
    """One campaign of a trial; picklable.

    Attributes:
        task: The name of its task.
        seed: Its own.
        config: Checked.
        target: What is good enough, as a loss; None where there is no target.
    """

    task: str
    seed: int
    config: CampaignConfig
    target: float | None

    @property
    def name(self) -> str:
        """Names its run directory."""
        return f"{self.task}-seed-{self.seed}"

    @property
    def queries(self) -> int:
        """What it may spend."""
        return self.config.budget.queries


@dataclass(frozen=True)
class TrialPlan:
    """A trial; picklable.

    Attributes:
        number: Counts up, from 1.
        point: What it tries.
        campaigns: One for every task and seed.
        objective: What is minimised.
        every: After how many questions to each campaign it is compared with other trials.
    """

    number: int
    point: Point
    campaigns: tuple[CampaignPlan, ...]
    objective: Objective
    every: int

    @property
    def folder_name(self) -> str:
        """Names its folder under ``trials``."""
        return f"{self.number:04d}"

    @property
    def cost(self) -> int:
        """What all its campaigns may spend."""
        return sum(campaign.queries for campaign in self.campaigns)

    @property
    def queries(self) -> int:
        """What the longest of its campaigns may spend."""
        return max(campaign.queries for campaign in self.campaigns)


def objective_of(study: StudyConfig) -> Objective:
    """Returns what a study minimises."""
    if study.objective is not None:
        return study.objective
    has_target = study.target is not None or any(task.target is not None for task in study.tasks.values())
    return "queries_to_target" if has_target else "level"


def tasks_of(study: StudyConfig) -> dict[str, Task]:
    """Returns the tasks; one without changes, named after the campaign, where there are none."""
    return dict(study.tasks) or {str(study.campaign.get("name", "campaign")): Task()}


def seeds_of(study: StudyConfig) -> tuple[int, ...]:
    """Returns the seeds of every trial's campaigns."""
    return study.seeds or (int(study.campaign.get("seed", 0)),)


def every_of(study: StudyConfig) -> int:
    """Returns after how many questions to each campaign trials are compared."""
    budget = study.campaign.get("budget")
    usual = budget.get("batch_size", 16) if isinstance(budget, Mapping) else 16
    return study.scheduler.every or int(usual)


def tracking_of(study: StudyConfig, source: str = "study") -> TrackingConfig:
    """Returns where a study is written down.

    Raises:
        ConfigError: Its section is wrong.
    """
    base = {**study.campaign, "tracking": study.tracking, "name": study.name}
    tracking: TrackingConfig = check_campaign(base, source=source, base_dir=study.folder).tracking
    return tracking


def campaign_fields(study: StudyConfig, task: Task, seed: int, point: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of one campaign: the study's, with what the task and the point change."""
    fields: dict[str, Any] = copy.deepcopy(dict(study.campaign))
    if study.runtime is not None:
        fields["runtime"] = copy.deepcopy(study.runtime)
    for name, value in sorted(task.set.items(), key=lambda item: item[0].count(".")):
        set_field(fields, name, copy.deepcopy(value))
    for name, value in point.items():
        set_field(fields, name, copy.deepcopy(value))
    fields["seed"] = seed
    return fields


def plan_trial(study: StudyConfig, number: int, point: Point, source: str = "study") -> TrialPlan:
    """Returns the trial of a point.

    Raises:
        ConfigError: One of its campaigns is wrong.
    """
    campaigns = []
    for name, task in tasks_of(study).items():
        for seed in seeds_of(study):
            fields = campaign_fields(study, task, seed, point)
            fields |= {"name": f"{study.name}-{name}", "tracking": {"kind": "none"}}
            config = check_campaign(fields, source=source, base_dir=study.folder)
            target = task.target or study.target
            loss = None if target is None else config.objective.loss(target.number)
            campaigns.append(CampaignPlan(name, seed, config, loss))
    return TrialPlan(number, point, tuple(campaigns), objective_of(study), every_of(study))


__all__ = [
    "CampaignPlan",
    "TrialPlan",
    "campaign_fields",
    "every_of",
    "objective_of",
    "plan_trial",
    "seeds_of",
    "tasks_of",
    "tracking_of",
]
