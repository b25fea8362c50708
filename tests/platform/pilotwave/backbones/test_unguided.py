"""Unguided samples of any backbone: every draw once, in order, whatever the batches; progress that only rises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.backbones.analytic import AnalyticBackboneConfig
from pilotwave.backbones.unguided import sample_unguided, unguided_draws
from pilotwave.samples import ArraySample

BACKBONE = AnalyticBackboneConfig(kind="analytic", dim=4, steps=3, conditional=True).build()


def arrays(count: int, batch_size: int) -> np.ndarray:
    batches = list(sample_unguided(BACKBONE, unguided_draws(3, count), batch_size))
    assert all(len(batch) <= batch_size for batch in batches)
    samples = [sample for batch in batches for sample in batch]
    assert all(isinstance(sample, ArraySample) for sample in samples)
    return np.stack([sample.array for sample in samples])  # type: ignore[union-attr]


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 9), batch_size=st.integers(1, 10))
def test_batches_and_more_draws_change_nothing(count: int, batch_size: int) -> None:
    np.testing.assert_allclose(arrays(count, batch_size), arrays(9, 9)[:count], atol=1e-6)


def test_draws_of_two_seeds_are_never_the_same() -> None:
    seeds = [draw.seed for seed in range(20) for draw in unguided_draws(seed, 50)]
    assert len(set(seeds)) == 1000


def test_progress_rises_step_by_step_to_all() -> None:
    told: list[float] = []
    for _ in sample_unguided(BACKBONE, unguided_draws(0, 5), 2, told.append):
        pass
    assert told == pytest.approx([2 / 3, 4 / 3, 2, 8 / 3, 10 / 3, 4, 13 / 3, 14 / 3, 5])


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch size of 1 or more, got 0"):
        list(sample_unguided(BACKBONE, unguided_draws(0, 1), 0))
