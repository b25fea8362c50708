"""The inline runtime's evaluators come with the backlog and go when they are idle."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave.archive.run_directory import RunDirectory
from pilotwave.config.loading import check_campaign
from pilotwave.errors import ConfigError
from pilotwave.execution.job import Progress
from pilotwave.testing.control_contract import commanded, send
from pilotwave.testing.faulty_oracles import FaultyOracleConfig, RecordingOracleConfig
from pilotwave.testing.small_campaign import campaign, state_of, wait_for

ELASTIC = {"kind": "inline", "evaluators": 3, "evaluators_min": 1, "evaluators_idle_seconds": 0.3}


def test_it_grows_shrinks_and_loses_nothing(tmp_path: Path) -> None:
    def orders(run: RunDirectory) -> None:
        wait_for(lambda: seen[-1].evaluators == 3)
        send(run, "pause")
        wait_for(lambda: seen[-1].evaluators == 1)
        send(run, "resume")

    seen: list[Progress] = []
    oracle = RecordingOracleConfig(
        started_file=tmp_path / "started", finished_file=tmp_path / "finished", delay=0.5, attempts=1
    )
    job = campaign(oracle, ELASTIC, queries=32, batch_size=8)
    run = job.run
    job.run = lambda run_dir: run(run_dir, observe=seen.append)  # type: ignore[method-assign]
    result = commanded(job, tmp_path / "run", orders)
    assert (result.outcome.finished, result.outcome.spent) == (True, 32)
    assert max(progress.evaluators for progress in seen) == 3
    assert all(0 <= progress.utilisation <= 1 for progress in seen)
    asked = (tmp_path / "finished").read_text().split()
    assert len(asked) == len(set(asked)) == 32
    assert state_of(result.run_dir).attempted == 0


def test_a_minimum_above_the_maximum_is_one_line() -> None:
    fields = {
        "backbone": {"kind": "analytic"},
        "oracle": FaultyOracleConfig(),
        "algorithm": {"kind": "random"},
        "budget": {"queries": 16},
        "runtime": {"kind": "inline", "evaluators": 2, "evaluators_min": 3},
    }
    with pytest.raises(ConfigError, match=r"evaluators_min of at most evaluators \(2\), got 3"):
        check_campaign(fields)
