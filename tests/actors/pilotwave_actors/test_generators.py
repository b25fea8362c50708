"""Several generator actors: they work side by side, and one that is killed costs its proposal's repetition."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.campaign import Campaign, CampaignResult
from pilotwave.config.given import GivenBackboneConfig
from pilotwave.config.loading import check_campaign
from pilotwave.errors import ConfigError, InputError
from pilotwave.testing.actor_processes import pids_of_actor
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.limited_networks import slowed_down
from pilotwave.testing.small_campaign import campaign, state_of, wait_for
from pilotwave.testing.small_networks import small_image_backbone
from pilotwave_actors.capacity import share_of_gpus


def with_a_slow_model(runtime: dict[str, Any], *, queries: int) -> Campaign:
    """Returns a campaign whose model takes 0.3 s for a proposal of four, and whose oracle takes no time."""
    job = campaign(FaultyOracleConfig(), runtime, queries=queries, batch_size=4, algorithm={"kind": "random"})
    backbone = small_image_backbone(steps=2)
    slowed_down(backbone.denoiser, 0.15)
    job.config = job.config.model_copy(update={"backbone": GivenBackboneConfig.of(backbone)})
    return job


def makers(run_dir: Path) -> set[str]:
    with Ledger.open(run_dir / "ledger.sqlite", read_only=True) as ledger:
        return {event.record["worker"] for event in ledger.events() if event.kind is EventKind.GENERATED}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_generators_work_side_by_side_and_one_that_is_killed_costs_a_repetition(tmp_path: Path) -> None:
    job = with_a_slow_model({"kind": "ray", "evaluators": 2, "generators": 2}, queries=64)
    results: list[CampaignResult] = []
    thread = threading.Thread(target=lambda: results.append(job.run(tmp_path / "run")))
    thread.start()
    wait_for(
        lambda: (tmp_path / "run" / "ledger.sqlite").exists() and state_of(tmp_path / "run").answered >= 12, 120
    )
    first, second = pids_of_actor("Generator")
    assert first != second
    os.kill(first, signal.SIGKILL)
    thread.join(180)
    assert results
    state = state_of(tmp_path / "run")
    assert (state.spent, state.answered) == (64, 64)
    assert all(item.generated for item in state.proposals.values())
    assert makers(tmp_path / "run") == {"generator-0", "generator-1"}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_the_only_generator_is_waited_for_when_it_is_killed_again_and_again(tmp_path: Path) -> None:
    job = with_a_slow_model({"kind": "ray", "evaluators": 2}, queries=24)
    results: list[CampaignResult] = []
    thread = threading.Thread(target=lambda: results.append(job.run(tmp_path / "run")))
    thread.start()
    for answered in (4, 12):
        wait_for(
            lambda answered=answered: (
                (tmp_path / "run" / "ledger.sqlite").exists() and state_of(tmp_path / "run").answered >= answered
            ),
            120,
        )
        wait_for(lambda: len(pids_of_actor("Generator")) == 1)
        os.kill(pids_of_actor("Generator")[0], signal.SIGKILL)
        time.sleep(0.2)
    thread.join(180)
    assert results
    assert state_of(tmp_path / "run").answered == 24


@pytest.mark.parametrize(
    ("generators", "gpus", "taken", "share"),
    [
        (1, 0.0, 0.0, 0.0),
        (1, 1.0, 0.0, 1.0),
        (8, 8.0, 0.0, 1.0),
        (2, 8.0, 0.0, 1.0),
        (2, 1.0, 0.0, 0.5),
        (3, 1.0, 0.0, 0.3333),
        (3, 2.0, 0.0, 0.5),
        (1, 1.0, 0.5, 0.5),
        (2, 2.0, 1.0, 0.5),
        (2, 1.0, 1.0, 0.5),  # does not fit, and the check of capacity says so
    ],
)
def test_gpus_are_shared_fairly(generators: int, gpus: float, taken: float, share: float) -> None:
    assert share_of_gpus(generators, gpus, taken) == pytest.approx(share)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"generators": 0}, "greater than or equal to 1"),
        ({"generator_gpus": 1.5}, "a share of at most 1, or a whole number"),
        ({"generator_gpus": -1}, "greater than or equal to 0"),
        ({"generator_resources": {"GPU": 1}}, "GPU is set by runtime.generator_gpus"),
        ({"generator_resources": {"a100": -1}}, "expected amounts of at least 0"),
    ],
)
def test_wrong_settings_are_one_line(settings: dict[str, Any], words: str) -> None:
    fields = {
        "backbone": {"kind": "analytic"},
        "oracle": FaultyOracleConfig(),
        "algorithm": {"kind": "random"},
        "budget": {"queries": 16},
        "runtime": {"kind": "ray", **settings},
    }
    with pytest.raises(ConfigError, match=words):
        check_campaign(fields)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_generators_that_no_node_has_room_for_are_said_at_once(tmp_path: Path) -> None:
    greedy = campaign(
        FaultyOracleConfig(), {"kind": "ray", "evaluators": 1, "generators": 40, "generator_gpus": 0.5}
    )
    with pytest.raises(InputError, match=r"no node .* a generator needs .*GPU 0.5.*runtime.generator_gpus"):
        greedy.run(tmp_path / "gpu")
    many = campaign(FaultyOracleConfig(), {"kind": "ray", "evaluators": 1, "generators": 40})
    with pytest.raises(InputError, match=r"room for 5 of 40 .*\(a generator\); lower runtime.generators"):
        many.run(tmp_path / "many")
