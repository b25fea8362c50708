"""Intervals of proportions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.training import proportions


@settings(max_examples=50, deadline=None)
@given(trials=st.integers(1, 500), data=st.data())
def test_wilson_intervals_hold_the_share(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = proportions.wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0
    assert proportions.wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_of_nine_in_ten() -> None:
    assert proportions.wilson_interval(90, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert proportions.in_percent(90, 100) == "90.0% (82.6-94.5)"
