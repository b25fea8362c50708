"""Forgetting killed at any moment: the old state or the new one, and whoever comes next finishes the promised."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pilotwave.campaign import Campaign
from pilotwave.execution.receipts import write_receipt
from pilotwave.forgetting.byte_search import files_under, files_with_bytes
from pilotwave.forgetting.forget_run import finish_promised_forgetting, forget
from pilotwave.forgetting.promise import promised_file, read_promise
from pilotwave.forgetting.receipt import check_receipt
from pilotwave.forgetting.selection import ForgetRequest
from pilotwave.report.results import write_results
from pilotwave.testing.killed_child import killed_after, killed_before_touch, spread_moments, touches
from pilotwave.testing.runtime_contract import assert_same_state, state_of
from pilotwave.testing.steered_run import SteeredRun, steer
from pilotwave.types import Evaluation, Status

GONE = ("p0000-03", "p0001-02", "p0002-00")
REQUEST = ForgetRequest(GONE)


class Base:
    """A run to be copied, and what must not be left of it."""

    def __init__(self, run: SteeredRun) -> None:
        self.run = run
        self.never_saw = run.told_without(GONE).state_dict()
        chosen = run.candidates(GONE)
        self.needles = [item.latent.numpy().tobytes() for item in chosen]
        self.needles += [item.noise_sequence[0].numpy().tobytes() for item in chosen]
        self.needles += [query_id.encode() for query_id in GONE]
        self.files = {path.relative_to(run.path): path.read_bytes() for path in files_under(run.path)}

    def copied(self, place: Path) -> SteeredRun:
        shutil.copytree(self.run.path, place)
        return SteeredRun(place, self.run.config, self.run.backbone)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    run = steer(tmp_path_factory.mktemp("base") / "run", batches=3)
    write_receipt(run.path / "receipts", Evaluation(GONE[0], Status.OK, 1.0))
    return Base(run)


@pytest.fixture(scope="module")
def base_with_results(tmp_path_factory: pytest.TempPathFactory) -> Base:
    run = steer(tmp_path_factory.mktemp("results") / "run", batches=3)
    write_results(run.path)
    (run.path / "results" / "export.csv").write_text(f"query_id\n{GONE[0]}\n")
    return Base(run)


def finish(run: SteeredRun) -> None:
    finish_promised_forgetting(run.path)


def forget_another(run: SteeredRun) -> None:
    forget(run.path, ForgetRequest(("p0000-01",)))


def resume(run: SteeredRun) -> None:
    assert Campaign(run.config).resume(run.path).outcome.finished


def check_after_kill(base: Base, run: SteeredRun, next_one: Callable[[SteeredRun], None]) -> bool:
    """Fails unless all is well after a kill; says whether it had been promised."""
    state = state_of(run.path)
    held = [query_id for query_id in GONE if query_id in state.settled]
    assert len(held) in (0, len(GONE))
    assert state.spent == 18
    done = bool(list((run.path / "forgotten").glob("2*.json")))
    promised = read_promise(run.path) is not None
    if not promised and not done:
        left = {path.relative_to(run.path): path.read_bytes() for path in files_under(run.path)}
        ours = {path: content for path, content in left.items() if not path.name.startswith(".")}
        assert ours == {path: content for path, content in base.files.items() if not path.name.startswith(".")}
        forget(run.path, REQUEST)
    else:
        next_one(run)
    state = state_of(run.path)
    assert state.spent == 18
    assert state.forgotten == (4 if next_one is forget_another and (promised or done) else 3)
    assert files_with_bytes(files_under(run.path), base.needles) == []
    assert not [path for path in files_under(run.path) if any(query_id in path.name for query_id in GONE)]
    assert not promised_file(run.path).exists()
    receipts = sorted((run.path / "forgotten").iterdir())
    assert len(receipts) == (2 if next_one is forget_another and (promised or done) else 1)
    (first,) = [fields for fields in map(check_receipt, receipts) if fields["records"] == 3]
    assert first["queries"] == 3
    assert first["files"]["ledger.sqlite"][0] != first["files"]["ledger.sqlite"][1]
    return promised


@pytest.fixture
def next_ones() -> list[Callable[[SteeredRun], None]]:
    return [finish, finish, finish, forget_another]


def test_forty_kills_before_touches_of_the_directory(
    base: Base, tmp_path: Path, next_ones: list[Callable[[SteeredRun], None]]
) -> None:
    counted = base.copied(tmp_path / "counted")
    number = touches(lambda: forget(counted.path, REQUEST), counted.path)
    assert number > 30
    promised = 0
    for place, moment in enumerate(spread_moments(40, number, seed=1)):
        run = base.copied(tmp_path / f"run-{place}")
        assert killed_before_touch(moment, lambda run=run: forget(run.path, REQUEST), run.path)  # type: ignore[misc]
        promised += check_after_kill(base, run, next_ones[place % len(next_ones)])
    assert promised > 10


def test_kills_while_the_results_are_made_anew(base_with_results: Base, tmp_path: Path) -> None:
    counted = base_with_results.copied(tmp_path / "counted")
    number = touches(lambda: forget(counted.path, REQUEST), counted.path)
    moments = [round(share * number) for share in (0.5, 0.65, 0.75, 0.85, 0.95)]
    for place, moment in enumerate(moments):
        run = base_with_results.copied(tmp_path / f"run-{place}")
        assert killed_before_touch(moment, lambda run=run: forget(run.path, REQUEST), run.path)  # type: ignore[misc]
        check_after_kill(base_with_results, run, finish)
        names = {path.name for path in (run.path / "results").iterdir()}
        assert names == {"learning_curve.png", "learning_curve.csv", "evaluations.csv"}


def test_resuming_finishes_and_learns_again(base: Base, tmp_path: Path) -> None:
    promised = 0
    for place, moment in enumerate((12, 24, 36)):
        run = base.copied(tmp_path / f"run-{place}")
        assert killed_before_touch(moment, lambda run=run: forget(run.path, REQUEST), run.path)  # type: ignore[misc]
        promised += check_after_kill(base, run, resume)
        assert_same_state(run.restored().state_dict(), base.never_saw)
    assert promised


def test_the_one_who_finishes_may_be_killed_too(base: Base, tmp_path: Path) -> None:
    run = base.copied(tmp_path / "run")
    moments = spread_moments(12, 40, seed=5)
    random.Random(5).shuffle(moments)
    killed = 0
    for moment in moments:
        killed += killed_before_touch(moment, lambda: _finish_or_forget(run), run.path)
        if not [query_id for query_id in GONE if query_id in state_of(run.path).settled]:
            assert state_of(run.path).forgotten == 3
    assert killed >= 3
    _finish_or_forget(run)
    assert files_with_bytes(files_under(run.path), base.needles) == []
    assert state_of(run.path).forgotten == 3
    assert_same_state(run.restored().state_dict(), base.never_saw)


def _finish_or_forget(run: SteeredRun) -> None:
    finish_promised_forgetting(run.path)
    if any(query_id in state_of(run.path).settled for query_id in GONE):
        forget(run.path, REQUEST)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_kills_at_random_times(base_with_results: Base, tmp_path: Path) -> None:
    counted = base_with_results.copied(tmp_path / "counted")
    began = time.monotonic()
    touches(lambda: forget(counted.path, REQUEST), counted.path)
    lasted = time.monotonic() - began
    moments = random.Random(11)
    killed = promised = 0
    for place in range(200):
        run = base_with_results.copied(tmp_path / f"run-{place}")
        if killed_after(moments.uniform(0, lasted), lambda run=run: forget(run.path, REQUEST)):  # type: ignore[misc]
            killed += 1
            promised += check_after_kill(base_with_results, run, finish)
        shutil.rmtree(run.path)
    assert killed >= 150
    assert promised >= 20
