"""What a question costs that got no answer."""

import pickle

import numpy as np
import pytest

from pilotwave.errors import OracleFailure
from pilotwave.execution.callable_oracle import CallableOracle
from pilotwave.execution.question import ATTEMPT_COST, ask
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample, Sample


@pytest.mark.parametrize(("named", "counted"), [(None, ATTEMPT_COST), (0.0, 0.0), (0.25, 0.25)])
def test_a_failure_costs_what_the_oracle_says_or_as_much_as_any_attempt(
    named: float | None, counted: float
) -> None:
    def fail(sample: Sample) -> float:
        raise OracleFailure("no", stage="scf", cost=named)

    evaluation = ask(
        CallableOracle(fail), ArraySample(np.zeros(1, dtype=np.float32)), QueryContext("q"), "evaluator-0"
    )
    assert evaluation.cost == counted


def test_a_failure_travels_whole() -> None:
    failure = pickle.loads(pickle.dumps(OracleFailure("no", stage="scf", retryable=True, cost=0.5)))
    assert (str(failure), failure.stage, failure.retryable, failure.cost) == ("no", "scf", True, 0.5)
