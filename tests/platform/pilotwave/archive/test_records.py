"""Evaluations survive JSON exactly."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave.archive.records import evaluation_from_json, evaluation_to_json
from pilotwave.types import Evaluation, Failure, Status, Timings

finite = st.floats(allow_nan=False, allow_infinity=False)
timings = st.none() | st.builds(Timings, finite, finite)
properties = st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False), max_size=3)
answered = st.builds(
    Evaluation,
    query_id=st.text(min_size=1),
    status=st.just(Status.OK),
    value=finite,
    attempt=st.integers(1, 20),
    cost=finite,
    fidelity=st.text(),
    timings=timings,
    properties=properties,
    worker=st.text(),
    reused_from=st.none() | st.text(),
)
unanswered = st.builds(
    Evaluation,
    query_id=st.text(min_size=1),
    status=st.sampled_from([status for status in Status if status is not Status.OK]),
    failure=st.none() | st.builds(Failure, st.text(), st.text(), st.booleans()),
    timings=timings,
)


@given(answered | unanswered)
def test_round_trip_through_strict_json_is_exact(evaluation: Evaluation) -> None:
    text = json.dumps(evaluation_to_json(evaluation), allow_nan=False)
    assert evaluation_from_json(json.loads(text)) == evaluation


def test_a_property_may_be_nan() -> None:
    evaluation = Evaluation("q", Status.OK, 1.0, properties={"gap": math.nan})
    text = json.dumps(evaluation_to_json(evaluation), allow_nan=False)
    assert math.isnan(evaluation_from_json(json.loads(text)).properties["gap"])


def test_keys_of_a_later_version_are_ignored() -> None:
    evaluation = Evaluation("q", Status.OK, 1.0)
    assert evaluation_from_json({**evaluation_to_json(evaluation), "colour": "red"}) == evaluation


@pytest.mark.parametrize(
    "change", [{"status": "fine"}, {"value": "much"}, {"value": None}, {"properties": 3}, {"timings": {}}]
)
def test_what_is_no_evaluation_is_refused_in_one_line(change: dict[str, object]) -> None:
    fields = {**evaluation_to_json(Evaluation("q", Status.OK, 1.0)), **change}
    with pytest.raises(ValueError, match="expected the fields of an evaluation, got") as caught:
        evaluation_from_json(fields)
    assert "\n" not in str(caught.value)
