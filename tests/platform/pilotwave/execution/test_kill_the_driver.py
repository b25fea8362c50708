"""The driver killed at ten random moments of a 160-query campaign, each time resumed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pilotwave.testing.killed_driver import KilledCampaign
from pilotwave.testing.runtime_contract import answers_of, assert_same_state, final_algorithm_state, state_of

KILLS = 10


@pytest.mark.timeout(600)
def test_nothing_is_lost_and_nothing_paid_for_twice(tmp_path: Path) -> None:
    runtime = {"kind": "inline", "evaluators": 2, "mode": "synchronous"}
    undisturbed = KilledCampaign(tmp_path / "undisturbed", runtime)
    undisturbed.run_to_the_end(300)
    disturbed = KilledCampaign(tmp_path / "disturbed", runtime)
    moments = sorted(random.Random(7).sample(range(1, 155), KILLS))
    assert disturbed.kill_at(moments, seed=7, seconds=120) == KILLS
    disturbed.run_to_the_end(300)

    asked = disturbed.finished()
    assert len(asked) == len(set(asked)) == 160
    assert set(asked) == set(undisturbed.finished())
    assert state_of(disturbed.run_dir).spent == 160
    assert answers_of(disturbed.run_dir) == answers_of(undisturbed.run_dir)
    assert_same_state(final_algorithm_state(disturbed.run_dir), final_algorithm_state(undisturbed.run_dir))
    assert not list((disturbed.run_dir / "receipts").glob("*.json"))


@pytest.mark.timeout(300)
def test_an_asynchronous_campaign_loses_nothing_either(tmp_path: Path) -> None:
    campaign = KilledCampaign(
        tmp_path, {"kind": "inline", "evaluators": 3, "mode": "asynchronous"}, queries=60, batch_size=8
    )
    assert campaign.kill_at([5, 20, 41], seed=1, seconds=120) == 3
    campaign.run_to_the_end(120)
    asked = campaign.finished()
    assert len(asked) == len(set(asked)) == 60
    assert state_of(campaign.run_dir).answered == 60
