"""Campaigns as Ray jobs on the two-node cluster, by the commands that a user types."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pilotwave.archive.origin import read_origin
from pilotwave.testing.recorded_campaign import RecordedCampaign
from pilotwave.testing.runtime_contract import state_of
from pilotwave.testing.two_nodes import TwoNodeCluster, run_command

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]


def test_submitted_stopped_resumed_and_brought_back(two_nodes: TwoNodeCluster, tmp_path: Path) -> None:
    campaign = RecordedCampaign(tmp_path / "user", queries=60, delay=1.0)
    environment = two_nodes.environment()
    at = ["--address", two_nodes.jobs_address]
    run_dir = str(two_nodes.storage / "jobs" / "mine")
    submit = ["submit", "campaign.yaml", *at, "--run-dir", run_dir, "--json"]

    begun = run_command([*submit, "--no-wait"], environment, campaign.folder)
    assert begun.returncode == 0, begun.stderr
    job = json.loads(begun.stdout)["job"]
    campaign.wait_until_answered(4, two_nodes, None)
    status = run_command(["jobs", "status", job, *at, "--json"], environment, campaign.folder)
    assert json.loads(status.stdout)["status"] == "running"
    stopped = run_command(["jobs", "stop", job, *at], environment, campaign.folder)
    assert "stopped (exit code 130)" in stopped.stdout, stopped.stdout + stopped.stderr
    assert state_of(Path(run_dir)).stopped == "interrupted"
    assert (
        "interrupted after saving" in run_command(["jobs", "logs", job, *at], environment, campaign.folder).stdout
    )

    early = run_command(["jobs", "results", job, *at, "--output", "early"], environment, campaign.folder)
    assert early.returncode == 0, early.stderr
    assert 0 < state_of(campaign.folder / "early").answered < 60

    ended = run_command([*submit, "--output", "home"], environment, campaign.folder, seconds=400)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert (said["exit_code"], said["run_dir"], said["results"]) == (0, run_dir, "home")
    assert len(campaign.started()) == len(set(campaign.started())) == 60
    home = campaign.folder / "home"
    assert state_of(home).answered == 60
    assert list((home / "results").iterdir())
    origin = read_origin(home)
    assert origin is not None
    assert (origin.way, origin.run_dir, origin.address) == ("job", run_dir, two_nodes.jobs_address)
    refused = run_command(["resume", "home"], environment, campaign.folder)
    assert refused.returncode == 2
    assert "is a copy" in refused.stderr
    assert len(campaign.started()) == 60
    listed = json.loads(run_command(["jobs", "list", *at, "--json"], environment, campaign.folder).stdout)
    assert [item["exit_code"] for item in listed if item["run_dir"] == run_dir] == [130, 0]


def test_what_is_refused_on_the_cluster_has_the_campaigns_exit_code(
    two_nodes: TwoNodeCluster, tmp_path: Path
) -> None:
    campaign = RecordedCampaign(tmp_path / "user")
    environment = two_nodes.environment()
    submit = ["submit", "campaign.yaml", "--address", two_nodes.jobs_address]
    (campaign.folder / "broken.py").write_text("import a_package_that_nobody_has")
    broken = run_command([*submit, "--plugin", "broken.py"], environment, campaign.folder)
    assert broken.returncode == 2
    assert broken.stderr.splitlines()[-1].startswith("error: the plug-in 'broken' does not import on the cluster")
    licence = [*submit, "--set", "runtime.evaluator_resources={orca_licence: 1}"]
    without = run_command([*licence, "--set", f"runtime.storage={two_nodes.storage}"], environment, campaign.folder)
    assert without.returncode == 2
    assert "no node of the cluster has what an evaluator needs" in without.stderr.splitlines()[-1]
    assert not campaign.started()

    shutil.move(campaign.oracle, campaign.folder / "elsewhere.py")
    missing = run_command(submit, environment, campaign.folder)
    assert missing.returncode == 2
    assert "found none at" in missing.stderr
    for job, words in (("nosuch", "there is no job 'nosuch'"),):
        for verb in ("status", "logs", "stop", "results"):
            asked = run_command(["jobs", verb, job, *submit[2:]], environment, campaign.folder)
            assert asked.returncode == 2
            assert words in asked.stderr
