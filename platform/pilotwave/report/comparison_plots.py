"""Curves of a comparison as the papers draw them: one panel per task, a line and a band per method.

May import numpy; matplotlib (extra ``report``) inside the function that draws.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pilotwave.report.figures import new_figure

Floats = npt.NDArray[np.float64]
_COLUMNS = 4
_ALONE = (7.2, 3.7)
"""Inches of a picture with one panel."""
_COLOURS = (
    *("#1971c2", "#d9480f", "#2f9e44", "#9c36b5", "#f2a900", "#0c8599", "#c2255c", "#5c940d"),
    *("#364fc7", "#a61e4d", "#087f5b", "#862e9c", "#495057", "#b08900"),
)
_INK = "#1f2933"


@dataclass(frozen=True, eq=False)
class Line:
    """A method's curve.

    Attributes:
        label: The method's.
        places: On the horizontal axis, (points,).
        values: One row per seed, (seeds, points).
    """

    label: str
    places: Floats
    values: Floats


@dataclass(frozen=True, eq=False)
class Panel:
    """A task.

    Attributes:
        title: Above it.
        lines: One per method.
    """

    title: str
    lines: tuple[Line, ...]


def draw_comparison(panels: Sequence[Panel], across: str, upwards: str, *, logarithmic: bool = False) -> bytes:
    """Draws the mean over seeds as a line, and a band of one standard error to both sides.

    Args:
        panels: One at least.
        across: What the horizontal axis shows.
        upwards: What the vertical axis shows.
        logarithmic: Of the horizontal axis.

    Returns:
        A PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    # A single panel has its legend beside it: above it would be wider than the picture.
    size = _ALONE if len(panels) == 1 else (3.6 * columns, 2.9 * rows + 0.8)
    figure = new_figure(*size)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    colours = {label: _COLOURS[place % len(_COLOURS)] for place, label in enumerate(labels)}
    dashes = {label: "-" if place < len(_COLOURS) else "--" for place, label in enumerate(labels)}
    handles = {}
    for axes, panel in zip(grid, panels, strict=False):
        axes.axhline(0.0, color="#adb5bd", linewidth=0.8)
        for line in panel.lines:
            mean = line.values.mean(axis=0)
            uncertain = line.values.std(axis=0) / math.sqrt(max(len(line.values) - 1, 1))
            band = {"color": colours[line.label], "alpha": 0.15, "linewidth": 0}
            axes.fill_between(line.places, mean - uncertain, mean + uncertain, **band)
            style = {"color": colours[line.label], "linestyle": dashes[line.label], "linewidth": 1.6}
            if len(line.places) == 1:
                style["marker"] = "o"
            handles[line.label] = axes.plot(line.places, mean, **style)[0]
        if logarithmic:
            axes.set_xscale("log")
        axes.set_title(panel.title, loc="left", color=_INK, fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e9ecef", linewidth=0.8)
        axes.set_axisbelow(True)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel(across, color=_INK, fontsize="medium")
    figure.supylabel(upwards, color=_INK, fontsize="medium")
    ordered = [handles[label] for label in labels]
    if len(panels) == 1:
        figure.legend(ordered, labels, loc="outside right upper", frameon=False)
    else:
        figure.legend(ordered, labels, loc="outside upper center", ncols=min(7, len(labels)), frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


__all__ = ["Line", "Panel", "draw_comparison"]
