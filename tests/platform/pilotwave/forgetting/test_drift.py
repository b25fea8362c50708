"""The drift monitor: seldom alarmed while an oracle stays the same, though samples move; else alarmed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.forgetting.drift import ALARM, FEWEST_ANSWERS, DriftResult, drift

COUNT, CHANGE = 80, 45
SEEDS = 100


def campaign(seed: int, noise: float, shift: float = 0.0) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Samples that move and contract as a campaign's do; from the 46th on answers are off by so many deviations."""
    random = np.random.default_rng(seed)
    moving = np.linspace(0, 1, COUNT)[:, None]
    latents = random.normal(size=(COUNT, 6)) * (1 - 0.5 * moving) + 1.5 * moving
    values = np.sin(latents @ random.normal(size=6)) + 0.2 * (latents**2).sum(1) + noise * random.normal(size=COUNT)
    return latents, values + shift * values.std() * (np.arange(COUNT) >= CHANGE)


def result_of(seed: int, noise: float, shift: float = 0.0) -> DriftResult:
    latents, values = campaign(seed, noise, shift)
    return drift(latents, values, np.arange(COUNT), permutations=99)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_false_alarms_are_as_seldom_as_the_p_value_says(noise: float) -> None:
    p_values = np.array([result_of(seed, noise).p_value for seed in range(SEEDS)])
    # Three standard deviations of a binomial above the nominal level.
    for level in (0.05, 0.1, 0.25):
        assert (p_values <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / SEEDS)
    assert (p_values > 0.5).mean() > 0.3


def test_the_values_alone_would_have_raised_the_alarm() -> None:
    """The samples move, so values do depend on time; only what samples explain must be taken out first."""
    correlations = []
    for seed in range(20):
        _, values = campaign(seed, 0.1)
        correlations.append(abs(np.corrcoef(values, np.arange(COUNT))[0, 1]))
    assert np.mean(correlations) > 0.4


@pytest.mark.parametrize(("shift", "least"), [(1.0, 0.7), (2.0, 0.95)])
def test_a_change_is_noticed_and_dated(shift: float, least: float) -> None:
    results = [result_of(seed, 0.1, shift) for seed in range(30)]
    assert np.mean([item.p_value <= 0.05 for item in results]) >= least
    alarmed = [item for item in results if item.since is not None]
    assert len(alarmed) >= least * 20
    assert abs(np.median([item.since for item in alarmed if item.since is not None]) - CHANGE) <= 3
    assert np.mean([item.shift > 0 for item in alarmed]) >= 0.9


def test_the_order_in_which_answers_are_given_makes_no_difference() -> None:
    latents, values = campaign(2, 0.1, 2.0)
    times = 1e9 + 60.0 * np.arange(COUNT)
    first = drift(latents, values, times)
    order = np.random.default_rng(0).permutation(COUNT)
    assert drift(latents[order], values[order], times[order]) == first
    assert first.p_value <= ALARM
    assert first.since in times
    assert first.to_json()["p_value"] == first.p_value


def test_latents_of_any_shape_and_very_many_answers() -> None:
    random = np.random.default_rng(0)
    latents = random.normal(size=(1200, 2, 2))
    values = latents.reshape(1200, 4).sum(1) + random.normal(size=1200) + 3.0 * (np.arange(1200) >= 700)
    found = drift(latents, values, np.arange(1200), permutations=99)
    assert found.answers == 1000
    assert found.since is not None
    assert abs(found.since - 700) < 20


@given(count=st.integers(0, FEWEST_ANSWERS + 4), seed=st.integers(0, 99), equal=st.booleans())
@settings(max_examples=30, deadline=None)
def test_few_or_equal_answers_tell_nothing(count: int, seed: int, equal: bool) -> None:
    random = np.random.default_rng(seed)
    latents = random.normal(size=(count, 3))
    values = np.ones(count) if equal else random.normal(size=count)
    found = drift(latents, values, np.arange(count), permutations=19)
    assert 0 < found.p_value <= 1
    if equal or count < FEWEST_ANSWERS:
        assert (found.p_value, found.since) == (1.0, None)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="as many latents as values and times, got 3, 2, 3"):
        drift(np.zeros((3, 2)), [1.0, 2.0], [1, 2, 3])
    with pytest.raises(ValueError, match="leave failed answers out"):
        drift(np.zeros((3, 2)), [1.0, 2.0, float("nan")], [1, 2, 3])
