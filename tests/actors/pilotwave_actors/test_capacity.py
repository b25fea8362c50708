"""Whether a cluster has what a campaign's actors occupy, checked against a slow and obvious count."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave.errors import InputError
from pilotwave_actors.capacity import Demand, check_capacity, describe_nodes

NODES = {
    "a": {"CPU": 4.0, "memory": 1e9, "node:10.0.0.1": 1.0, "object_store_memory": 1e9},
    "b": {"CPU": 8.0, "GPU": 2.0, "licence": 1.0},
}


def evaluators(count: int, **each: float) -> Demand:
    return Demand("an evaluator", "runtime.evaluator_resources", count, each)


def test_what_fits_is_silent() -> None:
    assert check_capacity([evaluators(12, CPU=1)], NODES, grows=False) == ""
    assert check_capacity([evaluators(2, CPU=1, GPU=1), evaluators(4, CPU=1)], NODES, grows=False) == ""
    assert check_capacity([evaluators(1000, CPU=0.0)], NODES, grows=False) == ""


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        (evaluators(1, orca_licence=1), r"no node .* needs \(orca_licence 1, runtime.evaluator_resources\)"),
        (evaluators(1, GPU=4), r"no node .* \(GPU 4"),
        (evaluators(1, CPU=4, memory=2e9), r"no node"),
        (evaluators(2, licence=1), r"room for 1 of 2 actors that need licence 1 each"),
        (evaluators(64, CPU=1), r"room for 12 of 64"),
        (evaluators(4, CPU=3), r"room for 3 of 4"),  # 12 CPUs in all, but 4 + 8 in threes
    ],
)
def test_what_does_not_fit_says_what_there_is(demand: Demand, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        check_capacity([demand], NODES, grows=False)
    assert "there is: node a: CPU 4; node b: CPU 8, GPU 2, licence 1" in str(caught.value)
    assert "waiting for the autoscaler" in check_capacity([demand], NODES, grows=True)


def test_several_kinds_share_the_room() -> None:
    with pytest.raises(InputError, match="room for 0 of 1"):
        check_capacity([evaluators(12, CPU=1), evaluators(1, CPU=1)], NODES, grows=False)


def test_an_elastic_pool_needs_its_minimum_and_is_told_how_far_it_can_grow() -> None:
    fewest, generator = evaluators(2, CPU=1), Demand("a generator", "runtime.generator_threads", 1, {"CPU": 4.0})
    note = check_capacity([replace(fewest, most=64), generator], NODES, grows=False)
    assert note.startswith("the cluster has room for 8 of at most 64 actors that need CPU 1 each (an evaluator)")
    assert check_capacity([replace(fewest, most=8), generator], NODES, grows=False) == ""
    assert check_capacity([replace(fewest, most=64), generator], NODES, grows=True) == ""
    with pytest.raises(InputError, match="room for 12 of 13"):
        check_capacity([replace(evaluators(13, CPU=1), most=64)], NODES, grows=False)


def test_no_node_at_all() -> None:
    assert describe_nodes({}) == "no node"
    with pytest.raises(InputError, match="there is: no node"):
        check_capacity([evaluators(1, CPU=1)], {}, grows=False)


@given(
    st.lists(st.integers(0, 9), max_size=5),
    st.integers(1, 4),
    st.integers(1, 12),
)
def test_equal_actors_fit_exactly_when_counting_says_so(cpus: list[int], each: int, count: int) -> None:
    nodes = {str(number): {"CPU": float(amount)} for number, amount in enumerate(cpus)}
    note = check_capacity([evaluators(count, CPU=float(each))], nodes, grows=True)
    assert (note == "") == (sum(amount // each for amount in cpus) >= count)
