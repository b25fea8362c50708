from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave.training.order import data_order, mixed_order, real_count


@given(size=st.integers(1, 50), start=st.integers(0, 200), seed=st.integers(0, 5), stream=st.integers(0, 2))
def test_every_epoch_sees_every_example_once(size: int, start: int, seed: int, stream: int) -> None:
    order = data_order(np.arange(start + size), size, seed, stream)
    epochs = order[: len(order) // size * size].reshape(-1, size)
    assert (np.sort(epochs, axis=1) == np.arange(size)).all()
    assert (data_order(np.arange(start, start + size), size, seed, stream) == order[start:]).all()


def test_streams_have_orders_of_their_own() -> None:
    first, second = (data_order(np.arange(30), 30, 0, stream) for stream in (0, 1))
    assert (first != second).any()


@given(
    steps=st.integers(1, 8),
    batch_size=st.integers(2, 20),
    own=st.integers(1, 30),
    real=st.integers(1, 30),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 5),
)
def test_every_batch_holds_at_least_the_share(
    steps: int, batch_size: int, own: int, real: int, share: float, seed: int
) -> None:
    batches = [mixed_order(step, batch_size, own, real, share, seed) for step in range(steps)]
    for rows in batches:
        assert rows.shape == (batch_size,)
        assert rows.min() >= 0
        assert rows.max() < own + real
        assert (rows >= own).sum() == real_count(batch_size, share) >= share * batch_size - 1e-6
    for rows, size, first in ((np.concatenate(batches), own, 0), (np.concatenate(batches), real, own)):
        mine = rows[(rows >= first) & (rows < first + size)]
        seen = np.bincount(mine - first, minlength=size)
        assert seen.max() - seen.min() <= 1, "each data set is seen evenly"


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 2), (0.26, 3), (0.1 + 0.2, 3), (1.0, 8)])
def test_the_share_is_rounded_up(share: float, count: int) -> None:
    assert real_count(8, share) == count


def test_without_real_data_it_is_the_plain_order() -> None:
    plain = data_order(np.arange(24, 32), 13, 7)
    assert (mixed_order(3, 8, own=13, real=0, real_share=0.0, seed=7) == plain).all()
