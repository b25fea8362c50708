"""An empty matplotlib figure, or one line about what to install. May import matplotlib and pilotwave's errors."""

from __future__ import annotations

from typing import Any

from pilotwave.errors import MissingDependencyError


def new_figure(width: float, height: float, *, dpi: int = 120) -> Any:
    """Returns a white ``matplotlib.figure.Figure`` of so many inches that arranges itself.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "the curves need matplotlib, which is not installed; run: pip install 'pilotwave[report]'"
        ) from error
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor="white")


__all__ = ["new_figure"]
