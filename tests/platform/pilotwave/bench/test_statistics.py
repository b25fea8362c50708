"""Query efficiency: worked examples by hand, and what must hold for any curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave.bench.statistics import (
    TOLERANCE,
    Curves,
    Estimate,
    first_reach,
    mean_at,
    mean_estimate,
    median_over,
    paper_ratio,
    ratio_at,
    ratio_to_best,
)

BATCH = 32
at_64 = (lambda one, other: ratio_at(one, other, 64), lambda one, other: ratio_to_best(one, other, 64))


def curves(*rows: list[float], batch: int = BATCH) -> Curves:
    levels = np.array(rows, dtype=np.float64)
    return Curves(tuple(range(len(rows))), batch * np.arange(1.0, levels.shape[1] + 1), levels)


@st.composite
def some_curves(draw: st.DrawFn) -> tuple[Curves, Curves]:
    batches, seeds = draw(st.integers(2, 8)), draw(st.integers(1, 4))
    level = st.floats(-9, 1, allow_nan=False).map(lambda value: round(value, 3))
    row = st.lists(level, min_size=batches, max_size=batches)
    rows = st.lists(row, min_size=seeds, max_size=seeds)
    return curves(*draw(rows)), curves(*draw(rows))


def test_the_paper_s_ratio_by_hand() -> None:
    reference = curves([0.0, -1.0, -2.0, -3.0, -2.5])
    method = curves([0.0, -3.5, -4.0, -4.0, -4.0])
    found = paper_ratio(reference, method)
    assert found.value == pytest.approx(5 / 2)
    assert not found.censored


def test_the_paper_s_ratio_of_one_that_never_gets_there_is_a_bound() -> None:
    found = paper_ratio(curves([0.0, -1.0, -2.0, -3.0]), curves([0.0, 0.0, 0.0, -2.9]))
    assert (found.value, found.censored) == (1.0, True)


def test_the_ratio_at_some_queries_by_hand() -> None:
    reference = curves([0.0, -1.0, -2.0, -3.0])
    method = curves([0.0, -4.0, -4.0, -4.0])
    # the reference is at -2 after 96; the method comes within 1% of that half-way between 32 and 64
    needed = 32 + 32 * 1.98 / 4
    assert ratio_at(reference, method, 96).value == pytest.approx(96 / needed)
    assert ratio_to_best(reference, method, 96).value == pytest.approx((96 - 0.02 * 32) / needed)


def test_a_reference_that_had_been_lower_before() -> None:
    reference, method = curves([0.0, -3.0, -3.0, -1.5]), curves([0.0, -3.0, -3.0, -3.0])
    # its level at 128 is -1.5, and what the 128 queries bought; its best of -3 it had as soon as the method
    assert ratio_at(reference, method, 128).value == pytest.approx(128 / (32 + 32 * 1.485 / 3))
    assert ratio_to_best(reference, method, 128).value == pytest.approx(1.0)
    assert ratio_to_best(reference, curves([0.0, -1.0, -1.0, -1.0]), 128).censored


def test_levels_that_differ_by_rounding_are_equal() -> None:
    reference, method = curves([0.0, -2.0, -2.001, -2.002]), curves([0.0, -2.0, -2.0, -2.0])
    for ratio in (ratio_at, ratio_to_best):
        found = ratio(reference, method, 128)
        assert not found.censored
        assert found.value >= 1.0
    assert ratio_at(reference, curves([0.0, *[-2.0 + 2.2 * TOLERANCE] * 3]), 128).censored


def test_first_reach_is_between_the_batches_or_never() -> None:
    queries = np.array([10.0, 20.0, 30.0])
    lines = np.array([[0.0, -1.0, -3.0], [0.0, -1.0, -3.0], [-5.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    found = first_reach(queries, lines, np.array([-2.0, -1.0, -2.0, 0.0]))
    assert found.tolist() == [25.0, 20.0, 10.0, math.inf]


@given(some_curves(), st.floats(0.1, 10), st.floats(-5, 5))
def test_units_make_no_difference(pair: tuple[Curves, Curves], scale: float, shift: float) -> None:
    reference, method = pair
    moved = [Curves(each.seeds, each.queries, scale * each.levels + shift) for each in pair]
    for ratio in (ratio_at, ratio_to_best):
        before, after = ratio(reference, method, 48), ratio(*moved, 48)
        if not before.censored and not after.censored:
            # a level that is met exactly may be missed by rounding, or met a batch later
            assert after.value == pytest.approx(before.value, rel=1e-6) or _touches(reference, method)


def _touches(reference: Curves, method: Curves) -> bool:
    mean = reference.levels.mean(axis=0)
    at_mark = np.interp(48, reference.queries, mean)
    levels = [at_mark, min(at_mark, mean[0])]
    levels += [level + TOLERANCE * max(mean[0] - level, 0.0) for level in levels]
    lines = [mean, method.levels.mean(axis=0)]
    return any(bool(np.isclose(line, level, atol=1e-6).any()) for line in lines for level in levels)


@given(some_curves(), st.sampled_from([32.0, 40.0, 64.0, 200.0]))
def test_against_itself_a_method_has_a_ratio_of_one(pair: tuple[Curves, Curves], queries: float) -> None:
    method, _ = pair
    found = ratio_to_best(method, method, queries)
    assert not found.censored
    assert found.value == pytest.approx(1.0)
    assert found.resampled == pytest.approx(np.ones(len(found.resampled)))
    assert ratio_at(method, method, queries).value >= 1.0 or queries < method.queries[0]
    assert paper_ratio(method, method).value >= 1.0


@given(some_curves(), st.floats(0, 3))
def test_a_lower_curve_is_never_less_efficient(pair: tuple[Curves, Curves], lower: float) -> None:
    reference, method = pair
    better = Curves(method.seeds, method.queries, method.levels - lower)
    assert paper_ratio(reference, better).value >= paper_ratio(reference, method).value
    for ratio in (ratio_at, ratio_to_best):
        before, after = ratio(reference, method, 64), ratio(reference, better, 64)
        assert after.value >= before.value - 1e-9
        assert before.censored or not after.censored


@given(some_curves())
def test_half_the_queries_are_twice_the_efficiency(pair: tuple[Curves, Curves]) -> None:
    reference, method = pair
    faster = Curves(method.seeds, method.queries / 2, method.levels)
    for ratio in (paper_ratio, *at_64):
        assert ratio(reference, faster).value == pytest.approx(2 * ratio(reference, method).value)


@given(some_curves())
def test_ratios_are_positive_and_bounded(pair: tuple[Curves, Curves]) -> None:
    reference, method = pair
    batches = len(reference.queries)
    for found in (ratio(reference, method) for ratio in (paper_ratio, *at_64)):
        assert 1 / batches <= found.value <= batches
        low, high = found.interval
        assert low <= high


@given(some_curves())
def test_seeds_in_another_order_give_the_same_ratio(pair: tuple[Curves, Curves]) -> None:
    turned = [Curves(each.seeds[::-1], each.queries, each.levels[::-1]) for each in pair]
    assert paper_ratio(*turned).value == pytest.approx(paper_ratio(*pair).value)


def test_equal_seeds_leave_nothing_to_chance() -> None:
    line = [0.0, -1.0, -2.0, -3.0]
    found = ratio_at(curves(line, line, line), curves(*[[0.0, -2.0, -3.0, -3.0]] * 3), 96)
    assert found.interval == pytest.approx((found.value, found.value))
    assert mean_at(curves(line, line), 48).interval == pytest.approx((-0.5, -0.5))


def test_the_interval_of_a_mean_holds_it_and_narrows_with_seeds() -> None:
    random = np.random.default_rng(0)
    widths = []
    for count in (20, 2000):
        low, high = mean_estimate(random.standard_normal(count) + 3.0).interval
        assert low < 3.0 < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


def test_the_median_over_tasks_says_when_it_is_a_bound() -> None:
    def task(value: float, censored: bool) -> Estimate:
        return Estimate(value, np.full(4, value), censored)

    sound, bound = task(2.0, False), task(0.5, True)
    assert median_over([sound, task(3.0, False), bound]).value == 2.0
    assert not median_over([sound, task(3.0, False), bound]).censored
    assert median_over([sound, bound, task(0.4, True)]).censored
    with pytest.raises(ValueError, match="expected one"):
        median_over([])
