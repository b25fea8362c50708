"""Vectors that look a little like data: of low rank, off centre."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

Floats = npt.NDArray[np.float32]


def draw_vectors(count: int, dim: int, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    rank = max(1, dim // 4)
    axes = np.random.default_rng(1_000 + dim).standard_normal((rank, dim))
    centre = np.random.default_rng(2_000 + dim).standard_normal(dim)
    points = random.standard_normal((count, rank)) @ axes + 0.3 * random.standard_normal((count, dim)) + centre
    return points.astype(np.float32)


@pytest.fixture(scope="session")
def draw() -> Callable[..., Floats]:
    return draw_vectors
