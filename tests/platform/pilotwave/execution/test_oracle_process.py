"""Oracles that hang, crash, exit, print and orphan, in real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from pilotwave.errors import InfrastructureError, InputError, PreflightError
from pilotwave.execution.oracle_process import OracleProcess
from pilotwave.execution.receipts import read_receipts, write_receipt
from pilotwave.execution.worker_process import SINGLE_THREADED, WorkerProcess
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.types import Evaluation, Status

SAMPLE = ArraySample(np.array([0.25, 0.5], dtype=np.float32))
Opener = Callable[..., OracleProcess]


@pytest.fixture
def opened() -> Iterator[Opener]:
    hosts: list[OracleProcess] = []

    def open_host(config: FaultyOracleConfig, **options: object) -> OracleProcess:
        host = OracleProcess(config, name="tested", **options)  # type: ignore[arg-type]
        hosts.append(host)
        return host

    yield open_host
    for host in hosts:
        host.close()


def ask(host: OracleProcess, query_id: str = "q", time_limit: float | None = None) -> Evaluation:
    return host.evaluate(SAMPLE, QueryContext(query_id, 1), time_limit)


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_an_answer_comes_with_its_value_worker_and_times(opened: Opener) -> None:
    host = opened(FaultyOracleConfig())
    identity = host.start()
    evaluation = ask(host, "p0000-03")
    assert (identity.name, identity.version, identity.deterministic) == ("faulty", "1", True)
    assert (evaluation.query_id, evaluation.status, evaluation.value) == ("p0000-03", Status.OK, 0.75)
    assert (evaluation.worker, evaluation.attempt, evaluation.cost) == ("tested", 1, 1.0)
    assert evaluation.timings is not None
    assert 0 < evaluation.timings.started <= evaluation.timings.finished


def test_exceptions_of_the_oracle_leave_the_process_alive(opened: Opener, tmp_path: Path) -> None:
    host = opened(FaultyOracleConfig(fault="raise", every=2, pid_file=tmp_path / "pids"))
    statuses = [ask(host).status for _ in range(4)]
    assert statuses == [Status.OK, Status.FAILED, Status.OK, Status.FAILED]
    assert len(pids(tmp_path / "pids")) == 1
    failure = ask(host) and ask(host).failure
    assert failure is not None
    assert (failure.stage, failure.retryable) == ("injected", True)


@pytest.mark.parametrize(("fault", "words"), [("bug", "KeyError"), ("not a number", "must be finite")])
def test_a_bug_or_nan_is_a_failure_that_is_not_retried(opened: Opener, fault: str, words: str) -> None:
    evaluation = ask(opened(FaultyOracleConfig(fault=fault)))
    assert evaluation.status is Status.FAILED
    assert evaluation.failure is not None
    assert words in evaluation.failure.message
    assert (evaluation.failure.stage, evaluation.failure.retryable) == ("oracle", False)


def test_a_hang_is_killed_at_the_limit_and_the_next_question_answered(opened: Opener, tmp_path: Path) -> None:
    host = opened(FaultyOracleConfig(fault="hang", every=2, pid_file=tmp_path / "pids"))
    assert ask(host).status is Status.OK
    evaluation = ask(host, time_limit=0.3)
    assert evaluation.status is Status.TIMED_OUT
    assert evaluation.failure is not None
    assert evaluation.failure.stage == "wall-clock limit"
    assert wait_until(lambda: is_gone(pids(tmp_path / "pids")[0]))
    assert ask(host).status is Status.OK
    assert len(pids(tmp_path / "pids")) == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [("segfault", ["SIGSEGV", "about to crash"]), ("exit 137", ["137", "out of memory?"])],
)
def test_a_crash_is_a_retryable_failure_that_says_how(opened: Opener, fault: str, words: list[str]) -> None:
    host = opened(FaultyOracleConfig(fault=fault, every=2))
    assert ask(host).status is Status.OK
    evaluation = ask(host)
    assert evaluation.status is Status.FAILED
    assert evaluation.failure is not None
    assert (evaluation.failure.stage, evaluation.failure.retryable) == ("worker", True)
    assert all(word in evaluation.failure.message for word in words)
    assert ask(host).status is Status.OK


def test_a_kill_from_outside_is_told_as_such(opened: Opener, tmp_path: Path) -> None:
    host = opened(FaultyOracleConfig(delay=5.0, seed=3, pid_file=tmp_path / "pids"))
    host.start()
    (pid,) = pids(tmp_path / "pids")
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    failure = ask(host).failure
    assert failure is not None
    assert "SIGKILL (out of memory?)" in failure.message


def test_garbage_in_the_channel_costs_the_attempt_and_nothing_hangs(opened: Opener) -> None:
    host = opened(FaultyOracleConfig(fault="garbage", every=2))
    assert ask(host).status is Status.OK
    evaluation = ask(host)
    assert evaluation.failure is not None
    assert (evaluation.failure.stage, evaluation.failure.retryable) == ("worker", True)
    assert "garbage" in evaluation.failure.message
    assert "Segmentation" in evaluation.failure.message
    assert ask(host).status is Status.OK


def test_a_process_that_died_between_questions_costs_no_attempt(opened: Opener, tmp_path: Path) -> None:
    host = opened(FaultyOracleConfig(pid_file=tmp_path / "pids"))
    assert ask(host).status is Status.OK
    os.kill(pids(tmp_path / "pids")[0], signal.SIGKILL)
    guard_ended = host._worker
    assert guard_ended is not None
    assert wait_until(lambda: not guard_ended.is_alive())
    assert ask(host).status is Status.OK
    assert len(pids(tmp_path / "pids")) == 2


def test_prints_neither_corrupt_an_answer_nor_fill_a_pipe(opened: Opener) -> None:
    host = opened(FaultyOracleConfig(fault="print"))
    assert [ask(host).value for _ in range(2)] == [0.75, 0.75]
    assert wait_until(lambda: "straight to the descriptor" in host.recent_output())
    assert len(host.recent_output()) <= 200


def test_what_a_crashed_oracle_had_started_is_killed_too(opened: Opener, tmp_path: Path) -> None:
    host = opened(FaultyOracleConfig(fault="orphan", pid_file=tmp_path / "pids"))
    assert ask(host).status is Status.FAILED
    worker, orphan = pids(tmp_path / "pids")
    assert wait_until(lambda: is_gone(worker) and is_gone(orphan))


def test_the_process_is_replaced_after_so_many_answers(opened: Opener, tmp_path: Path) -> None:
    host = opened(FaultyOracleConfig(pid_file=tmp_path / "pids", recycle_after=2))
    assert all(ask(host).status is Status.OK for _ in range(4))
    first, second = pids(tmp_path / "pids")
    assert first != second
    assert wait_until(lambda: is_gone(first))


def test_preflight_passes_and_leaves_no_receipt(opened: Opener, tmp_path: Path) -> None:
    host = opened(FaultyOracleConfig(), receipts_dir=tmp_path)
    evaluation = host.preflight()
    assert evaluation is not None
    assert evaluation.value == 3.0
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [("wrong answer", ["expected 3", "got 1003"]), ("raise", ["injected"]), ("segfault", ["SIGSEGV"])],
)
def test_a_failed_preflight_says_what_came_in_one_line(opened: Opener, fault: str, words: list[str]) -> None:
    with pytest.raises(PreflightError) as caught:
        opened(FaultyOracleConfig(fault=fault)).preflight()
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_the_receipt_is_there_before_the_answer(opened: Opener, tmp_path: Path) -> None:
    host = opened(FaultyOracleConfig(fault="raise", every=2), receipts_dir=tmp_path)
    answers = [ask(host, "a"), ask(host, "b")]
    assert read_receipts(tmp_path) == answers


@pytest.mark.parametrize("fault", ["hang", "segfault"])
def test_an_answer_whose_receipt_is_there_counts_though_the_reply_never_came(
    opened: Opener, tmp_path: Path, fault: str
) -> None:
    paid = Evaluation("q", Status.OK, 42.0, worker="tested")
    write_receipt(tmp_path, paid)
    host = opened(FaultyOracleConfig(fault=fault), receipts_dir=tmp_path)
    assert ask(host, "q", time_limit=0.5) == paid
    assert ask(host, "another", time_limit=0.5).value is None


def test_closing_cancels_the_question_in_progress_and_all_later_ones(opened: Opener, tmp_path: Path) -> None:
    host = opened(FaultyOracleConfig(fault="hang", pid_file=tmp_path / "pids"))
    host.start()
    threading.Timer(0.3, host.close).start()
    assert ask(host).status is Status.CANCELLED
    assert ask(host).status is Status.CANCELLED
    host.close()
    assert wait_until(lambda: is_gone(pids(tmp_path / "pids")[0]))
    assert len(pids(tmp_path / "pids")) == 1


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("refuse", InputError, "^expected a licence, found none; buy one$"),
        ("bug", InputError, "could not be built: KeyError"),
        ("segfault", InfrastructureError, "could not be started: .*SIGSEGV.*about to crash"),
        ("hang", InfrastructureError, "not ready within 0.5 s"),
    ],
)
def test_an_oracle_that_cannot_be_built_says_why(
    opened: Opener, fault: str, error: type[Exception], words: str
) -> None:
    host = opened(FaultyOracleConfig(fault=fault, at_build=True), start_limit=0.5 if fault == "hang" else 60.0)
    with pytest.raises(error, match=words):
        host.start()


def test_an_oracle_that_is_killed_while_it_starts_is_started_once_more(opened: Opener, tmp_path: Path) -> None:
    slow = FaultyOracleConfig(fault="hang", at_build=True, pid_file=tmp_path / "pids")
    host = opened(slow, start_limit=5.0)

    def kill() -> None:
        assert wait_until(lambda: len(pids(tmp_path / "pids")) == 1)
        os.kill(pids(tmp_path / "pids")[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InfrastructureError, match="was not ready within 5 s"):
        host.start()
    killer.join()
    assert len(pids(tmp_path / "pids")) == 2


def test_a_question_to_an_oracle_that_cannot_be_built_fails_and_may_be_tried_again(opened: Opener) -> None:
    evaluation = ask(opened(FaultyOracleConfig(fault="refuse", at_build=True)))
    assert evaluation.failure is not None
    assert (evaluation.status, evaluation.failure.stage) == (Status.FAILED, "start")
    assert evaluation.failure.retryable
    assert (evaluation.cost, evaluation.timings) == (0.0, None)


def test_a_worker_is_killed_at_once_however_young_it_is() -> None:
    for pause in (0.0, 0.02, 0.05, 0.1):
        worker = WorkerProcess("young", SINGLE_THREADED)
        time.sleep(pause)
        worker.kill()
        # The guard reported how the worker ended, so it did not have to be killed for taking too long.
        assert worker._last_words()[0] is not None
        worker.close()


def test_a_source_that_does_not_pickle_is_refused_before_anything_starts() -> None:
    with pytest.raises(InputError, match="isolation: thread"):
        OracleProcess(lambda: FaultyOracleConfig().build())


def test_a_plain_function_is_a_source_too_and_numerical_libraries_get_one_thread() -> None:
    host = OracleProcess(partial(FaultyOracleConfig(fault="none").build), environment={"MARK": "here"})
    try:
        host.start()
        children = psutil.Process().children(recursive=True)  # a cluster of other tests may be among them
        guarded = [child for child in children if any("oracle_guard" in word for word in child.cmdline())]
        (worker,) = (child for child in guarded if child.children() == [])
        environment = worker.environ()
        assert (environment["OMP_NUM_THREADS"], environment["MARK"]) == ("1", "here")
        assert ask(host).value == 0.75
    finally:
        host.close()


DRIVER = """
import sys, threading
from pathlib import Path
import numpy as np
from pilotwave.execution.oracle_process import OracleProcess
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample
from pilotwave.testing.faulty_oracles import FaultyOracleConfig

def ask(number):
    config = FaultyOracleConfig(fault="hang", every=2, pid_file=Path(sys.argv[1]))
    host = OracleProcess(config, receipts_dir=Path(sys.argv[2]))
    for attempt in (1, 2):
        host.evaluate(ArraySample(np.ones(1, dtype=np.float32)), QueryContext(f"q{number}", attempt))

for number in range(2):
    threading.Thread(target=ask, args=(number,)).start()
"""


def test_when_the_driver_is_killed_its_oracles_die_and_the_receipts_stay(tmp_path: Path) -> None:
    receipts = tmp_path / "receipts"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, tmp_path / "pids", receipts])
    try:
        assert wait_until(lambda: len(read_receipts(receipts)) == 2, 60.0)
        family = psutil.Process(driver.pid).children(recursive=True)
        assert {child.pid for child in family} >= set(pids(tmp_path / "pids"))
        driver.kill()
        driver.wait()
        assert wait_until(lambda: all(is_gone(child.pid) for child in family))
    finally:
        driver.kill()
    answers = [(answer.query_id, answer.attempt, answer.value) for answer in read_receipts(receipts)]
    assert answers == [("q0", 1, 1.0), ("q1", 1, 1.0)]


def test_an_oracle_outlives_the_thread_that_started_it(opened: Opener, tmp_path: Path) -> None:
    host = opened(FaultyOracleConfig(pid_file=tmp_path / "pids"))
    starter = threading.Thread(target=host.start)
    starter.start()
    starter.join()
    assert ask(host).status is Status.OK
    assert len(pids(tmp_path / "pids")) == 1
