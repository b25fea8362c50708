from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pilotwave.campaign import CampaignResult
from pilotwave.config.loading import check_campaign
from pilotwave.errors import ConfigError, InfrastructureError
from pilotwave.testing.actor_processes import pids_of_actor
from pilotwave.testing.faults_contract import FaultsContract
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.runtime_contract import RuntimeContract, answers_of, campaign, state_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


class TestRayRuntime(RuntimeContract):
    def runtime(self, **settings: Any) -> dict[str, Any]:
        return {"kind": "ray", **settings}


@pytest.mark.slow
class TestFaultsOnRay(FaultsContract):
    def runtime(self, **settings: Any) -> dict[str, Any]:
        return {"kind": "ray", **settings}


def test_a_crash_costs_an_attempt_and_nothing_else(tmp_path: Path) -> None:
    contract = TestFaultsOnRay()
    contract.test_retryable_failures_are_tried_again_and_cost_nothing_else(tmp_path, "segfault", "worker")


@pytest.mark.parametrize("actor", ["Evaluator", "Generator", "Optimizer"])
def test_an_actor_that_is_killed_costs_nothing_but_time(tmp_path: Path, actor: str) -> None:
    runtime = {"kind": "ray", "evaluators": 2, "mode": "synchronous"}
    contract = TestRayRuntime()
    folder = tmp_path / "records"
    folder.mkdir()
    oracle = contract.recording(folder, delay=0.1)
    job = campaign(oracle, runtime, queries=24, batch_size=8)
    results: list[CampaignResult] = []
    thread = threading.Thread(target=lambda: results.append(job.run(tmp_path / "run")))
    thread.start()
    killed = False
    while thread.is_alive() and not killed:
        ledger = tmp_path / "run" / "ledger.sqlite"
        if ledger.exists() and state_of(tmp_path / "run").answered >= 3:
            os.kill(pids_of_actor(actor)[0], signal.SIGKILL)
            killed = True
        time.sleep(0.01)
    thread.join(180)
    assert killed
    assert results
    assert results[0].outcome.finished
    asked = (folder / "finished").read_text().split()
    assert len(asked) == len(set(asked)) == 24
    undisturbed = campaign(FaultyOracleConfig(), {"kind": "inline", "mode": "synchronous"}, queries=24)
    assert list(answers_of(tmp_path / "run").values()) == list(
        answers_of(undisturbed.run(tmp_path / "undisturbed").run_dir).values()
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_optimizer_that_dies_and_dies_is_given_up_in_one_line(tmp_path: Path) -> None:
    done = threading.Event()

    def kill() -> None:
        while not done.wait(2.0):  # time enough to be looked at, none to answer anything
            for pid in pids_of_actor("Optimizer"):
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    oracle = FaultyOracleConfig(delay=30.0, knows=False)
    try:
        killer.start()
        with pytest.raises(InfrastructureError, match=r"died 4 times in a row.*pilotwave resume"):
            campaign(oracle, {"kind": "ray", "evaluators": 2}).run(tmp_path / "run")
    finally:
        done.set()
        killer.join()
    assert not pids_of_actor("Optimizer")


def test_inline_and_ray_give_the_same_campaign(tmp_path: Path) -> None:
    runs = [
        campaign(FaultyOracleConfig(), {"kind": kind, "mode": "synchronous"}).run(tmp_path / kind).run_dir
        for kind in ("inline", "ray")
    ]
    assert answers_of(runs[0]) == answers_of(runs[1])


def test_the_standard_library_platform_imports_in_a_worker() -> None:
    import ray

    @ray.remote
    def version() -> str:
        import platform

        return platform.python_version()

    assert ray.get(version.remote()).count(".") == 2


@pytest.mark.parametrize("address", ["nowhere", "ray://", "host:port", ""])
def test_a_wrong_address_is_one_line(address: str) -> None:
    fields = {
        "backbone": {"kind": "analytic"},
        "oracle": FaultyOracleConfig(),
        "algorithm": {"kind": "random"},
        "budget": {"queries": 16},
        "runtime": {"kind": "ray", "address": address},
    }
    with pytest.raises(ConfigError, match="expected local, auto"):
        check_campaign(fields)


def test_a_generator_that_cannot_be_built_is_the_users_line(tmp_path: Path) -> None:
    from pilotwave.campaign import Campaign
    from pilotwave.errors import PilotwaveError

    broken = Campaign.from_dict(
        {
            "backbone": {"kind": "analytic", "data": str(tmp_path / "nothing.npy")},
            "oracle": FaultyOracleConfig(),
            "algorithm": {"kind": "random"},
            "budget": {"queries": 16},
            "runtime": {"kind": "ray"},
        }
    )
    with pytest.raises(PilotwaveError, match=r"nothing\.npy") as caught:
        broken.run(tmp_path / "run")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_model_that_raises_stops_the_campaign_with_one_line(tmp_path: Path) -> None:
    from pilotwave.config.given import GivenBackboneConfig

    broken = campaign(FaultyOracleConfig(), {"kind": "ray"})
    backbone = broken.config.backbone.build()
    backbone.steps = 99  # draws noise that its own sampler then refuses
    given = GivenBackboneConfig.of(backbone)
    broken.config = broken.config.model_copy(update={"backbone": given})
    with pytest.raises(InfrastructureError, match="the model failed on proposal 0"):
        broken.run(tmp_path / "run")
