"""How a trial stands after so many questions to each of its campaigns: the measures that studies minimise.

All are losses, computed from the answers in the order in which they came, and comparable between trials at equal
numbers of questions r. A campaign's *level* is a loss in units of the task, as everywhere in
:mod:`pilotwave.bench`: (loss - unguided mean) / unguided standard deviation, where unguided is the first batch of
the first trial that got so far, per task and seed.

- **queries_to_target**: how many answers until one was as good as the target. A campaign that is not there after r
  is censored and counts r (2 + g): twice what it spent, as PAR2 does, and up to once more by g, the part of the way
  from the unguided mean to the target that is still to go (0 to 1), so that trials differ before any gets there.
  Per task the median over seeds, over tasks the geometric mean.
- **level**: the mean level of the batches after the first, which measures how soon and how far, as
  :mod:`pilotwave.bench.tuning` does. Per task the median over seeds, over tasks the mean.
- **best**: the level of the best answer. Aggregated likewise.

May import :mod:`pilotwave.bench` and the modules beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pilotwave.tuning.config import Objective


@dataclass(frozen=True)
class Reference:
    """What a task's model does unguided with a seed.

    Attributes:
        mean: Of the losses of a first batch.
        spread: Their standard deviation, above 0.
    """

    mean: float
    spread: float

    @classmethod
    def of(cls, losses: Sequence[float | None]) -> Reference | None:
        """Returns it from a first batch; None if nothing there has a value."""
        found = [loss for loss in losses if loss is not None]
        if not found:
            return None
        return cls(statistics.fmean(found), statistics.pstdev(found) or 1.0)

    def level(self, loss: float) -> float:
        """Returns a loss in units of the task."""
        return (loss - self.mean) / self.spread


@dataclass(frozen=True)
class Answers:
    """What a campaign was answered so far.

    Attributes:
        losses: In the order in which the answers came; None for a question that was paid for and has no value.
        batch_size: Of the campaign.
        budget: Of questions.
        target: As a loss, or None.
        reference: What is unguided, or None while that is not known.
        over: Whether no more will come.
    """

    losses: tuple[float | None, ...]
    batch_size: int
    budget: int
    target: float | None
    reference: Reference | None
    over: bool = False

    def reached(self, queries: int | None = None) -> int | None:
        """Returns after how many answers the target was met, within the first ``queries``."""
        if self.target is None:
            return None
        for place, loss in enumerate(self.losses[:queries], start=1):
            if loss is not None and loss <= self.target:
                return place
        return None

    def best(self, queries: int | None = None) -> float | None:
        """Returns the lowest loss of the first ``queries`` answers."""
        return min((loss for loss in self.losses[:queries] if loss is not None), default=None)

    def knows(self, queries: int) -> bool:
        """Says whether it is decided how it stands after so many questions."""
        return self.over or len(self.losses) >= min(queries, self.budget) or self.reached() is not None


def loss_at(objective: Objective, answers: Answers, queries: int) -> float:
    """Returns the loss of one campaign after so many questions; see the module."""
    queries = min(queries, answers.budget)
    if objective == "queries_to_target":
        return _queries_to_target(answers, queries)
    return _best_level(answers, queries) if objective == "best" else _mean_level(answers, queries)


def aggregate(objective: Objective, losses: Sequence[tuple[str, float]]) -> float:
    """Returns the loss of a trial.

    Args:
        objective: What is minimised.
        losses: Of its campaigns, each with the name of its task.
    """
    groups: dict[str, list[float]] = {}
    for task, loss in losses:
        groups.setdefault(task, []).append(loss)
    medians = [statistics.median(group) for group in groups.values()]
    return statistics.geometric_mean(medians) if objective == "queries_to_target" else statistics.fmean(medians)


@dataclass(frozen=True)
class CampaignStanding:
    """One campaign of a trial, for people and for the study's ledger.

    Attributes:
        task: The name of its task.
        seed: Its own.
        spent: Questions asked.
        loss: See the module.
        reached: After how many answers the target was met, or None.
        best: The best value, in the oracle's unit, or None.
        failure: Why it ended, where it failed.
    """

    task: str
    seed: int
    spent: int
    loss: float
    reached: int | None
    best: float | None
    failure: str = ""


@dataclass(frozen=True)
class Standing:
    """A trial after so many questions to each of its campaigns.

    Attributes:
        trial: Its number.
        queries: That many.
        loss: What is minimised.
        spent: Questions of all campaigns, also those beyond ``queries``.
        campaigns: One by one.
        over: Why no more will come: ``""`` while it will, ``"finished"``, ``"stopped"`` by the scheduler,
            ``"interrupted"``, ``"failed"``, or ``"refused"``: it could not begin. The loss is then that of the
            whole budget, whatever is missing counted as above.
        note: Why it has no campaigns, where it has none.
    """

    trial: int
    queries: int
    loss: float
    spent: int
    campaigns: tuple[CampaignStanding, ...]
    over: str = ""
    note: str = ""

    @property
    def reached(self) -> int:
        """How many campaigns have met their target."""
        return sum(campaign.reached is not None for campaign in self.campaigns)

    @property
    def failure(self) -> str:
        """Why it or one of its campaigns failed, if one did."""
        return self.note or next((campaign.failure for campaign in self.campaigns if campaign.failure), "")

    def to_json(self) -> dict[str, Any]:
        """Returns it for the ledger."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Standing:
        """Rebuilds it."""
        campaigns = tuple(CampaignStanding(**item) for item in fields["campaigns"])
        return cls(**{**fields, "campaigns": campaigns})


def _queries_to_target(answers: Answers, queries: int) -> float:
    reached = answers.reached(queries)
    if reached is not None:
        return float(reached)
    return queries * (2.0 + _still_to_go(answers, queries))


def _still_to_go(answers: Answers, queries: int) -> float:
    best, reference, target = answers.best(queries), answers.reference, answers.target
    if best is None or reference is None or target is None:
        return 1.0
    way = reference.mean - target
    if way <= 0:  # unguided samples are as good as the target: no way to measure
        return 1.0
    return min(1.0, max(0.0, (best - target) / way))


def _best_level(answers: Answers, queries: int) -> float:
    best = answers.best(queries)
    return 0.0 if best is None or answers.reference is None else answers.reference.level(best)


def _mean_level(answers: Answers, queries: int) -> float:
    """The measure of :func:`pilotwave.bench.tuning.score`, of one run whose batches are answers in their order."""
    from pilotwave.bench.tuning import score

    if answers.reference is None:
        return 0.0
    batches: list[dict[str, Any]] = []
    size = answers.batch_size
    for start in range(0, min(queries, len(answers.losses)), size):
        known = [loss for loss in answers.losses[start : min(start + size, queries)] if loss is not None]
        mean = statistics.fmean(known) if known else None
        batches.append({"queries": min(start + size, queries), "mean": mean})
    record = {"seed": 0, "queries": queries, "reference": asdict(answers.reference), "batches": batches}
    means = [batch["mean"] for batch in batches if batch["mean"] is not None]
    if len(means) > 1:
        return score([[record]])[0]
    return answers.reference.level(means[0]) if means else 0.0


__all__ = ["Answers", "CampaignStanding", "Reference", "Standing", "aggregate", "loss_at"]
