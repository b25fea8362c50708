"""The driver of a Ray campaign killed and resumed; its private cluster, actors and oracles die with it."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from pilotwave.testing.killed_driver import KilledCampaign
from pilotwave.testing.runtime_contract import answers_of, assert_same_state, final_algorithm_state, state_of

pytestmark = pytest.mark.ray


def ray_workers() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            title = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError, PermissionError):
            continue
        if entry.name.isdigit() and title.startswith((b"ray::Evaluator", b"ray::Generator", b"ray::Optimizer")):
            found.add(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_and_nothing_paid_for_twice_on_ray(tmp_path: Path) -> None:
    kills = 10
    before = ray_workers()
    undisturbed = KilledCampaign(tmp_path / "undisturbed", {"kind": "inline", "mode": "synchronous"})
    undisturbed.run_to_the_end(300)
    disturbed = KilledCampaign(tmp_path / "disturbed", {"kind": "ray", "mode": "synchronous"}, delay=0.05)
    moments = sorted(random.Random(11).sample(range(1, 155), kills))
    assert disturbed.kill_at(moments, seed=11, seconds=120) == kills
    disturbed.run_to_the_end(300)

    asked = disturbed.finished()
    assert len(asked) == len(set(asked)) == 160
    assert state_of(disturbed.run_dir).spent == 160
    assert answers_of(disturbed.run_dir) == answers_of(undisturbed.run_dir)
    assert_same_state(final_algorithm_state(disturbed.run_dir), final_algorithm_state(undisturbed.run_dir))
    deadline = time.monotonic() + 30
    while ray_workers() - before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not ray_workers() - before


@pytest.mark.timeout(300)
def test_one_kill_in_the_middle_of_a_ray_campaign(tmp_path: Path) -> None:
    campaign = KilledCampaign(
        tmp_path, {"kind": "ray", "mode": "synchronous"}, queries=24, batch_size=8, delay=0.05
    )
    assert campaign.kill_at([11], seed=2, seconds=120) == 1
    campaign.run_to_the_end(200)
    asked = campaign.finished()
    assert len(asked) == len(set(asked)) == 24
