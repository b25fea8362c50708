from __future__ import annotations

import json
from pathlib import Path

import pytest

from pilotwave.cli import run
from pilotwave.report.ranking import best
from pilotwave.report.recorded_run import RecordedRun


def test_top_shows_a_table(molecule_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["top", str(molecule_run), "-n", "3"]) == 0
    shown = capsys.readouterr().out
    for item in best(RecordedRun.read(molecule_run), 3):
        assert item.query_id in shown
    assert "SMILES" in shown
    assert "cumulene" in shown  # why others have no value


def test_top_for_programs(molecule_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["top", str(molecule_run), "--json", "-n", "4"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["unit"], facts["oracle"], facts["direction"]) == ("bohr^3", "xtb:polarizability", "maximize")
    assert [item["rank"] for item in facts["best"]] == [1, 2, 3, 4]
    assert facts["best"][0]["properties"]["synthetic_accessibility"] == 3.21
    assert {item["stage"] for item in facts["failures"]} == {"structure", "scf"}
    assert run(["top", str(molecule_run), "--json", "-n", "99", "--all"]) == 0
    assert len(json.loads(capsys.readouterr().out)["best"]) == 9


@pytest.mark.parametrize("format", ["sdf", "png", "parquet", "csv"])
def test_export(molecule_run: Path, format: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(molecule_run), "--format", format, "--json", "-n", "2"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["count"] == 2
    assert Path(facts["path"]) == molecule_run / "results" / f"export.{format}"
    assert Path(facts["path"]).stat().st_size > 0


def test_export_to_a_file(molecule_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "deep" / "all.csv"
    assert run(["export", str(molecule_run), "--format", "csv", "--output", str(output)]) == 0
    assert capsys.readouterr().out.strip() == f"12 candidates in {output}"
    assert len(output.read_text().splitlines()) == 13


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["top", "nowhere"], "no run here"),
        (["top", "RUN", "-n", "0"], "'-n'"),
        (["export", "nowhere", "--format", "csv"], "no run here"),
        (["export", "RUN", "--format", "pdf"], "'--format'"),
        (["export", "RUN", "--format", "sdf"], "got 'array'; use --format csv or parquet"),
        (["export", "RUN"], "--format"),
    ],
)
def test_mistakes_are_one_line(
    array_run: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(array_run) if word == "RUN" else word for word in arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.out == ""
