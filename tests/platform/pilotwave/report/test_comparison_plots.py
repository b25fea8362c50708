from __future__ import annotations

import io

import numpy as np
import pytest

from pilotwave.report.comparison_plots import Line, Panel, draw_comparison

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")


@pytest.mark.parametrize(("panels", "seeds", "logarithmic"), [(1, 1, False), (5, 3, True), (21, 5, False)])
def test_a_panel_per_task_is_drawn(panels: int, seeds: int, logarithmic: bool) -> None:
    places = np.arange(1.0, 9.0)
    random = np.random.default_rng(0)
    lines = tuple(Line(name, places, random.standard_normal((seeds, 8))) for name in ("one", "other"))
    png = draw_comparison([Panel(f"task {n}", lines) for n in range(panels)], "x", "y", logarithmic=logarithmic)
    picture = Image.open(io.BytesIO(png))
    assert picture.width > 300
    # each line has its colour, and more rows of panels make a taller picture
    colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert {(25, 113, 194), (217, 72, 15)} <= colours
    assert picture.height > 300 * ((panels + 3) // 4)
