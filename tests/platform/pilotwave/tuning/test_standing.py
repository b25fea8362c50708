from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave.bench.loop import Record
from pilotwave.bench.tuning import score
from pilotwave.tuning.standing import Answers, CampaignStanding, Reference, Standing, aggregate, loss_at

LOSSES = st.lists(st.none() | st.floats(-10, 10), min_size=1, max_size=40)
UNGUIDED = Reference(mean=10.0, spread=2.0)


def answers(*losses: float | None, target: float | None = 0.0, budget: int = 8) -> Answers:
    return Answers(losses, 4, budget, target, UNGUIDED)


def test_a_campaign_that_gets_there_counts_the_questions_it_needed() -> None:
    found = answers(9.0, None, 3.0, -0.5, 8.0)
    assert found.reached() == 4
    assert loss_at("queries_to_target", found, 8) == 4
    assert found.reached(3) is None


@pytest.mark.parametrize(("best", "factor"), [(10.0, 3.0), (12.0, 3.0), (5.0, 2.5), (0.1, 2.01)])
def test_one_that_does_not_is_censored_by_how_far_it_is(best: float, factor: float) -> None:
    for queries in (4, 8):
        found = answers(*[best] * queries)
        assert loss_at("queries_to_target", found, queries) == pytest.approx(queries * factor)


def test_without_a_value_or_a_way_it_counts_three_times() -> None:
    assert loss_at("queries_to_target", answers(None, None, None, None), 4) == 12
    easy = replace(answers(11.0, 12.0, 11.0, 13.0, target=10.5), reference=UNGUIDED)
    assert loss_at("queries_to_target", easy, 4) == 12  # unguided samples are as good as this target


@given(LOSSES, st.integers(1, 40), st.floats(-9, 9))
def test_getting_there_is_always_better_than_not(losses: list[float | None], queries: int, target: float) -> None:
    found = Answers(tuple(losses), 4, 40, target, UNGUIDED)
    loss = loss_at("queries_to_target", found, queries)
    assert 1 <= loss <= 3 * queries
    assert (loss <= queries) == (found.reached(queries) is not None)


@given(LOSSES, st.floats(-9, 9))
def test_more_answers_never_change_how_it_stood(losses: list[float | None], target: float) -> None:
    whole = Answers(tuple(losses), 4, 40, target, UNGUIDED)
    for queries in range(1, len(losses) + 1):
        part = replace(whole, losses=tuple(losses[:queries]))
        for objective in ("queries_to_target", "level", "best"):
            assert loss_at(objective, part, queries) == loss_at(objective, whole, queries)


def test_the_level_is_that_of_the_comparisons() -> None:
    losses = (10.0, 12.0, 8.0, 10.0, 6.0, 6.0, 4.0, 8.0, 2.0, 2.0, 2.0, 2.0)
    found = Answers(losses, 4, 12, None, UNGUIDED)
    batches = [{"queries": 4 * k, "mean": statistics.fmean(losses[4 * k - 4 : 4 * k])} for k in (1, 2, 3)]
    record: Record = {"seed": 0, "queries": 12, "reference": {"mean": 10.0, "spread": 2.0}, "batches": batches}
    assert loss_at("level", found, 12) == pytest.approx(score([[record]])[0]) == pytest.approx(-3.0)
    assert loss_at("best", found, 8) == pytest.approx((4.0 - 10.0) / 2.0)


def test_a_trial_is_the_median_over_seeds_and_the_mean_over_tasks() -> None:
    losses = [("a", 10.0), ("a", 20.0), ("a", 1000.0), ("b", 80.0)]
    assert aggregate("queries_to_target", losses) == pytest.approx(40.0)  # sqrt(20 * 80)
    assert aggregate("level", losses) == 50.0


def test_a_first_batch_without_values_is_no_reference() -> None:
    assert Reference.of([None, None]) is None
    assert Reference.of([1.0, None, 3.0]) == Reference(2.0, 1.0)
    assert Reference.of([2.0, 2.0]) == Reference(2.0, 1.0)


def test_a_standing_survives_the_ledger() -> None:
    campaign = CampaignStanding("a", 0, 12, 9.0, 9, -0.5, "")
    standing = Standing(3, 16, 9.0, 12, (campaign,), "stopped")
    assert Standing.from_json(standing.to_json()) == standing
    assert standing.reached == 1
