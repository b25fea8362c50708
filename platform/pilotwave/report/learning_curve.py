"""How a campaign learned: value against queries spent, batch by batch, as CSV and as a picture.

May import numpy and :mod:`pilotwave.report`; matplotlib (extra ``report``) inside the function that draws.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from pilotwave.report.figures import new_figure
from pilotwave.report.recorded_run import RecordedRun
from pilotwave.report.tables import pretty_unit
from pilotwave.types import Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _ACCENT, _BATCH, _ANSWER = "#1f2933", "#d9480f", "#1971c2", "#868e96"
_FAILED, _INFEASIBLE = "#c92a2a", "#ced4da"


@dataclass(frozen=True)
class BatchPoint:
    """One batch.

    Attributes:
        batch: The number of the proposal.
        queries: How many queries were spent up to and with this batch.
        answered: Its queries with a value.
        failed: Its queries that were paid for and have none.
        infeasible: Its candidates that were never asked about, or for which the oracle said so.
        mean: Of its values; None if it has none.
        spread: Their standard deviation (of the batch itself, divided by n).
        best: The best of its values.
        best_so_far: The best value up to and with this batch.
    """

    batch: int
    queries: int
    answered: int
    failed: int
    infeasible: int
    mean: float | None
    spread: float | None
    best: float | None
    best_so_far: float | None


def learning_curve(run: RecordedRun) -> list[BatchPoint]:
    """Returns a point for every batch that was generated, in order."""
    points: list[BatchPoint] = []
    queries, best_so_far = 0, None
    for number in sorted(run.state.proposals):
        proposal = run.state.proposals[number]
        if not proposal.generated:
            continue
        ended = [run.state.settled[query_id] for query_id in proposal.query_ids if query_id in run.state.settled]
        values = np.array([item.value for item in ended if item.value is not None])
        best = min(values.tolist(), key=run.objective.loss) if len(values) else None
        if best is not None and run.objective.is_better(best, best_so_far):
            best_so_far = best
        queries += sum(query_id in run.state.reserved for query_id in proposal.query_ids)
        said_infeasible = sum(item.status is Status.INFEASIBLE for item in ended)
        points.append(
            BatchPoint(
                batch=number,
                queries=queries,
                answered=len(values),
                failed=sum(item.status in (Status.FAILED, Status.TIMED_OUT) for item in ended),
                infeasible=proposal.drawn - len(proposal.query_ids) + said_infeasible,
                mean=float(values.mean()) if len(values) else None,
                spread=float(values.std()) if len(values) else None,
                best=best,
                best_so_far=best_so_far,
            )
        )
    return points


def learning_curve_csv(points: Sequence[BatchPoint]) -> str:
    """Returns the points as CSV with a header; what is None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(BatchPoint)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(point) for point in points)
    return text.getvalue()


def draw_learning_curve(run: RecordedRun) -> bytes:
    """Draws the values of all queries, the batch means with their spread, the best so far, and any failures.

    Returns:
        A PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    points = learning_curve(run)
    figure = new_figure(8, 5.2, dpi=150)
    troubled = any(point.failed or point.infeasible for point in points)
    if troubled:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        _draw_failures(lower, run, points)
    else:
        upper = figure.subplots()
    _draw_values(upper, run, points)
    figure.axes[-1].set_xlabel("queries")
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e9ecef", linewidth=0.8)
        axes.set_axisbelow(True)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _draw_values(axes: Axes, run: RecordedRun, points: Sequence[BatchPoint]) -> None:
    spent = _spent_when_settled(run)
    answers = [
        (spent[query_id], item.value) for query_id, item in run.state.settled.items() if item.value is not None
    ]
    if answers:
        queries, values = np.array(answers).T
        best_so_far = np.maximum.accumulate if run.objective.direction == "maximize" else np.minimum.accumulate
        axes.plot(queries, values, ".", color=_ANSWER, markersize=5, zorder=3, label="each answer")
        axes.step(queries, best_so_far(values), where="post", color=_ACCENT, linewidth=2, label="best so far")
        valued = [point for point in points if point.answered]
        places = _places(run, valued, spent)
        means = np.array([point.mean for point in valued], dtype=float)
        spreads = np.array([point.spread for point in valued], dtype=float)
        axes.fill_between(places, means - spreads, means + spreads, color=_BATCH, alpha=0.15, linewidth=0)
        axes.plot(places, means, "o-", color=_BATCH, markersize=4, linewidth=1.5, label="batch mean ± spread")
        axes.legend(frameon=False, loc="best")
    unit = f" ({pretty_unit(run.unit)})" if run.unit else ""
    axes.set_ylabel(f"{run.oracle.rpartition(':')[2].replace('_', ' ')}{unit}", color=_INK)
    axes.set_title(f"{run.name}: {run.oracle}, {run.objective.direction}d", loc="left", color=_INK)


def _draw_failures(axes: Axes, run: RecordedRun, points: Sequence[BatchPoint]) -> None:
    places = _places(run, points, _spent_when_settled(run))
    widths = [max(1, len(run.state.proposals[point.batch].query_ids)) * 0.6 for point in points]
    infeasible = [point.infeasible for point in points]
    failed = [point.failed for point in points]
    axes.bar(places, infeasible, widths, color=_INFEASIBLE, label="infeasible")
    axes.bar(places, failed, widths, bottom=infeasible, color=_FAILED, label="failed")
    axes.set_ylabel("per batch")
    axes.locator_params(axis="y", integer=True)
    axes.set_ylim(0, 1.15 * max(1, *(np.add(infeasible, failed)), 1))
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 0.95), fontsize="small", borderpad=0)


def _spent_when_settled(run: RecordedRun) -> dict[str, int]:
    """Returns how many queries had been spent when each query ended; answers from memory spend none."""
    spent = np.cumsum([query_id in run.state.reserved for query_id in run.state.settled])
    return dict(zip(run.state.settled, spent.tolist(), strict=True))


def _places(run: RecordedRun, points: Sequence[BatchPoint], spent: Mapping[str, int]) -> list[float]:
    """Returns where each batch stands on the axis of queries: amid those of its queries that ended."""
    places = []
    for point in points:
        ended = [spent[query_id] for query_id in run.state.proposals[point.batch].query_ids if query_id in spent]
        places.append(float(np.mean(ended)) if ended else float(point.queries))
    return places


__all__ = ["BatchPoint", "draw_learning_curve", "learning_curve", "learning_curve_csv"]
