"""Functions as oracles: what they may return, and what comes of what they may not."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pilotwave.errors import OracleFailure
from pilotwave.execution.callable_oracle import CallableOracle, CallableOracleConfig
from pilotwave.protocols import KnownAnswer, QueryContext
from pilotwave.samples import ArraySample, Sample
from pilotwave.types import Answer

SAMPLE = ArraySample(np.array([0.25, 0.5], dtype=np.float32))
CONTEXT = QueryContext("q", 3)


def evaluate(function: Any, **options: Any) -> Answer:
    return CallableOracle(function, **options).evaluate(SAMPLE, CONTEXT)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_the_value(value: float) -> None:
    assert evaluate(lambda sample: value) == Answer(value)


@pytest.mark.parametrize(
    "two", [2, np.float32(2), np.array([2.0]), np.int64(2), torch.tensor(2.0), torch.tensor([2])]
)
def test_any_single_number_will_do(two: Any) -> None:
    assert evaluate(lambda sample: two).value == 2.0


def test_an_answer_is_passed_on() -> None:
    answer = Answer(1.5, {"speed": 2.0}, "fast", 3.0)
    assert evaluate(lambda sample: answer) is answer


@pytest.mark.parametrize(
    "wrong", [None, "3.0", math.nan, -math.inf, True, np.True_, 1j, np.zeros(2), torch.zeros(2), [1.0], np.nan]
)
def test_anything_else_is_a_failure_that_shows_what_came(wrong: Any) -> None:
    with pytest.raises(OracleFailure, match="must return a finite number or an Answer, got") as caught:
        evaluate(lambda sample: wrong)
    assert (caught.value.stage, caught.value.retryable) == ("callable", False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("error", "retryable"), [(ValueError("bad"), False), (ConnectionError("bad"), True)])
def test_an_exception_is_a_failure_with_its_type_and_message(error: Exception, retryable: bool) -> None:
    def function(sample: Sample) -> float:
        raise error

    with pytest.raises(OracleFailure, match=f"function raised {type(error).__name__}: bad") as caught:
        evaluate(function)
    assert (caught.value.stage, caught.value.retryable) == ("callable", retryable)


def test_the_function_may_choose_its_own_failure() -> None:
    def function(sample: Sample) -> float:
        raise OracleFailure("no licence left", stage="licence", retryable=True)

    with pytest.raises(OracleFailure, match="no licence left") as caught:
        evaluate(function)
    assert caught.value.stage == "licence"


def test_a_second_parameter_receives_the_context() -> None:
    assert evaluate(lambda sample, context: context.attempt).value == 3.0
    assert evaluate(lambda sample, scale=2.0: scale * float(sample.array.sum())).value == 1.5


def test_other_media_are_refused() -> None:
    with pytest.raises(OracleFailure, match="takes image samples, got array") as caught:
        evaluate(lambda sample: 1.0, media=["image"])
    assert caught.value.stage == "media"


def test_name_version_and_known_answer_are_as_given() -> None:
    known = KnownAnswer(SAMPLE, 0.75, 0.0)
    oracle = CallableOracle(evaluate, name="mine", version="2026-11", known=known, deterministic=False)
    assert (oracle.name, oracle.version, oracle.known_answer(), oracle.deterministic) == (
        "mine",
        "2026-11",
        known,
        False,
    )
    assert CallableOracle(evaluate).name == "evaluate"


def test_a_live_function_fits_where_a_configuration_is_expected() -> None:
    config = CallableOracleConfig(function=lambda sample: 4.0, name="four", unit="m")
    oracle = config.build()
    assert oracle.evaluate(SAMPLE, CONTEXT).value == 4.0
    assert (oracle.name, oracle.unit, config.isolation) == ("four", "m", "thread")
    assert config.model_dump(mode="json")["function"].endswith("<lambda>")
