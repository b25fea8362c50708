"""What intervals cover together, against sorting all of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave.execution.accounting import PIECES, Accounting, Intervals

spans = st.tuples(st.integers(0, 300), st.integers(0, 40)).map(lambda item: (float(item[0]), float(sum(item))))


def covered(intervals: list[tuple[float, float]]) -> float:
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total


@given(st.lists(spans, max_size=60))
def test_a_union_in_any_order(intervals: list[tuple[float, float]]) -> None:
    union = Intervals()
    for interval in intervals:
        union.append(interval)
    assert union.covered() == covered(intervals)
    assert union.total == sum(end - start for start, end in intervals)
    assert (union.first, union.last) == (
        min((start for start, _ in intervals), default=None),
        max((end for _, end in intervals), default=None),
    )


def test_a_hundred_thousand_gaps_are_summed_and_not_kept() -> None:
    chance, union, intervals = random.Random(0), Intervals(), list[tuple[float, float]]()
    for place in range(100_000):
        start = place + chance.uniform(-5.0, 0.0)  # answers come in the order of their ends, more or less
        intervals.append((start, start + chance.uniform(0.0, 0.3)))
        union.append(intervals[-1])
    assert len(union._starts) <= PIECES
    assert union.covered() == pytest.approx(covered(intervals))


def test_shares_and_utilisation() -> None:
    accounting = Accounting(launched=90.0, evaluators=2)
    assert (accounting.utilisation(), accounting.shares(100.0).busy) == (0.0, 0.0)
    accounting.generating.append((100.0, 110.0))
    for interval in [(105.0, 125.0), (105.0, 115.0), (130.0, 140.0)]:
        accounting.evaluating.append(interval)
    shares = accounting.shares(150.0)
    assert (shares.wall, shares.starting) == (60.0, 10.0)
    assert (shares.generating, shares.evaluating, shares.busy) == (10.0, 30.0, 35.0)
    assert accounting.utilisation() == 40.0 / (2 * 35.0)


def test_utilisation_counts_the_evaluators_that_existed_at_each_time() -> None:
    accounting = Accounting(0.0, 0)
    assert accounting.utilisation() == 0.0
    accounting.exist(1, 10.0)
    accounting.evaluating.append((10.0, 30.0))
    assert accounting.utilisation() == 1.0
    accounting.exist(3, 20.0)
    accounting.exist(3, 25.0)
    # One for ten seconds, three for the next ten; two of the three have nothing to do.
    assert accounting.utilisation() == pytest.approx(20 / 40)
    accounting.exist(1, 30.0)
    accounting.evaluating.append((30.0, 70.0))
    assert accounting.utilisation() == pytest.approx(60 / 80)
    assert accounting.evaluators == 1
