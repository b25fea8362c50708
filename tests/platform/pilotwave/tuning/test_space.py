from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pilotwave.tuning.space import Dimension, active, draw, grid, grid_size, one_at_a_time

ENDS = st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)).filter(lambda ends: ends[0] < ends[1])
WHOLE = st.tuples(st.integers(-50, 50), st.integers(-50, 50)).filter(lambda ends: ends[0] < ends[1])
VALUES = st.lists(st.integers(0, 9) | st.text("abc", min_size=1), min_size=1, max_size=4, unique=True)
DIMENSIONS = (
    VALUES.map(lambda values: {"choice": values})
    | ENDS.map(lambda ends: {"uniform": ends})
    | ENDS.map(lambda ends: {"log_uniform": ends})
    | WHOLE.map(lambda ends: {"integer": ends})
)
SEARCHES = st.dictionaries(st.sampled_from(["a", "b", "c.d", "c.e.f"]), DIMENSIONS, min_size=1, max_size=4)


def search_of(fields: dict[str, Any]) -> dict[str, Dimension]:
    return {name: Dimension.model_validate(each) for name, each in fields.items()}


@settings(max_examples=60, deadline=None)
@given(SEARCHES, st.integers(0, 2**40), st.integers(0, 1000))
def test_what_is_drawn_lies_in_the_space_and_is_the_same_again(
    fields: dict[str, Any], seed: int, number: int
) -> None:
    search = search_of(fields)
    point = draw(search, {}, (seed, number))
    assert point.keys() == search.keys()
    assert all(search[name].holds(value) for name, value in point.items())
    assert draw(search, {}, (seed, number)) == point
    again = dict(reversed(list(search.items())))
    assert draw(again, {}, (seed, number)) == point  # whatever the order in the file


@settings(max_examples=60, deadline=None)
@given(SEARCHES)
def test_a_grid_holds_every_combination_once(fields: dict[str, Any]) -> None:
    search = search_of(fields)
    points = list(grid(search, {}))
    assert len(points) == grid_size(search)
    assert len({repr(point) for point in points}) == len(points)


@settings(max_examples=60, deadline=None)
@given(SEARCHES)
def test_one_at_a_time_shows_every_choice_and_every_end(fields: dict[str, Any]) -> None:
    search = search_of(fields)
    points = list(one_at_a_time(search, {}))
    for name, each in search.items():
        assert {repr(point[name]) for point in points} == {repr(value) for value in each.values}


CONDITIONAL = search_of(
    {
        "algorithm": {"choice": [{"kind": "random"}, {"kind": "dno"}, {"kind": "tfg"}]},
        "algorithm.step_size": {"uniform": [0.1, 1.0], "when": {"algorithm.kind": ["dno", "tfg"]}},
        "budget.batch_size": {"choice": [4, 8], "when": {"backbone.kind": "image"}},
    }
)


def test_a_field_counts_only_where_its_condition_holds() -> None:
    raw = {"algorithm": {"kind": "random"}, "algorithm.step_size": 0.5, "budget.batch_size": 4}
    image, molecule = {"backbone": {"kind": "image"}}, {"backbone": {"kind": "molecule"}}
    assert active(CONDITIONAL, raw, image) == {"algorithm": {"kind": "random"}, "budget.batch_size": 4}
    assert active(CONDITIONAL, {**raw, "algorithm": {"kind": "dno"}}, molecule) == {
        "algorithm": {"kind": "dno"},
        "algorithm.step_size": 0.5,
    }
    # a section that is chosen hides what the campaign says in it
    assert "algorithm.step_size" not in active(CONDITIONAL, raw, {"algorithm": {"kind": "dno"}})


def test_a_grid_leaves_out_what_does_not_count() -> None:
    points = list(grid(CONDITIONAL, {"backbone": {"kind": "molecule"}}))
    assert len(points) == 1 + 2 * 2
    assert {point["algorithm.step_size"] for point in one_at_a_time(CONDITIONAL, {}) if len(point) > 1} == {
        0.1,
        1.0,
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of"),
        ({"choice": [1], "integer": [1, 2]}, "exactly one of.*choice and integer"),
        ({"uniform": [2, 1]}, "a smaller and a larger"),
        ({"log_uniform": [0, 1]}, "above 0"),
        ({"choice": [1, 2, 1]}, "said twice"),
        ({"choice": []}, "at least 1"),
        ([1, 2], "expected {choice"),
    ],
)
def test_what_is_no_dimension_is_said(fields: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Dimension.model_validate(fields)
