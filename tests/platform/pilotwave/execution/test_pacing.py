"""Rates, rests and learned time limits, on a clock that tests turn by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pilotwave.execution.backoff import CEILING_SECONDS, rest_seconds
from pilotwave.execution.pacing import RateLimits
from pilotwave.execution.time_limits import ANSWERS_NEEDED, FACTOR, LearnedLimit, survival_quantile

SECONDS = st.floats(1e-3, 1e4)


@given(
    rate=st.floats(0.5, 600.0), waits=st.lists(st.floats(0.0, 30.0), max_size=40), costs=st.lists(st.floats(0, 5))
)
def test_no_minute_sees_more_than_the_rate_and_one_more(
    rate: float, waits: list[float], costs: list[float]
) -> None:
    limits, now, began = RateLimits(rate, None), 0.0, []
    for wait in waits:
        now += wait
        if limits.seconds_until_free(now) > 0:
            now += limits.seconds_until_free(now)
        assert limits.seconds_until_free(now + 1e-9) == 0.0
        limits.begin(now, 1.0)
        began.append(now)
    for start in began:
        in_a_minute = sum(start <= moment < start + 60.0 - 1e-6 for moment in began)
        assert in_a_minute <= rate + 1


@given(costs=st.lists(st.floats(0.1, 5.0), min_size=2, max_size=30), expected=st.floats(0.1, 5.0))
def test_what_attempts_cost_in_the_end_is_what_paces_them(costs: list[float], expected: float) -> None:
    limits, now = RateLimits(None, 10.0), 0.0
    for cost in costs:
        now += limits.seconds_until_free(now)
        limits.begin(now, expected)
        limits.end(cost, expected)
    assert now == pytest.approx(sum(costs[:-1]) * 6.0, rel=1e-6)


def test_without_a_rate_nothing_waits_and_two_rates_wait_for_the_slower() -> None:
    free, both = RateLimits(None, None), RateLimits(60.0, 6.0)
    for limits in (free, both):
        limits.begin(100.0, 2.0)
    assert free.seconds_until_free(100.0) == 0.0
    assert both.seconds_until_free(100.0) == pytest.approx(20.0)


@given(base=st.floats(0.01, 600.0), seed=st.integers(0, 2**31), attempt=st.integers(1, 100))
def test_rests_double_up_to_a_ceiling_with_a_seeded_half_more_or_less(base: float, seed: int, attempt: int) -> None:
    rest = rest_seconds(base, seed, "p0001-02", attempt)
    mean = min(base * 2.0 ** (attempt - 1), max(CEILING_SECONDS, base))
    assert 0.5 * mean <= rest <= 1.5 * mean
    assert rest == rest_seconds(base, seed, "p0001-02", attempt)
    assert rest != rest_seconds(base, seed, "p0001-03", attempt)


def test_no_rest_at_all_may_be_wanted() -> None:
    assert rest_seconds(0.0, 0, "p0001-02", 3) == 0.0


def test_the_quantile_without_censoring_is_the_empirical_one() -> None:
    durations = [(float(seconds), True) for seconds in range(1, 101)]
    assert survival_quantile(durations, 0.95) == 95.0
    assert survival_quantile(durations, 0.5) == 50.0


def test_the_quantile_by_kaplan_and_meier_on_a_worked_example() -> None:
    # 1, 2+, 3, 4+, 5: S = 4/5 after 1, 4/5 * 2/3 after 3, 0 after 5.
    durations = [(1.0, True), (2.0, False), (3.0, True), (4.0, False), (5.0, True)]
    assert survival_quantile(durations, 0.2) == 1.0
    assert survival_quantile(durations, 0.4) == 3.0
    assert survival_quantile(durations, 0.5) == 5.0
    with pytest.raises(ValueError, match="at least one answer"):
        survival_quantile([(1.0, False)], 0.5)


OBSERVATIONS = st.lists(st.tuples(SECONDS, st.booleans()), min_size=1, max_size=60)


@given(observations=OBSERVATIONS, quantile=st.floats(0.05, 0.99), seconds=SECONDS)
def test_an_attempt_that_was_ended_never_shortens_the_estimate(
    observations: list[tuple[float, bool]], quantile: float, seconds: float
) -> None:
    assume(any(answered for _, answered in observations))
    before = survival_quantile(observations, quantile)
    assert survival_quantile([*observations, (seconds, False)], quantile) >= before


@given(observations=OBSERVATIONS, quantile=st.floats(0.05, 0.99), data=st.data())
def test_the_estimate_is_an_answers_time_and_knows_no_order(
    observations: list[tuple[float, bool]], quantile: float, data: st.DataObject
) -> None:
    assume(any(answered for _, answered in observations))
    value = survival_quantile(observations, quantile)
    assert value in [seconds for seconds, answered in observations if answered]
    assert survival_quantile(data.draw(st.permutations(observations)), quantile) == value


@given(observations=st.lists(st.tuples(SECONDS, st.booleans()), max_size=80), cap=st.floats(1.0, 1e5))
@settings(deadline=None)
def test_a_limit_stays_between_floor_and_cap_and_grows_with_every_timeout_in_a_row(
    observations: list[tuple[float, bool]], cap: float
) -> None:
    limit = LearnedLimit(cap)
    for answers, (seconds, answered) in enumerate(observations):
        if answers < ANSWERS_NEEDED:
            assert limit.seconds == cap
        before = limit.seconds
        if answered:
            limit.answered(seconds)
        else:
            limit.timed_out(seconds)
            assert limit.seconds >= min(cap, before)
        assert min(5.0, cap) <= limit.seconds <= cap
        assert limit.after_timeout(before) >= min(cap, 2 * before)


def test_it_begins_at_the_cap_and_settles_far_below_it() -> None:
    limit = LearnedLimit(3600.0)
    durations = np.random.default_rng(0).lognormal(3.0, 1.0, size=400)  # median 20 s
    cut = 0
    for seconds in durations:
        if seconds <= limit.seconds:
            limit.answered(float(seconds))
        else:
            cut += 1
            limit.timed_out(limit.seconds)
    truth = FACTOR * float(np.quantile(durations, 0.95))
    assert 0.7 * truth < limit.seconds < 1.4 * truth
    assert cut <= 4


def test_an_oracle_that_becomes_slower_is_followed_in_a_few_timeouts() -> None:
    limit = LearnedLimit(3600.0)
    for _ in range(50):
        limit.answered(10.0)
    assert limit.seconds == 40.0
    tries = list(
        itertools.takewhile(lambda _: limit.seconds < 300.0, iter(lambda: limit.timed_out(limit.seconds), 1))
    )
    assert len(tries) <= 3
    limit.answered(250.0)
    assert limit.seconds < 3600.0
