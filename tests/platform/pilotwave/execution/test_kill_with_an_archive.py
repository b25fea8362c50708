"""Killed drivers and an archive: everything arrives there in the end, and a warm start is not repeated."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.project import ProjectArchive
from pilotwave.testing.faulty_oracles import RecordingOracleConfig
from pilotwave.testing.killed_driver import KilledCampaign
from pilotwave.testing.runtime_contract import (
    answers_of,
    assert_same_state,
    campaign,
    final_algorithm_state,
    state_of,
)

SYNCHRONOUS = {"kind": "inline", "evaluators": 2, "mode": "synchronous"}


def kept(folder: Path) -> dict[str, float]:
    with ProjectArchive.open(folder / "archive", read_only=True) as archive:
        rows = archive.table(columns=["query_id", "value", "run_id"]).to_pylist()
    assert len({row["query_id"] for row in rows}) == len(rows)
    return {row["query_id"]: row["value"] for row in rows}


def in_archive(folder: Path, queries: int, **archive: Any) -> KilledCampaign:
    fields = {"archive": {"path": str(folder / "archive"), **archive}}
    return KilledCampaign(folder, SYNCHRONOUS, queries=queries, batch_size=8, delay=0.01, fields=fields)


@pytest.mark.timeout(240)
def test_what_a_killed_driver_did_not_copy_is_copied_on_resume(tmp_path: Path) -> None:
    killed = in_archive(tmp_path, 40)
    with ProjectArchive.create(tmp_path / "archive"):  # while somebody owns it, nothing can be copied
        driver = killed.start()
        deadline = time.monotonic() + 60
        while len(killed.finished()) < 20 and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert driver.poll() is None
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert len(state_of(killed.run_dir).settled) >= 16
    assert not kept(tmp_path)
    # And then it is killed while it copies, or not.
    assert killed.kill_at([28, 36], seed=5, seconds=60) == 2
    killed.run_to_the_end(60)
    assert len(killed.finished()) == len(set(killed.finished())) == 40
    assert kept(tmp_path) == answers_of(killed.run_dir)
    with ProjectArchive.open(tmp_path / "archive") as archive:
        assert archive.verify() == []


@pytest.mark.timeout(240)
def test_a_warm_start_goes_on_bit_for_bit_after_kills(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("undisturbed", "disturbed")]
    runs = []
    for folder in folders:
        # The same earlier campaign for both; its oracle is the one that the drivers will ask.
        folder.mkdir()
        files = {name: folder / name for name in ("started", "finished")}
        oracle = RecordingOracleConfig(**{f"{name}_file": str(path) for name, path in files.items()}, delay=0.01)
        earlier = campaign(oracle, SYNCHRONOUS, queries=24, seed=8, archive={"path": folder / "archive"})
        earlier.run(folder / "earlier")
        for path in files.values():
            path.unlink()
        runs.append(in_archive(folder, 24, reuse="off", warm_start=16))
    undisturbed, disturbed = runs
    undisturbed.run_to_the_end(60)
    # Once the algorithm has begun, what is in the archive does not matter any more.
    assert disturbed.kill_at([1], seed=2, seconds=60) == 1
    shutil.rmtree(folders[1] / "archive")
    assert disturbed.kill_at([19], seed=3, seconds=60) == 1
    disturbed.run_to_the_end(60)

    states = [state_of(item.run_dir) for item in runs]
    assert [len(state.remembered) for state in states] == [16, 16]
    assert states[0].told == states[1].told
    assert answers_of(disturbed.run_dir) == answers_of(undisturbed.run_dir)
    assert_same_state(final_algorithm_state(disturbed.run_dir), final_algorithm_state(undisturbed.run_dir))
    assert "w0001" in states[0].told
    assert len(disturbed.finished()) == 24
    assert kept(folders[1]) == answers_of(disturbed.run_dir)
