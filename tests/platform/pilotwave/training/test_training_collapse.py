from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave.errors import BreakerError
from pilotwave.training.collapse import CollapseMonitor, mean_pairwise_distance

DATA = {"distinct": 1.0, "tanimoto_distance": 0.9}
VARIED, NARROW = {"distinct": 0.98, "tanimoto_distance": 0.88}, {"distinct": 0.9, "tanimoto_distance": 0.2}


def test_two_low_measurements_running_are_a_collapse() -> None:
    monitor = CollapseMonitor(DATA, limit=0.5)
    assert not monitor.observe(VARIED).low
    assert monitor.observe(NARROW).low
    assert not monitor.collapsed, "one may be an accident"
    monitor.observe(VARIED)
    monitor.observe(NARROW)
    assert not monitor.collapsed, "they were not running"
    verdict = monitor.observe(NARROW)
    assert monitor.collapsed
    error = monitor.error(verdict, "run/molecule.safetensors", "raise real_share")
    assert isinstance(error, BreakerError)
    assert error.exit_code == 3
    assert str(error) == (
        "the samples collapsed: tanimoto distance 0.20 against 0.90 of the data, below 0.5 of it on 2 measurements "
        "running; the last good weights are run/molecule.safetensors; raise real_share"
    )


def test_too_few_samples_tell_nothing_either_way() -> None:
    monitor = CollapseMonitor(DATA, limit=0.5)
    monitor.observe(NARROW)
    assert not monitor.observe(None).low
    assert monitor.low_running == 1
    monitor.observe(NARROW)
    assert monitor.collapsed


def test_a_resumed_run_remembers_a_low_measurement() -> None:
    before = CollapseMonitor(DATA, limit=0.5)
    before.observe(NARROW)
    monitor = CollapseMonitor(DATA, limit=0.5, armed=False)
    monitor.restore(before.state())
    verdict = monitor.observe(NARROW)
    assert monitor.collapsed
    assert "no good weights were written yet" in str(monitor.error(verdict, None, "raise real_share"))


def test_what_was_never_there_cannot_be_lost() -> None:
    monitor = CollapseMonitor(DATA, limit=0.5, armed=False)
    for _ in range(3):
        assert not monitor.observe(NARROW).low
    monitor.observe(VARIED)
    monitor.observe(NARROW)
    monitor.observe(NARROW)
    assert monitor.collapsed


def test_a_limit_of_zero_switches_it_off() -> None:
    monitor = CollapseMonitor(DATA, limit=0.0)
    for _ in range(3):
        monitor.observe({"distinct": 0.0, "tanimoto_distance": 0.0})
    assert not monitor.collapsed


@pytest.mark.parametrize("limit", [-0.1, 1.1, float("nan")])
def test_a_limit_that_is_no_share_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="limit from 0 to 1"):
        CollapseMonitor(DATA, limit=limit)


@given(
    share=st.floats(0.0, 2.0),
    limit=st.floats(0.01, 1.0),
    data=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.floats(0.01, 10.0), min_size=1),
)
def test_low_means_below_the_limit_by_any_measure(share: float, limit: float, data: dict[str, float]) -> None:
    monitor = CollapseMonitor(data, limit)
    worst = min(data)
    verdict = monitor.observe({name: value * (share if name == worst else 3.0) for name, value in data.items()})
    assert verdict.low == (verdict.shares[worst] < limit)
    assert verdict.lowest == worst


@given(st.integers(2, 8), st.integers(0, 1000))
def test_pairwise_distance_is_that_of_all_pairs_and_scales(count: int, seed: int) -> None:
    pictures = np.random.default_rng(seed).normal(size=(count, 3, 2))
    pairs = [
        np.sqrt(np.square(pictures[one] - pictures[other]).mean()) for one in range(count) for other in range(one)
    ]
    assert mean_pairwise_distance(pictures) == pytest.approx(np.mean(pairs))
    assert mean_pairwise_distance(3 * pictures + 1) == pytest.approx(3 * np.mean(pairs))


def test_copies_have_no_distance() -> None:
    assert mean_pairwise_distance(np.ones((5, 4))) == 0.0
    assert mean_pairwise_distance(np.ones((1, 4))) == 0.0
