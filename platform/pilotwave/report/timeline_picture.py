"""A picture of a timeline: who was at work when, and below it how well the evaluators were used.

Times without work are left out: what drivers need to start and to save, and what lies between them. So a run
that was resumed a week later is as readable as one that was not.

May import numpy and :mod:`pilotwave.report`; matplotlib (extra ``report``) inside the functions.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pilotwave.report.figures import new_figure
from pilotwave.report.timeline import Attempt, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_INK, _ACCENT, _BATCH, _QUIET = "#1f2933", "#d9480f", "#1971c2", "#868e96"
_GENERATING, _PAUSED, _GRID = "#6741d9", "#e9ecef", "#e9ecef"
GROUPS = {
    "answered": (_BATCH, ("ok",)),
    "tried again": ("#f08c00", ()),
    "failed": ("#c92a2a", ("failed",)),
    "over its limit": (_ACCENT, ("timed_out",)),
    "infeasible": ("#adb5bd", ("infeasible", "cancelled")),
    "lost": (_INK, ("lost",)),
}
"""From a word to its colour and the statuses that it stands for; ``tried again`` comes before its status."""
MOST_BARS = 3000
"""With more attempts, or more rows, a bar each would be narrower than a pixel: shares of time are drawn instead."""
MOST_ROWS = 200
"""With more evaluators several share a row."""
_BINS = 1400


@dataclass(frozen=True)
class _Clock:
    """From moments to seconds of work: what lies before, between and after is cut out."""

    starts: Array
    before: Array

    @classmethod
    def of(cls, timeline: Timeline) -> _Clock:
        spans = timeline.working_spans() or [(timeline.begin, timeline.end)]
        lengths = np.array([end - start for start, end in spans])
        return cls(np.array([start for start, _ in spans]), np.concatenate([[0.0], np.cumsum(lengths)]))

    def __call__(self, moments: Sequence[float] | Array) -> Array:
        times = np.asarray(moments, dtype=float)
        span = np.clip(np.searchsorted(self.starts, times, side="right") - 1, 0, None)
        inside = np.minimum(times - self.starts[span], self.before[span + 1] - self.before[span])
        return np.asarray(self.before[span] + np.maximum(inside, 0.0))

    @property
    def end(self) -> float:
        return float(self.before[-1])

    def cuts(self) -> list[float]:
        """Returns where something was cut out."""
        return [float(moment) for moment in self.before[1:-1]]


def draw_timeline(timeline: Timeline) -> bytes:
    """Draws evaluators and generators as rows, and the evaluators' utilisation and what waited below them.

    Returns:
        A PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    evaluators, generators = timeline.evaluator_tracks(), timeline.generator_tracks()
    rows = len(generators) + min(len(evaluators), MOST_ROWS)
    height = float(np.clip(0.16 * rows, 0.9, 7.0))
    figure = new_figure(10, height + 2.4, dpi=120)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[height, 1.3])
    clock = _Clock.of(timeline)
    unit, name = _time_unit(clock.end)
    _draw_rows(upper, timeline, clock, unit)
    _draw_utilisation(lower, timeline, clock, unit)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        for pause in timeline.pauses:
            begin, end = clock([pause.start, pause.end]) / unit
            axes.axvspan(begin, end, color=_PAUSED, zorder=0)
        for cut in clock.cuts():
            axes.axvline(cut / unit, color=_QUIET, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    lower.set_xlim(0, max(clock.end / unit, 1e-9))
    resumed = ", dashed: resumed" if clock.cuts() else ""
    lower.set_xlabel(f"{name} of work{resumed}{', grey: paused' if timeline.pauses else ''}")
    used = f"{timeline.utilisation():.0%} of {timeline.evaluators} evaluators' time in use"
    upper.set_title(f"{timeline.name}: {used}", loc="left", color=_INK)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _draw_rows(axes: Axes, timeline: Timeline, clock: _Clock, unit: float) -> None:
    evaluators, generators = timeline.evaluator_tracks(), timeline.generator_tracks()
    place: dict[str, float] = {track: float(number) for number, track in enumerate(generators)}
    gap = 0.6 if generators else 0.0
    shown = min(len(evaluators), MOST_ROWS)
    for number, track in enumerate(evaluators):
        place[track] = len(generators) + gap + number * shown // max(1, len(evaluators))
    for item in timeline.generations:
        begin, end = clock([item.start, item.end]) / unit
        _bar(axes, [(begin, end - begin)], place[item.track], _GENERATING, edge=_GENERATING)
    groups = _grouped(timeline.attempts)
    if len(timeline.attempts) > MOST_BARS or len(evaluators) > shown:
        _draw_shares(axes, groups, place, clock, unit, (len(generators) + gap, shown))
    else:
        for word, attempts in groups.items():
            for track in {item.track for item in attempts}:
                times = np.array([(item.start, item.end) for item in attempts if item.track == track])
                begins, ends = clock(times[:, 0]) / unit, clock(times[:, 1]) / unit
                bars = list(zip(begins.tolist(), (ends - begins).tolist(), strict=True))
                _bar(axes, bars, place[track], GROUPS[word][0])
    axes.set_ylim(len(generators) + gap + shown - 0.4, -0.6)
    _name_rows(axes, generators, evaluators, place)
    colours = {"generating": _GENERATING} if timeline.generations else {}
    colours |= {word: GROUPS[word][0] for word in groups}
    _legend(axes, colours)


def _bar(axes: Axes, bars: list[tuple[float, float]], row: float, colour: str, edge: str = "white") -> None:
    """A white edge tells neighbours apart; an edge of its own colour keeps a short bar visible."""
    axes.broken_barh(bars, (row - 0.38, 0.76), facecolors=colour, edgecolor=edge, linewidth=0.4)


def _draw_shares(
    axes: Axes,
    groups: dict[str, list[Attempt]],
    place: dict[str, float],
    clock: _Clock,
    unit: float,
    rows: tuple[float, int],
) -> None:
    """Draws each row as a strip of pixels: the more of the time something took, the stronger its colour."""
    from matplotlib.colors import to_rgb

    first, count = rows
    edges = np.linspace(0.0, clock.end, _BINS + 1)
    width = max(edges[1] - edges[0], 1e-9)
    picture = np.ones((count, _BINS, 3))
    per_row = np.zeros(count)
    tracks = [track for track, at in place.items() if at >= first]
    for track in tracks:
        per_row[round(place[track] - first)] += 1
    for word, attempts in groups.items():
        tint = np.array(to_rgb(GROUPS[word][0])) - 1.0
        by_track: dict[str, list[Attempt]] = {}
        for item in attempts:
            by_track.setdefault(item.track, []).append(item)
        for track, items in by_track.items():
            row = round(place[track] - first)
            share = np.diff(_time_used(items, clock, edges)) / (width * max(1.0, per_row[row]))
            picture[row] += np.clip(share, 0, 1)[:, None] * tint
    axes.imshow(
        np.clip(picture, 0, 1),
        extent=(0, clock.end / unit, first + count - 0.5, first - 0.5),
        aspect="auto",
        interpolation="nearest",
        zorder=2,
    )


def _time_used(items: Sequence[Attempt], clock: _Clock, moments: Array) -> Array:
    """Returns how many seconds of these attempts, which may overlap, lie before each moment."""
    begins, ends = np.sort(clock([item.start for item in items])), np.sort(clock([item.end for item in items]))
    return _area(moments, begins) - _area(moments, ends)


def _area(moments: Array, changes: Array) -> Array:
    """Returns the sum of ``moment - change`` over the changes before each moment."""
    before = np.searchsorted(changes, moments, side="right")
    sums = np.concatenate([[0.0], np.cumsum(changes)])
    return np.asarray(moments * before - sums[before])


def _draw_utilisation(axes: Axes, timeline: Timeline, clock: _Clock, unit: float) -> None:
    known = [item for item in timeline.attempts if item.status != "lost"]
    if known:
        bins = int(np.clip(len(known) / 2, 20, 240))
        edges = np.linspace(0.0, clock.end, bins + 1)
        used = np.diff(_time_used(known, clock, edges)) / (np.diff(edges) * timeline.evaluators)
        steps = np.repeat(edges, 2)[1:-1] / unit
        axes.fill_between(steps, np.repeat(np.clip(used, 0, 1), 2), color=_BATCH, alpha=0.25, linewidth=0)
        axes.plot(steps, np.repeat(np.clip(used, 0, 1), 2), color=_BATCH, linewidth=1)
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_ylabel("in use", color=_BATCH)
    moments = timeline.moments
    if moments:
        waiting: Any = axes.twinx()
        times, ready = clock([item.time for item in moments]) / unit, [item.ready for item in moments]
        waiting.step(times, ready, where="post", color=_QUIET, linewidth=0.8)
        waiting.set_ylim(0, 1.25 * max(1, *ready))
        waiting.set_ylabel("ready", color=_QUIET)
        waiting.locator_params(axis="y", integer=True, nbins=4)
        waiting.spines[["top"]].set_visible(False)


def _grouped(attempts: Sequence[Attempt]) -> dict[str, list[Attempt]]:
    """Returns the attempts by the word for how they ended, those words alone that occur."""
    by_status = {status: word for word, (_, statuses) in GROUPS.items() for status in statuses}
    found: dict[str, list[Attempt]] = {word: [] for word in GROUPS}
    for item in attempts:
        found["tried again" if item.repeated else by_status.get(item.status, "infeasible")].append(item)
    return {word: items for word, items in found.items() if items}


def _name_rows(axes: Axes, generators: Sequence[str], evaluators: Sequence[str], place: dict[str, float]) -> None:
    """Names every row if there is room, else some of them."""
    every = max(1, -(-len(evaluators) // 32))
    named = [*generators, *evaluators[::every]]
    axes.set_yticks([place[track] for track in named], named, fontsize="small" if len(named) < 14 else "x-small")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelbottom=False)


def _legend(axes: Axes, colours: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=word) for word, colour in colours.items()]
    if handles:
        axes.legend(
            handles=handles,
            frameon=False,
            ncols=len(handles),
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            fontsize="small",
            borderpad=0,
            handlelength=1.0,
            columnspacing=1.2,
        )


def _time_unit(seconds: float) -> tuple[float, str]:
    """Returns how many seconds one unit of the axis has, and its name."""
    if seconds < 180:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 3 * 3600 else (3600.0, "hours")


__all__ = ["draw_timeline"]
