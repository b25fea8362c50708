"""A study as a picture: how its trials went, and what each field did.

May import numpy; matplotlib (extra ``report``) inside the functions that draw.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pilotwave.report.figures import new_figure

_COLUMNS = 3
_INK, _BEST, _WHOLE, _STOPPED = "#1f2933", "#d9480f", "#1971c2", "#adb5bd"


@dataclass(frozen=True)
class Line:
    """A trial.

    Attributes:
        number: Its own.
        status: How it ended.
        places: Questions to each campaign and the loss then.
        best: Whether it is the best.
    """

    number: int
    status: str
    places: tuple[tuple[int, float], ...]
    best: bool


@dataclass(frozen=True)
class TriedField:
    """A field that was searched.

    Attributes:
        name: Dotted.
        points: Of each trial with this field: its value (a number, or a name), its loss, and whether it finished.
        names: The choices in order, where they are no numbers.
        logarithmic: Of the horizontal axis.
    """

    name: str
    points: tuple[tuple[Any, float, bool], ...]
    names: tuple[str, ...] = ()
    logarithmic: bool = False


def draw_study(title: str, lines: Sequence[Line], fields: Sequence[TriedField], upwards: str) -> bytes:
    """Draws the trials over the questions to each campaign, and the loss over every field.

    Returns:
        A PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    panels = 1 + len(fields)
    columns = min(_COLUMNS, panels)
    rows = math.ceil(panels / columns)
    figure = new_figure(4.2 * columns, 3.3 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    _draw_trials(grid[0], lines)
    for axes, field in zip(grid[1:], fields, strict=False):
        _draw_field(axes, field)
    for axes in grid[:panels]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e9ecef", linewidth=0.8)
        axes.set_axisbelow(True)
    for axes in grid[panels:]:
        axes.set_visible(False)
    figure.suptitle(title, color=_INK, x=0.01, ha="left")
    figure.supylabel(upwards, color=_INK, fontsize="medium")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _draw_trials(axes: Any, lines: Sequence[Line]) -> None:
    labelled = set()
    for line in sorted(lines, key=lambda line: (line.best, line.status == "finished")):
        kind = "best" if line.best else "finished" if line.status == "finished" else "stopped early, or not over"
        colour = {"best": _BEST, "finished": _WHOLE}.get(kind, _STOPPED)
        places, losses = zip(*line.places, strict=True)
        marker = "o" if len(places) == 1 else None
        label = None if kind in labelled else f"{kind} (trial {line.number})" if line.best else kind
        axes.plot(places, losses, color=colour, linewidth=2.2 if line.best else 1.3, marker=marker, label=label)
        labelled.add(kind)
    axes.set_title("trials", loc="left", color=_INK, fontsize="medium")
    axes.set_xlabel("questions to each campaign", color=_INK)
    if lines:
        axes.legend(frameon=False, fontsize="small")


def _draw_field(axes: Any, field: TriedField) -> None:
    places = {name: place for place, name in enumerate(field.names)}
    for whole in (False, True):
        found = [(value, loss) for value, loss, is_whole in field.points if is_whole is whole]
        if not found:
            continue
        across = np.array([places[value] if field.names else value for value, _ in found], dtype=float)
        if field.names:  # trials with one choice beside one another
            across = across + np.linspace(-0.12, 0.12, len(across)) if len(across) > 1 else across
        losses = [loss for _, loss in found]
        axes.scatter(across, losses, s=34, color=_WHOLE if whole else _STOPPED, zorder=3)
    best = min((point for point in field.points if point[2]), key=lambda point: point[1], default=None)
    if best is not None and not field.names:
        axes.scatter([best[0]], [best[1]], s=80, facecolors="none", edgecolors=_BEST, linewidths=2, zorder=4)
    axes.set_title(field.name, loc="left", color=_INK, fontsize="medium")
    if field.names:
        axes.set_xticks(range(len(field.names)), [_short(name) for name in field.names], fontsize="small")
        axes.set_xlim(-0.5, len(field.names) - 0.5)
        axes.tick_params(axis="x", rotation=20 if len(field.names) > 2 else 0)
    elif field.logarithmic:
        axes.set_xscale("log")


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


__all__ = ["Line", "TriedField", "draw_study"]
