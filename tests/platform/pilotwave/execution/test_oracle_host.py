"""Oracles asked in the caller's thread; and which host a configuration gets."""

import logging
from pathlib import Path

import numpy as np
import pytest

from pilotwave.errors import InputError, PreflightError
from pilotwave.execution.oracle_host import ThreadOracle, open_oracle_host
from pilotwave.execution.oracle_process import OracleProcess
from pilotwave.execution.receipts import read_receipts
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample
from pilotwave.testing.faulty_oracles import FaultyOracleConfig, RecordingOracleConfig
from pilotwave.types import Status

SAMPLE = ArraySample(np.array([0.25, 0.5], dtype=np.float32))


def test_isolation_chooses_the_host(tmp_path: Path) -> None:
    thread = open_oracle_host(FaultyOracleConfig(isolation="thread", time_limit=5), tmp_path, "evaluator-1")
    process = open_oracle_host(FaultyOracleConfig(time_limit=7), tmp_path, "evaluator-2")
    assert isinstance(thread, ThreadOracle)
    assert isinstance(process, OracleProcess)
    assert [(host.name, host.time_limit) for host in (thread, process)] == [("evaluator-1", 5), ("evaluator-2", 7)]


def test_answers_failures_and_receipts_are_as_in_a_process(tmp_path: Path) -> None:
    host = ThreadOracle(FaultyOracleConfig(fault="raise", every=2), receipts_dir=tmp_path)
    answers = [host.evaluate(SAMPLE, QueryContext(query_id)) for query_id in ("a", "b")]
    assert [answer.status for answer in answers] == [Status.OK, Status.FAILED]
    assert answers[1].failure is not None
    assert (answers[1].failure.stage, answers[1].failure.retryable) == ("injected", True)
    assert read_receipts(tmp_path) == answers


def test_a_late_answer_counts_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    host = ThreadOracle(FaultyOracleConfig(delay=0.05, seed=1))
    with caplog.at_level(logging.WARNING):
        evaluation = host.evaluate(SAMPLE, QueryContext("q"), time_limit=1e-6)
    assert evaluation.value == 0.75
    assert evaluation.properties["seconds_over_time_limit"] > 0
    assert "cannot enforce" in caplog.text


def test_preflight_compares_with_the_known_answer(tmp_path: Path) -> None:
    host = ThreadOracle(FaultyOracleConfig(), receipts_dir=tmp_path)
    evaluation = host.preflight()
    assert evaluation is not None
    assert (evaluation.value, list(tmp_path.glob("*.json"))) == (3.0, [])
    with pytest.raises(PreflightError, match=r"expected 3 .* got 1003"):
        ThreadOracle(FaultyOracleConfig(fault="wrong answer")).preflight()


def test_an_oracle_without_a_known_answer_has_no_preflight(tmp_path: Path) -> None:
    config = RecordingOracleConfig(started_file=tmp_path / "started", finished_file=tmp_path / "finished")
    assert ThreadOracle(config).preflight() is None
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize(
    ("fault", "words"), [("refuse", "expected a licence"), ("bug", "could not be built: KeyError")]
)
def test_an_oracle_that_cannot_be_built_says_why(fault: str, words: str) -> None:
    host = ThreadOracle(FaultyOracleConfig(fault=fault, at_build=True))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=words):
        host.start()
    evaluation = host.evaluate(SAMPLE, QueryContext("q"))
    assert evaluation.failure is not None
    assert (evaluation.failure.stage, evaluation.cost) == ("start", 0.0)


def test_after_closing_questions_are_cancelled() -> None:
    host = ThreadOracle(FaultyOracleConfig())
    host.close()
    host.close()
    assert host.evaluate(SAMPLE, QueryContext("q")).status is Status.CANCELLED


def test_the_recording_oracle_writes_start_and_end_of_each_question(tmp_path: Path) -> None:
    config = RecordingOracleConfig(started_file=tmp_path / "started", finished_file=tmp_path / "finished")
    host = ThreadOracle(config)
    for query_id in ("p0000-00", "p0000-01"):
        assert host.evaluate(SAMPLE, QueryContext(query_id)).value == 0.75
    assert (tmp_path / "started").read_text() == (tmp_path / "finished").read_text() == "p0000-00\np0000-01\n"
