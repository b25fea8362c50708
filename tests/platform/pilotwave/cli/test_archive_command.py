from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotwave.archive.project import ProjectArchive
from pilotwave.cli import run
from pilotwave.testing.answer_records import answer_record
from pilotwave.testing.faulty_oracles import FaultyOracleConfig
from pilotwave.testing.runtime_contract import campaign

RECORDS = [answer_record(number) for number in range(40)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with ProjectArchive.create(tmp_path / "archive") as archive:
        archive.append(RECORDS[:30])
        archive.compact()
        archive.append(RECORDS[30:])
    return tmp_path / "archive"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    oracle = FaultyOracleConfig(isolation="thread")
    campaign(oracle, {"kind": "inline", "mode": "synchronous"}, queries=16, batch_size=8).run(folder)
    return folder


def said(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    assert run(["archive", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_run_is_added_once(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["add", str(run_dir), "--archive", str(tmp_path / "all"), "--contributor", "alice"]
    facts = said(arguments, capsys)
    assert (facts["answers"], facts["new"], facts["rows"]) == (16, 16, 16)
    assert said(arguments, capsys)["new"] == 0
    assert run(["archive", *arguments]) == 0
    assert capsys.readouterr().out.startswith(f"0 of 16 answers of {run_dir} are new in {tmp_path / 'all'}")
    assert said(["stats", "-a", str(tmp_path / "all")], capsys)["contributors"] == {"alice": 16}


def test_a_run_is_added_to_its_own_archive(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = yaml.safe_load((run_dir / "campaign.yaml").read_text())
    section = {"path": str(tmp_path / "own"), "contributor": "carol"}
    (run_dir / "campaign.yaml").write_text(yaml.safe_dump({**fields, "archive": section}))
    assert said(["add", str(run_dir)], capsys)["archive"] == str(tmp_path / "own")
    assert said(["stats", "-a", str(tmp_path / "own")], capsys)["contributors"] == {"carol": 16}


def test_stats_for_people_and_programs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = said(["stats", "--archive", str(place)], capsys)
    assert facts["rows"] == 40
    assert facts["statuses"] == {"ok": 35, "failed": 5}
    assert run(["archive", "stats", "--archive", str(place)]) == 0
    shown = capsys.readouterr().out
    assert "test-campaign 40" in shown
    assert "ok 35, failed 5" in shown


def test_a_query_lists_records(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["query", "status = 'failed' or proposal = 0", "-a", str(place)]
    found = said([*arguments, "--columns", "record_id, recorded ,value,condition", "-n", "7"], capsys)
    expected = [record for record in RECORDS if record.failure is not None or record.proposal == 0]
    assert found["count"] == len(expected)
    assert [row["record_id"] for row in found["records"]] == [record.record_id for record in expected[:7]]
    assert found["records"][0]["recorded"] == "2023-11-14T22:13:20.750000+00:00"
    assert found["records"][0]["value"] == RECORDS[0].value
    assert found["records"][1]["condition"] == [1]
    assert run(["archive", *arguments, "-n", "3"]) == 0
    shown = capsys.readouterr().out
    assert RECORDS[2].record_id in shown
    assert f"3 of {len(expected)} records" in shown
    assert run(["archive", "query", "value > 1e9", "-a", str(place)]) == 0
    assert capsys.readouterr().out == "no record\n"


def test_neighbours_of_a_record(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["neighbours", RECORDS[0].record_id, "-a", str(place), "-n", "5"]
    found = said(arguments, capsys)
    distances = [row["distance"] for row in found["neighbours"]]
    assert len(distances) == 5
    assert distances == sorted(distances)
    assert RECORDS[0].record_id not in [row["record_id"] for row in found["neighbours"]]
    assert run(["archive", *arguments]) == 0
    assert found["neighbours"][0]["record_id"] in capsys.readouterr().out


def test_verify_and_compact(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(["verify", "-a", str(place)], capsys) == {"archive": str(place), "whole": True, "damage": []}
    assert said(["compact", "-a", str(place)], capsys)["parts"] == 1
    assert run(["archive", "verify", "-a", str(place)]) == 0
    assert capsys.readouterr().out == f"{place} is whole\n"
    noise = next((place / "parts").glob("*.noise"))
    data = bytearray(noise.read_bytes())
    data[100] ^= 1
    noise.write_bytes(data)
    damaged = said(["verify", "-a", str(place)], capsys, code=4)
    assert not damaged["whole"]
    assert damaged["damage"][0]["file"] == f"parts/{noise.name}"
    assert run(["archive", "verify", "-a", str(place)]) == 4
    assert capsys.readouterr().out.startswith(f"damaged: parts/{noise.name}, bytes 0 to 65536")
    assert run(["archive", "query", "value > 0", "-a", str(place), "-c", "noise"]) == 4
    assert "--drop-damaged" in capsys.readouterr().err
    assert said(["compact", "-a", str(place), "--drop-damaged"], capsys)["rows"] == 0
    assert said(["verify", "-a", str(place)], capsys)["whole"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stats", "-a", "nowhere"], "no archive here"),
        (["verify", "-a", "nowhere"], "no archive here"),
        (["compact", "-a", "nowhere"], "no archive here"),
        (["add", "nowhere"], "no run here"),
        (["query", "value >", "-a", "{place}"], "expected a condition"),
        (["query", "true", "-a", "{place}", "--columns", "colour"], "no column 'colour'"),
        (["neighbours", "nobody/knows", "-a", "{place}"], "holds no record 'nobody/knows'"),
        (["add", "{run}", "-a", "{run}"], "holds"),
        (["add", "{run}", "-a", "{new}", "--latents", "float8"], "expected latents float16 or float32"),
    ],
)
def test_wrong_input_is_one_line(
    place: Path, run_dir: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(place=place, run=run_dir, new=place.with_name("new")) for word in arguments]
    assert run(["archive", *given]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1


def test_an_archive_in_use_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ProjectArchive.open(place):
        assert run(["archive", "compact", "-a", str(place)]) == 2
        assert "in use by another pilotwave process" in capsys.readouterr().err
        assert said(["stats", "-a", str(place)], capsys)["rows"] == 40


def test_every_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("add", "stats", "verify", "compact", "query", "neighbours"):
        assert run(["archive", command, "--help"]) == 0
        assert f"Example: pilotwave archive {command}" in " ".join(capsys.readouterr().out.split())
