"""Curves of indexes: recall by bits, and recall against speed, with a point for every setting measured.

May import numpy; matplotlib (extra ``report``) inside the function that draws.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from pilotwave.report.comparison_plots import Line
from pilotwave.report.figures import new_figure

_COLOURS = (
    *("#1971c2", "#d9480f", "#f2a900", "#9c36b5", "#868e96", "#0c8599"),
    *("#c2255c", "#5c940d", "#364fc7", "#212529", "#087f5b"),
)
_MARKERS = "os^Dvpx+*hP"
_INK = "#1f2933"


def draw_indexes(
    title: str, lines: Sequence[Line], across: str, upwards: str, places: Sequence[int] | None = None
) -> bytes:
    """Draws the mean over seeds of every line, its points marked.

    Args:
        title: Above it.
        lines: The first is drawn the strongest.
        across: What the horizontal, logarithmic axis shows.
        upwards: What the vertical axis shows, from 0 to 1.
        places: Where the horizontal axis is labelled; powers of ten if None.

    Returns:
        A PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = new_figure(9.0, 4.4)
    axes = figure.subplots()
    for order, line in enumerate(lines):
        axes.plot(
            line.places,
            line.values.mean(axis=0),
            color=_COLOURS[order % len(_COLOURS)],
            marker=_MARKERS[order % len(_MARKERS)],
            markersize=5,
            linewidth=2.4 if order == 0 else 1.4,
            label=line.label,
            zorder=3 if order == 0 else 2,
        )
    axes.set_xscale("log")
    if places is not None:
        axes.set_xticks(list(places), [f"{place:,}" for place in places])
        axes.minorticks_off()
    axes.set_ylim(0.0, 1.02)
    axes.set_title(title, loc="left", color=_INK, fontsize="medium")
    axes.set_xlabel(across, color=_INK)
    axes.set_ylabel(upwards, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e9ecef", linewidth=0.8)
    axes.set_axisbelow(True)
    figure.legend(loc="outside right center", frameon=False, fontsize="small")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


__all__ = ["draw_indexes"]
