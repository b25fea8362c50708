"""Pictures of what the models draw, beside the data they were trained on."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pilotwave.backbones.molecule.distributions import GEOMETRY, PROPERTIES, Statistics
from pilotwave.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SAMPLES, DATA = "#1f2933", "#d9480f", "#1971c2"
COLUMNS = 4
KINDS_SHOWN = {"bond length": 8, "angle": 4, "torsion": 2}
"""The most frequent kinds get a panel each."""
TALLIES = ("heavy atoms", "elements", "ring sizes", "rings")
SIGNS = {"-": "–", "#": "≡"}


def draw_distributions(samples: Statistics, data: Statistics, title: str, data_name: str, path: Path) -> None:
    """Draws histograms of samples over those of the data, a panel for each quantity, as a PNG."""
    from matplotlib.figure import Figure

    panels: list[tuple[str, str, object, object]] = []
    for name, shown in KINDS_SHOWN.items():
        for kind in frequent_kinds(samples.geometry[name], data.geometry[name], shown):
            label = f"{_pretty(kind)} {name}" if name != "torsion" else f"torsion about {_pretty(kind)}"
            unit = f"{label} ({GEOMETRY[name]})"
            panels.append(("values", unit, samples.geometry[name][kind], data.geometry[name][kind]))
    for name, unit in PROPERTIES.items():
        label = f"{name} ({unit})" if unit else name
        panels.append(("values", label, samples.properties[name], data.properties[name]))
    for name in TALLIES:
        panels.append(("tallies", name, samples.frequencies[name], data.frequencies[name]))
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS, 2.15 * rows + 0.7), dpi=110, layout="constrained", facecolor="white")
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, (how, label, ours, theirs) in zip(grid, panels, strict=False):
        (_histogram if how == "values" else _bars)(axes, ours, theirs)
        axes.set_title(label, fontsize=10, color=INK)
        axes.set_yticks([])
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right", "left"]].set_visible(False)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    labels = [f"{labels[0]} ({data_name})", f"{labels[1]} ({title}, {samples.molecules:,} molecules)"]
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=11)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    write_atomically(path, png.getvalue())


def frequent_kinds(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], count: int) -> list[str]:
    """Returns the kinds that the data has most of, among those that both sets have."""
    both = sorted(ours.keys() & theirs.keys(), key=lambda kind: -len(theirs[kind]))
    return both[:count]


def _histogram(axes: Axes, ours: np.ndarray, theirs: np.ndarray) -> None:
    both = np.concatenate([ours, theirs])
    low, high = np.quantile(both, [0.002, 0.998])
    if high - low < 1e-6 * max(abs(high), 1):  # all the same
        low, high = low - 0.5, high + 0.5
    whole = np.array_equal(both, np.round(both))
    edges = np.arange(np.floor(low) - 0.5, np.ceil(high) + 1) if whole else np.linspace(low, high, 61)
    axes.hist(theirs, edges, density=True, color=DATA, alpha=0.35, label="data")
    axes.hist(ours, edges, density=True, histtype="step", color=SAMPLES, linewidth=1.4, label="samples")


def _bars(axes: Axes, ours: Mapping[str, int], theirs: Mapping[str, int]) -> None:
    kinds = sorted({*ours, *theirs}, key=lambda kind: (not kind.strip().isdigit(), kind))
    places = np.arange(len(kinds))
    for table, offset, colour, alpha in ((theirs, -0.2, DATA, 0.45), (ours, 0.2, SAMPLES, 0.9)):
        shares = np.array([table.get(kind, 0) for kind in kinds]) / max(sum(table.values()), 1)
        axes.bar(places + offset, shares, 0.4, color=colour, alpha=alpha)
    few = places[:: max(1, -(-len(kinds) // 12))]
    axes.set_xticks(few, [kinds[place].strip() for place in few])


def _pretty(kind: str) -> str:
    for sign, printed in SIGNS.items():
        kind = kind.replace(sign, printed)
    return kind
