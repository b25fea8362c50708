"""The contract suite passes honest oracles and catches each kind of dishonest one."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from pilotwave.config.components import OracleConfig
from pilotwave.errors import PreflightError
from pilotwave.execution.callable_oracle import CallableOracleConfig
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample, Sample
from pilotwave.testing.faulty_oracles import FaultyOracleConfig, RecordingOracleConfig, score
from pilotwave.testing.oracle_contract import OracleContract, one_of_each_media


class TestHonestOracle(OracleContract):
    def config(self) -> OracleConfig:
        return FaultyOracleConfig()

    def samples(self) -> list[Sample]:
        return list(one_of_each_media().values())


class TestRecordingOracle(OracleContract):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def config(self) -> OracleConfig:
        return RecordingOracleConfig(started_file=self.folder / "started", finished_file=self.folder / "finished")

    def samples(self) -> list[Sample]:
        return list(one_of_each_media().values())


def contract_of(config: OracleConfig) -> OracleContract:
    class Contract(OracleContract):
        def config(self) -> OracleConfig:
            return config

        def samples(self) -> list[Sample]:
            return [ArraySample(np.array([1.0, 2.0], dtype=np.float32))]

        def garbage(self) -> list[Sample]:
            return self.samples()

    return Contract()


NUMBERS = itertools.count()


def counting(sample: Sample) -> float:
    return float(next(NUMBERS))


def test_a_wrong_known_answer_is_caught() -> None:
    contract = contract_of(FaultyOracleConfig(fault="wrong answer"))
    with pytest.raises(PreflightError):
        contract.test_the_known_answer_holds(contract.config().build())


def test_a_false_claim_of_determinism_is_caught() -> None:
    contract = contract_of(CallableOracleConfig(function=counting))
    with pytest.raises(AssertionError):
        contract.test_the_same_question_gets_the_same_answer_if_that_is_claimed(contract.config().build())


def test_an_exception_that_is_no_oracle_failure_is_caught() -> None:
    contract = contract_of(FaultyOracleConfig(fault="bug"))
    with pytest.raises(KeyError):
        contract.test_garbage_is_answered_or_fails_with_a_stage(contract.config().build())


def test_a_sample_that_was_changed_is_caught() -> None:
    def meddle(sample: ArraySample) -> float:
        sample.array[:] = 7.0
        return 1.0

    contract = contract_of(CallableOracleConfig(function=meddle))
    with pytest.raises(AssertionError):
        contract.test_the_sample_is_left_as_it_was(contract.config().build())


def test_every_kind_of_sample_gets_a_finite_score() -> None:
    samples = [*one_of_each_media().values(), ArraySample(np.array([np.nan], dtype=np.float32))]
    scores = [score(sample) for sample in samples]
    assert np.isfinite(scores).all()
    assert len(set(scores)) == len(scores)
    assert scores == [score(sample) for sample in samples]


def test_random_pauses_are_fixed_by_seed_query_and_attempt() -> None:
    from pilotwave.testing.faulty_oracles import _pause

    config = FaultyOracleConfig(delay=1.0, seed=5)
    contexts = [QueryContext("a"), QueryContext("b"), QueryContext("a", 2)]
    pauses = [_pause(config, context) for context in contexts]
    assert pauses == [_pause(config, context) for context in contexts]
    assert len(set(pauses)) == 3
    assert all(0.0 <= pause <= 2.0 for pause in pauses)
    assert pauses != [_pause(FaultyOracleConfig(delay=1.0, seed=6), context) for context in contexts]
