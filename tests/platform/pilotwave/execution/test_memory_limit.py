"""What oracles may hold in memory: real processes that take too much, leak, or start others that do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pilotwave.errors import InfrastructureError
from pilotwave.execution.oracle_process import OracleProcess
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.types import Evaluation, Status

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is watched on Linux only")
SAMPLE = ArraySample(np.array([0.25, 0.5], dtype=np.float32))
MIB = 2**20
Opener = Callable[[FaultyOracleConfig], OracleProcess]


@pytest.fixture
def opened() -> Iterator[Opener]:
    hosts: list[OracleProcess] = []

    def open_host(config: FaultyOracleConfig) -> OracleProcess:
        hosts.append(OracleProcess(config, name="tested"))
        return hosts[-1]

    yield open_host
    for host in hosts:
        host.close()


def ask(host: OracleProcess, query_id: str = "q") -> Evaluation:
    return host.evaluate(SAMPLE, QueryContext(query_id, 1), 60.0)


def base() -> int:
    """What the oracle holds before it takes anything."""
    host = OracleProcess(FaultyOracleConfig())
    try:
        ask(host)
        assert host._worker is not None
        return host._worker.memory()
    finally:
        host.close()


@pytest.mark.parametrize(
    ("given", "expected"),
    [("4 GiB", 4 * 2**30), ("500MB", 500_000_000), ("1.5 GiB", 3 * 2**29), (12345, 12345), (" 2 tib ", 2**41)],
)
def test_it_is_given_in_bytes_or_in_words(given: object, expected: int) -> None:
    assert FaultyOracleConfig.model_validate({"memory_limit": given}).memory_limit == expected


@pytest.mark.parametrize("given", ["much", "4 GiBs", 0, -1, "0 GB", True, 1.5, "4"])
def test_anything_else_is_refused_in_one_line(given: object) -> None:
    with pytest.raises(ValidationError, match="such as 4 GiB or 500 MB"):
        FaultyOracleConfig.model_validate({"memory_limit": given})


def test_a_thread_cannot_be_held_to_it() -> None:
    with pytest.raises(ValidationError, match="choose isolation: process, or remove it"):
        FaultyOracleConfig(memory_limit=MIB, isolation="thread")


def test_taking_too_much_costs_the_attempt_and_says_so(opened: Opener) -> None:
    limit = base() + 100 * MIB
    host = opened(FaultyOracleConfig(fault="out of memory", every=2, megabytes=300, memory_limit=limit))
    assert ask(host).status is Status.OK
    evaluation = ask(host)
    assert evaluation.status is Status.FAILED
    assert evaluation.failure is not None
    assert (evaluation.failure.stage, evaluation.failure.retryable) == ("memory limit", True)
    assert f"more than the {limit / MIB:.0f} MiB of its memory_limit" in evaluation.failure.message
    assert evaluation.cost == 1.0
    assert ask(host).status is Status.OK


def test_below_it_nothing_happens(opened: Opener) -> None:
    host = opened(FaultyOracleConfig(fault="out of memory", megabytes=50, memory_limit=base() + 200 * MIB))
    assert ask(host).status is Status.OK


def test_a_slow_leak_costs_a_restart_between_questions_and_no_attempt(opened: Opener, tmp_path: Path) -> None:
    limit = base() + 400 * MIB
    host = opened(FaultyOracleConfig(fault="leak", megabytes=40, memory_limit=limit, pid_file=tmp_path / "pids"))
    assert [ask(host).status for _ in range(24)] == [Status.OK] * 24
    assert 2 <= len((tmp_path / "pids").read_text().split()) <= 4


def test_a_process_that_is_big_from_the_start_is_left_alone(opened: Opener, tmp_path: Path) -> None:
    big = FaultyOracleConfig(fault="leak", at_build=True, every=1000, megabytes=180, pid_file=tmp_path / "pids")
    host = opened(big.model_copy(update={"memory_limit": base() + 200 * MIB}))
    assert [ask(host).status for _ in range(5)] == [Status.OK] * 5
    assert len((tmp_path / "pids").read_text().split()) == 1


def test_the_programs_that_an_oracle_starts_count_too(opened: Opener) -> None:
    host = opened(FaultyOracleConfig(fault="big program", megabytes=300, memory_limit=base() + 150 * MIB))
    evaluation = ask(host)
    assert evaluation.failure is not None
    assert evaluation.failure.stage == "memory limit"


def test_an_oracle_that_takes_too_much_when_it_is_built_cannot_be_started(opened: Opener) -> None:
    limit = base() + 100 * MIB
    host = opened(FaultyOracleConfig(fault="out of memory", at_build=True, megabytes=300, memory_limit=limit))
    with pytest.raises(InfrastructureError, match=r"could not be started: .* of its memory_limit"):
        host.start()
