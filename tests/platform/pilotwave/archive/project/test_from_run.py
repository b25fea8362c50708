"""The answers of a run's ledger as records, from a real campaign."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from pilotwave.archive.ledger import EventKind, Ledger
from pilotwave.archive.project import ProjectArchive, parameters_digest, records_of_run, run_id_of
from pilotwave.archive.project.from_run import archive_section
from pilotwave.archive.run_directory import RunDirectory
from pilotwave.archive.state import CampaignState
from pilotwave.errors import RunDirectoryError
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.runtime_contract import campaign
from pilotwave.types import Status

SYNCHRONOUS = {"kind": "inline", "evaluators": 2, "mode": "synchronous"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("run") / "run"
    oracle = FaultyOracleConfig(isolation="thread", fault="raise", every=3, attempts=1)
    campaign(oracle, SYNCHRONOUS, queries=32, batch_size=16, failures={"maximum_rate": 1.0}).run(folder)
    return RunDirectory(folder)


def test_every_query_that_ended_is_a_record_failures_too(run: RunDirectory) -> None:
    records = list(records_of_run(run, "alice"))
    with Ledger.open(run.ledger_file, read_only=True) as ledger:
        events = list(ledger.events())
        state = CampaignState.of(events)
        run_id = run_id_of(ledger)
        candidates = {item.query_id: item for item in ledger.candidates(list(state.settled))}
    facts = next(event.record["facts"] for event in events if event.kind is EventKind.STARTED)
    assert [record.query_id for record in records] == list(state.settled)
    assert {record.status for record in records} >= {Status.OK, Status.FAILED}
    for record in records:
        candidate = candidates[record.query_id]
        assert record.record_id == f"{run_id}/{record.query_id}"
        assert record.evaluation() == state.settled[record.query_id]
        assert (record.seed, record.proposal) == (candidate.seed, candidate.proposal)
        assert (record.backbone, record.oracle) == (facts["backbone"], facts["oracle"])
        assert record.contributor == "alice"
        assert record.latent is not None
        assert record.latent.tobytes() == candidate.latent.numpy().tobytes()
        assert record.noise is not None
        assert record.noise.tobytes() == candidate.noise_sequence.numpy().tobytes()
        assert candidate.sample is not None
        assert record.canonical == candidate.sample.identity()


def test_a_run_is_taken_over_once_wherever_it_lies(run: RunDirectory, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "copy")
    with ProjectArchive.create(tmp_path / "archive") as archive:
        assert len(archive.append(list(records_of_run(run, "alice")))) == 32
        assert archive.append(list(records_of_run(RunDirectory(tmp_path / "copy"), "bob"))) == []
        assert archive.stats()["contributors"] == {"alice": 32}


def test_two_runs_of_one_campaign_have_two_names(run: RunDirectory, tmp_path: Path) -> None:
    campaign(
        FaultyOracleConfig(isolation="thread", fault="raise", every=3, attempts=1),
        SYNCHRONOUS,
        queries=32,
        failures={"maximum_rate": 1.0},
    ).run(tmp_path / "again")
    names = set()
    for path in (run.path, tmp_path / "again"):
        with Ledger.open(path / "ledger.sqlite", read_only=True) as ledger:
            names.add(run_id_of(ledger))
    assert len(names) == 2


def test_parameters_are_what_changes_an_answer() -> None:
    section = {"kind": "xtb", "property": "gap", "time_limit": 60.0, "attempts": 2}
    assert parameters_digest(section) == parameters_digest({**section, "time_limit": 5.0, "attempts": 1})
    assert parameters_digest(section) != parameters_digest({**section, "property": "energy"})


def test_a_campaign_names_its_archive(run: RunDirectory, tmp_path: Path) -> None:
    assert archive_section(run).path is None
    shutil.copytree(run.path, tmp_path / "copy")
    copy = RunDirectory(tmp_path / "copy")
    fields = yaml.safe_load(copy.campaign_file.read_text())
    copy.campaign_file.write_text(yaml.safe_dump({**fields, "archive": {"path": "../all", "contributor": "carol"}}))
    assert archive_section(copy).path == tmp_path / "all"
    assert archive_section(copy).contributor == "carol"


def test_no_run_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no run here"):
        list(records_of_run(RunDirectory(tmp_path / "nothing"), "alice"))
