"""A project archive and campaigns on Ray: the optimizer actor reads and writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave.archive.project import ProjectArchive
from pilotwave.testing.faulty_oracles import RecordingOracleConfig
from pilotwave.testing.runtime_contract import answers_of, campaign, state_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def test_campaigns_on_ray_share_what_they_paid_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    oracle = RecordingOracleConfig(started_file=tmp_path / "started", finished_file=tmp_path / "finished")
    runtime = {"kind": "ray", "evaluators": 2, "mode": "synchronous"}
    # A relative path means the same to the driver and to the actor.
    one = campaign(oracle, runtime, queries=16, archive={"path": "memory"})
    assert one.run(tmp_path / "one").outcome.finished
    two = campaign(oracle, runtime, queries=20, archive={"path": "memory", "warm_start": 0})
    assert two.run(tmp_path / "two").outcome.finished
    state = state_of(tmp_path / "two")
    assert (state.spent, state.reused) == (20, 16)
    assert len((tmp_path / "finished").read_text().split()) == 36
    with ProjectArchive.open(tmp_path / "memory", read_only=True) as archive:
        assert len(archive) == 36

    warm = campaign(
        oracle, runtime, queries=8, seed=9, archive={"path": "memory", "reuse": "off", "warm_start": 10}
    )
    assert warm.run(tmp_path / "warm").outcome.finished
    state = state_of(tmp_path / "warm")
    assert (state.spent, len(state.remembered), len(answers_of(tmp_path / "warm"))) == (8, 10, 8)
