"""What evaluators will want, foreseen from how long attempts took: lockstep, spread, bursts, nothing known."""

from __future__ import annotations

import random

import pytest

from pilotwave.execution.forecasting import KEPT, RecentTimes, evenly, foreseen


def remembered(*seconds: float) -> RecentTimes:
    times = RecentTimes()
    for one in seconds:
        times.add(one)
    return times


def test_quantiles_are_of_the_latest_times() -> None:
    times = remembered(*[1000.0] * 5, *range(KEPT))
    assert len(times) == KEPT
    assert [times.quantile(share) for share in (0.0, 0.5, 0.9, 1.0)] == [0.0, 31.0, 57.0, 63.0]
    assert remembered(3.0).quantile(0.9) == 3.0
    assert remembered(-2.0).quantile(0.9) == 0.0


def test_evaluators_in_lockstep_want_nothing_until_they_all_do() -> None:
    times = remembered(*[600.0] * KEPT)
    early = foreseen(times, [1.0] * 16, 16, 5.0)
    late = foreseen(times, [597.0] * 16, 16, 5.0)
    assert early.cautious < 0.5
    assert 15 < late.mean < 17
    assert 15 < late.cautious < 16.5  # sixteen evaluators want sixteen, not seventeen


def test_what_is_foreseen_is_what_comes() -> None:
    """Against a simulation of evaluators that work without a pause."""
    chance = random.Random(0)

    def lasts() -> float:
        return chance.lognormvariate(2.0, 1.0)

    times = remembered(*[lasts() for _ in range(KEPT)])
    mean_seconds = sum(lasts() for _ in range(4000)) / 4000
    for horizon in (0.5, 5.0, 60.0):
        counts, expected = [], []
        for _ in range(200):
            ends = [0] * 8
            ages = []
            for evaluator in range(8):
                age, length = chance.uniform(0, 10), lasts()
                while length < age:
                    length = lasts()
                ages.append(age)
                left = length - age
                while left <= horizon:
                    ends[evaluator] += 1
                    left += lasts()
            counts.append(sum(ends))
            expected.append(foreseen(times, ages, 8, horizon).mean)
        came, foretold = sum(counts) / 200, sum(expected) / 200
        assert foretold == pytest.approx(came, rel=0.3, abs=0.1), (horizon, mean_seconds)


def test_few_of_many_evaluators_stand_for_all() -> None:
    times = remembered(1.0, 2.0, 3.0, 4.0)
    ages = [index / 500 for index in range(2000)]
    some = list(evenly(ages, len(ages)))
    assert len(some) <= 32
    whole, sampled = foreseen(times, ages, 2000, 1.0), foreseen(times, some, 2000, 1.0)
    assert sampled.mean == pytest.approx(whole.mean, rel=0.05)
    assert sampled.cautious == pytest.approx(whole.cautious, rel=0.05)


def test_an_attempt_older_than_all_may_go_on_for_as_long_again() -> None:
    times = remembered(1.0, 2.0)
    ends, _ = times.ending_within(99.0, 1.0)
    assert ends == pytest.approx(0.01)
    assert times.ending_within(99.0, 0.0) == (0.0, 0.0)
    assert foreseen(times, [], 0, 10.0).cautious == 0.0
