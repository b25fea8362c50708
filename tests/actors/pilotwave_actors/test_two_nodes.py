"""The ways into a real cluster of two nodes with a token: a driver on a node, Ray Client, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pilotwave.archive.origin import read_origin
from pilotwave.errors import InfrastructureError, InputError
from pilotwave.testing.recorded_campaign import RecordedCampaign, kill
from pilotwave.testing.runtime_contract import state_of
from pilotwave.testing.two_nodes import TwoNodeCluster, run_command

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def user(two_nodes: TwoNodeCluster, monkeypatch: pytest.MonkeyPatch) -> TwoNodeCluster:
    """This process as a user of the cluster."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(two_nodes.token_file))
    return two_nodes


def test_the_door_opens_for_the_right_token_only(user: TwoNodeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotwave_actors.reachable import check_dashboard, check_reachable

    doors = [
        (check_reachable, user.address),
        (check_reachable, user.client_address),
        (check_dashboard, user.jobs_address),
    ]
    for knock, address in doors:
        knock(address)
        with monkeypatch.context() as context:
            context.setenv("RAY_AUTH_TOKEN", "wrong")
            with pytest.raises(InputError, match="refuses the token"):
                knock(address)
        with monkeypatch.context() as context:
            context.setenv("RAY_AUTH_MODE", "disabled")
            with pytest.raises(InputError, match="RAY_AUTH_MODE is disabled"):
                knock(address)
        with monkeypatch.context() as context:
            context.delenv("RAY_AUTH_TOKEN_PATH")
            context.setenv("HOME", str(user.folder / "nobody"))
            with pytest.raises(InputError, match="there is none"):
                knock(address)

    with pytest.raises(InfrastructureError, match=r"not a Ray Client server.*host:6379"):
        check_reachable(f"ray://{user.address}")
    with pytest.raises(InfrastructureError, match=r"not a Ray head.*ray://"):
        check_reachable(user.client_address.removeprefix("ray://"))
    with pytest.raises(InfrastructureError, match=r"no Ray dashboard|nobody can be reached"):
        check_dashboard(f"http://{user.address}")
    with pytest.raises(InputError, match="expected http://host:8265"):
        check_dashboard(user.address)


BAD_INPUT = """
import json, sys
import pilotwave
from pathlib import Path
from pilotwave.campaign import Campaign
from pilotwave.errors import PilotwaveError

folder, direct, client = sys.argv[1:]
Path(folder, "broken_plugin.py").write_text("import a_package_that_nobody_has")

def attempt(name, address, *overrides):
    run_dir = Path(folder, "runs", name)
    campaign = Campaign.from_yaml(Path(folder, "campaign.yaml"), [f"runtime.address={address}", *overrides])
    try:
        campaign.run(run_dir)
    except PilotwaveError as error:
        print(json.dumps([name, error.exit_code, str(error), run_dir.exists()]), flush=True)

plugin = json.dumps([str(Path(folder, "broken_plugin.py"))])
attempt("licence", direct, "runtime.evaluator_resources={orca_licence: 1}")
attempt("gpus", client, "runtime.evaluator_resources={GPU: 4}")
attempt("many", direct, "runtime.evaluators=64")
attempt("plugin", client, f"runtime.plugins={plugin}")
installed = pilotwave.__version__
pilotwave.__version__ = "9.9.9"
attempt("ours", direct)
pilotwave.__version__ = installed
import ray
ray.__version__ = "2.0.0"
attempt("rays", client)
attempt("rays-direct", direct)
"""


def test_bad_input_is_one_line_and_nothing_is_paid(two_nodes: TwoNodeCluster, tmp_path: Path) -> None:
    campaign = RecordedCampaign(tmp_path / "user")
    done = subprocess.run(
        [sys.executable, "-c", BAD_INPUT, str(campaign.folder), two_nodes.address, two_nodes.client_address],
        env=two_nodes.environment(),
        cwd=campaign.folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    said = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}
    expected = {
        "licence": (2, "no node of the cluster has what an evaluator needs (CPU 1, orca_licence 1"),
        "gpus": (2, "no node of the cluster has what an evaluator needs (CPU 1, GPU 4"),
        "many": (2, "room for 8 of 64 actors"),
        "plugin": (2, "'broken_plugin' does not import on a worker"),
        "ours": (4, "this machine has 9.9.9"),
        "rays": (4, "2.0.0"),
        "rays-direct": (4, "2.0.0"),
    }
    assert said.keys() == expected.keys(), done.stderr[-3000:]
    for name, (code, words) in expected.items():
        assert said[name][0] == code, said[name]
        assert words in said[name][1]
        assert "\n" not in said[name][1]
    assert "second 4" in said["licence"][1]  # it says what is there
    assert not campaign.started()


def alone_on_its_machine(command: list[str], own: Path) -> list[str]:
    """Lets a command see a folder that nobody else on this host sees, as if it ran on another machine."""
    script = 'mount -t tmpfs -o size=64m none "$0" && cp -r "$0.given/." "$0" && cd "$0" && "$@"; code=$?; '
    script += 'cp -r "$0/." "$0.left"; exit $code'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(own), *command]


def can_be_alone() -> bool:
    tried = subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(not can_be_alone(), reason="needs mount namespaces, to be another machine")
def test_a_client_on_another_machine_gets_its_run_home(two_nodes: TwoNodeCluster, tmp_path: Path) -> None:
    for name in ("own", "own.left"):
        (tmp_path / name).mkdir()
    campaign = RecordedCampaign(tmp_path / "own.given")
    pilotwave = str(Path(sys.executable).parent / "pilotwave")
    # The first attempt is refused: the cluster does not see this folder, and nobody says where it keeps runs.
    steps = (
        f"{pilotwave} run campaign.yaml --address {two_nodes.client_address} --run-dir mine; echo first $?; "
        f"{pilotwave} run campaign.yaml --address {two_nodes.client_address} --run-dir mine --plugin "
        f"recording_oracle.py --set runtime.storage={two_nodes.storage}"
    )
    done = subprocess.run(
        alone_on_its_machine(["sh", "-c", steps], tmp_path / "own"),
        env=two_nodes.environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    assert "first 2" in done.stdout
    assert "does not see" in done.stderr
    assert "runtime.storage" in done.stderr
    assert len(campaign.finished()) == len(set(campaign.finished())) == 16

    home = tmp_path / "own.left" / "mine"
    assert state_of(home).stopped == "finished"
    assert state_of(home).answered == 16
    assert (home / "results").is_dir()
    origin = read_origin(home)
    assert origin is not None
    assert origin.way == "client"
    assert state_of(Path(origin.run_dir)).answered == 16
    (tmp_path / "own" / "recording_oracle.py").write_text(campaign.oracle.read_text())  # what the campaign names
    copy = run_command(["resume", str(home), "--address", "local"], two_nodes.environment(), tmp_path)
    assert copy.returncode == 2
    assert "is a copy" in copy.stderr


@pytest.mark.slow
def test_a_mode_that_ray_would_not_hear_is_said(two_nodes: TwoNodeCluster, tmp_path: Path) -> None:
    campaign = RecordedCampaign(tmp_path / "user")
    run = ["run", "campaign.yaml", "--address", two_nodes.address]
    code = campaign.run_to_the_end(run, two_nodes.environment(), before="import ray")
    assert code == 2
    assert "imported ray before RAY_AUTH_MODE was 'token'" in campaign.log()


@pytest.mark.slow
def test_drivers_on_a_node_find_it_by_auto_and_by_address(two_nodes: TwoNodeCluster, tmp_path: Path) -> None:
    for name, address, environment in (
        ("auto", "auto", two_nodes.environment_on_node()),
        ("direct", two_nodes.address, two_nodes.environment()),
    ):
        campaign = RecordedCampaign(tmp_path / name)
        code = campaign.run_to_the_end(
            ["run", "campaign.yaml", "--address", address, "--run-dir", "r"], environment
        )
        assert code == 0, campaign.log()
        assert len(campaign.finished()) == len(set(campaign.finished())) == 16
        more = ["resume", "r", "--address", address, "--set", "budget.queries=24"]
        assert campaign.run_to_the_end(more, environment) == 0, campaign.log()
        assert len(campaign.finished()) == len(set(campaign.finished())) == 24
        assert state_of(campaign.folder / "r").spent == 24
    campaign = RecordedCampaign(tmp_path / "nowhere")
    nowhere = ["run", "campaign.yaml", "--address", "auto"]
    assert campaign.run_to_the_end(nowhere, two_nodes.environment()) == 4
    assert "this machine belongs to no Ray cluster" in campaign.log()


@pytest.mark.slow
def test_a_client_that_is_lost_leaves_the_campaign_running(two_nodes: TwoNodeCluster, tmp_path: Path) -> None:
    campaign = RecordedCampaign(tmp_path / "user", queries=48, delay=1.0)
    environment = two_nodes.environment()
    client = ["--address", two_nodes.client_address]
    driver = campaign.start(["run", "campaign.yaml", "--run-dir", "r", *client], environment)
    campaign.wait_until_answered(4, two_nodes, driver)
    kill(driver)
    driver.wait()
    then = len(campaign.finished())
    campaign.wait_until_answered(then + 8, two_nodes, None)
    # Somebody else, and the same user later: the campaign is found at work and followed to its end.
    code = campaign.run_to_the_end(["resume", "r", *client], environment)
    assert code == 0, campaign.log()
    assert "at work" in campaign.log()
    assert len(campaign.started()) == len(set(campaign.started())) == 48
    assert state_of(campaign.folder / "r").stopped == "finished"
    assert not two_nodes.workers("head", "Optimizer")


@pytest.mark.slow
def test_ctrl_c_through_the_client_saves(two_nodes: TwoNodeCluster, tmp_path: Path) -> None:
    campaign = RecordedCampaign(tmp_path / "user", queries=40, delay=0.5)
    environment = two_nodes.environment()
    client = ["--address", two_nodes.client_address]
    driver = campaign.start(["run", "campaign.yaml", "--run-dir", "r", *client], environment)
    campaign.wait_until_answered(4, two_nodes, driver)
    kill(driver, signal.SIGINT)
    assert driver.wait(120) == 130, campaign.log()
    stopped = state_of(campaign.folder / "r")
    assert stopped.stopped == "interrupted"
    assert 4 <= stopped.answered < 40
    assert campaign.run_to_the_end(["resume", "r", *client], environment) == 0, campaign.log()
    assert len(campaign.started()) == len(set(campaign.started())) == 40


ON_THE_SECOND_NODE = """
import pilotwave_actors.remote_driver as remote_driver
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

def near(node):
    import ray
    (second,) = [item["NodeID"] for item in ray.nodes() if item["Alive"] and "second" in item["Resources"]]
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=second, soft=True)}

remote_driver.near = near
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_optimizer_whose_node_dies_goes_on_elsewhere(two_nodes: TwoNodeCluster, tmp_path: Path) -> None:
    campaign = RecordedCampaign(tmp_path / "user", queries=40, delay=0.5)
    run = ["run", "campaign.yaml", "--run-dir", "r", "--address", two_nodes.client_address]
    environment = two_nodes.environment(RAY_AUTH_MODE="token")  # what runs before imports ray
    driver = campaign.start(run, environment, before=ON_THE_SECOND_NODE)
    try:
        campaign.wait_until_answered(10, two_nodes, driver)
        assert two_nodes.workers("second", "Optimizer")
        before = {query_id for query_id, item in state_of(campaign.folder / "r").settled.items() if item.value}
        two_nodes.kill_node("second")
        code = driver.wait(400)
    finally:
        two_nodes.start_second()
    assert code == 0, campaign.log()
    state = state_of(campaign.folder / "r")
    assert (state.spent, state.answered, state.stopped) == (40, 40, "finished")
    assert before <= state.settled.keys()
    started = campaign.started()
    assert len(set(started)) == 40
    assert len(started) - 40 <= 2  # at most what the two evaluators had in flight
    assert all(started.count(query_id) == 1 for query_id in before)
    assert os.path.exists(campaign.folder / "r" / "results")
