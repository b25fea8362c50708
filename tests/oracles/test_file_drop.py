"""Candidates out, results back: in any order, over restarts, with mistakes in them."""

import csv
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from rdkit import Chem

from pilotwave.errors import InputError, OracleFailure
from pilotwave.protocols import QueryContext
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample, Sample
from pilotwave.testing.oracle_contract import OracleContract
from pilotwave.testing.small_campaign import answers_of, wait_for
from pilotwave_oracles import exchange_folder
from pilotwave_oracles.file_drop import FileDropOracle, FileDropOracleConfig
from pilotwave_oracles.xtb_water import WATER

MOLECULE = MoleculeSample(WATER, "O")


def array(*numbers: float) -> ArraySample:
    return ArraySample(np.array(numbers, dtype=np.float32))


def opened(folder: Path, **fields: Any) -> FileDropOracle:
    """Opens a folder as a new process would."""
    exchange_folder._OPEN.clear()
    settings = {"poll_seconds": 0.02, "settle_seconds": 0.0, "unit": "mV"}
    oracle = FileDropOracleConfig(**({"folder": folder} | settings | fields)).build()
    assert isinstance(oracle, FileDropOracle)
    return oracle


def hand_in(folder: Path, name: str, text: str) -> None:
    (folder / "results").mkdir(parents=True, exist_ok=True)
    (folder / "results" / f".{name}").write_text(text)
    (folder / "results" / f".{name}").rename(folder / "results" / name)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Waiting:
    """A question in a thread of its own."""

    def __init__(self, oracle: FileDropOracle, query_id: str, sample: Sample) -> None:
        self.value: float | None = None
        self.failure: OracleFailure | None = None
        self._thread = threading.Thread(target=self._ask, args=(oracle, query_id, sample), daemon=True)
        self._thread.start()

    def _ask(self, oracle: FileDropOracle, query_id: str, sample: Sample) -> None:
        try:
            self.value = oracle.evaluate(sample, QueryContext(query_id)).value
        except OracleFailure as failure:
            self.failure = failure

    def end(self) -> float | None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.value


class TestFileDropContract(OracleContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "lab"
        hand_in(self.folder, "early.csv", "id,value\np0000-00,12.5\n")
        opened(self.folder).evaluate(MOLECULE, QueryContext("p0000-00"))

    def config(self) -> FileDropOracleConfig:
        return FileDropOracleConfig(
            folder=self.folder, accepts=("molecule",), poll_seconds=0.02, settle_seconds=0.0, unit="mV"
        )

    def samples(self) -> list[Sample]:
        return [MOLECULE]


def test_results_come_in_any_order_and_in_parts(tmp_path: Path) -> None:
    oracle = opened(tmp_path)
    questions = [Waiting(oracle, f"p0000-0{number}", array(number, 0.5)) for number in range(4)]
    wait_for(lambda: len(list(tmp_path.glob("candidates/*.json"))) == 4)
    hand_in(tmp_path, "friday.csv", "id,value\np0000-03,3\np0000-01,1\np0000-00,\n")
    assert (questions[3].end(), questions[1].end()) == (3.0, 1.0)
    assert questions[0].value is None
    hand_in(tmp_path, "monday.csv", "id;value;failure\np0000-02;;fell on the floor\np0000-00;0,25;\n")
    assert (questions[0].end(), questions[2].end()) == (0.25, None)
    failure = questions[2].failure
    assert failure is not None
    assert (failure.stage, failure.retryable) == ("measurement", False)
    assert str(failure) == "fell on the floor (results/monday.csv:2)"
    assert not (tmp_path / "problems.txt").exists()


def test_molecules_are_written_as_a_table_an_sd_file_and_files_of_their_own(tmp_path: Path) -> None:
    oracle = opened(tmp_path)
    hand_in(tmp_path, "a.csv", "id,value\na,1\nb,2\n")
    for name in ("a", "b"):
        oracle.evaluate(MOLECULE, QueryContext(name))
    assert table(tmp_path / "candidates.csv") == [
        {"id": name, "media": "molecule", "file": f"candidates/{name}.mol", "smiles": "O"} for name in ("a", "b")
    ]
    molecules = list(Chem.SDMolSupplier(str(tmp_path / "candidates.sdf"), removeHs=False))
    assert [molecule.GetProp("_Name") for molecule in molecules] == ["a", "b"]
    assert [molecule.GetProp("id") for molecule in molecules] == ["a", "b"]
    assert (tmp_path / "candidates" / "a.mol").read_text() == WATER
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["candidates"] == 2
    assert manifest["columns_of_results"]["value"] == "a number in mV"


def test_images_and_arrays_are_written_with_files_that_others_read(tmp_path: Path) -> None:
    for name in ("images", "arrays"):
        hand_in(tmp_path / name, "a.csv", "id,value\na/1,1\n")
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    opened(tmp_path / "images").evaluate(ImageSample(pixels, "bag"), QueryContext("a/1"))
    opened(tmp_path / "arrays").evaluate(array(0.5, -1.0), QueryContext("a/1"))
    (image,) = table(tmp_path / "images" / "candidates.csv")
    assert image == {"id": "a/1", "media": "image", "file": "candidates/a%2F1.png", "class_name": "bag"}
    from PIL import Image

    with Image.open(tmp_path / "images" / image["file"]) as read:
        assert np.array_equal(np.asarray(read), pixels)
    (numbers,) = table(tmp_path / "arrays" / "candidates.csv")
    assert (numbers["x1"], numbers["x2"]) == ("0.5", "-1")
    assert np.array_equal(np.load(tmp_path / "arrays" / numbers["file"]), [0.5, -1.0])


def test_the_table_that_went_out_may_come_back_with_a_column_more(tmp_path: Path) -> None:
    question = Waiting(opened(tmp_path), "a", array(7.0))
    wait_for(lambda: (tmp_path / "manifest.json").exists())
    header, line = (tmp_path / "candidates.csv").read_text().splitlines()
    hand_in(tmp_path, "back.csv", f"{header},value\n{line},5\n")
    assert question.end() == 5.0


def test_mistakes_are_named_and_can_be_mended(tmp_path: Path) -> None:
    oracle = opened(tmp_path)
    questions = {name: Waiting(oracle, name, array(len(name))) for name in ("a", "bb", "ccc")}
    wait_for(lambda: len(list(tmp_path.glob("candidates/*.json"))) == 3)
    hand_in(tmp_path, "one.csv", "id,value,unit\na,n/a,mV\nbb,2,V\nzz,1,mV\nccc,3,mV\n")
    assert questions["ccc"].end() == 3.0
    wait_for((tmp_path / "problems.txt").exists)
    assert (tmp_path / "problems.txt").read_text().splitlines() == [
        "results/one.csv:2: expected a finite number for a, got 'n/a'",
        "results/one.csv:3: expected bb in mV, got 'V'",
        "results/one.csv:4: no candidate 'zz'; candidates.csv has the ids",
    ]
    assert questions["a"].value is questions["bb"].value is None
    hand_in(tmp_path, "one.csv", "id,value,unit\na,1,mV\nbb,2,mV\nccc,3,mV\n")
    assert (questions["a"].end(), questions["bb"].end()) == (1.0, 2.0)
    assert not (tmp_path / "problems.txt").exists()


def test_lines_that_contradict_each_other_do_not_count_until_one_is_out(tmp_path: Path) -> None:
    question = Waiting(opened(tmp_path), "a", array(1.0))
    wait_for((tmp_path / "manifest.json").exists)
    (tmp_path / "aside").mkdir()
    hand_in(tmp_path / "aside", "all.csv", "id,value\na,1\na,1.0\na,2\n")
    (tmp_path / "aside" / "results" / "all.csv").rename(tmp_path / "results" / "all.csv")
    wait_for((tmp_path / "problems.txt").exists)
    assert "results/all.csv:4: a is 2 here and 1 in results/all.csv:2" in (tmp_path / "problems.txt").read_text()
    assert question.value is None
    hand_in(tmp_path, "all.csv", "id,value\na,1\na,1.0\n")
    assert question.end() == 1.0


def test_a_file_that_is_still_being_copied_does_not_count_yet(tmp_path: Path) -> None:
    question = Waiting(opened(tmp_path, settle_seconds=3600.0), "a", array(1.0))
    wait_for((tmp_path / "manifest.json").exists)
    path = tmp_path / "results" / "half.csv"
    path.write_text("id,value\na,1")
    for name in (".hidden.csv", "~$half.csv", "other.csv.part"):
        (tmp_path / "results" / name).write_text("id,value\na,9\n")
        os.utime(tmp_path / "results" / name, (0, 0))
    looked_at = (tmp_path / "results" / "odd.txt", tmp_path / "problems.txt")
    looked_at[0].write_text("")
    os.utime(looked_at[0], (0, 0))
    wait_for(looked_at[1].exists)
    assert question.value is None
    path.write_text("id,value\na,12.5\n")
    os.utime(path, (time.time() - 4000, time.time() - 4000))
    assert question.end() == 12.5


def test_a_candidate_is_written_once_over_restarts_and_a_result_that_came_meanwhile_is_found(
    tmp_path: Path,
) -> None:
    first = Waiting(opened(tmp_path), "a", array(1.0))
    wait_for((tmp_path / "manifest.json").exists)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = Waiting(opened(tmp_path), "a", array(1.0))
    hand_in(tmp_path, "a.csv", "id,value\na,4\n")
    assert first.end() == second.end() == 4.0
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: after[name] for name in before} == before
    assert opened(tmp_path).evaluate(array(1.0), QueryContext("a", 2)).value == 4.0


@pytest.mark.parametrize("kept", [0, 1, 20, -1])
def test_what_a_kill_left_half_written_is_completed(tmp_path: Path, kept: int) -> None:
    hand_in(tmp_path, "a.csv", "id,value\na,1\nb,2\n")
    opened(tmp_path).evaluate(MOLECULE, QueryContext("a"))
    whole = {name: (tmp_path / name).read_bytes() for name in ("candidates.csv", "candidates.sdf")}
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data[:kept])
    (tmp_path / "candidates" / ".a.mol.tmp").write_text("half")
    (tmp_path / "candidates" / "b.mol").write_text("written before its entry")
    opened(tmp_path).evaluate(MOLECULE, QueryContext("b"))
    for name, data in whole.items():
        assert (tmp_path / name).read_bytes().startswith(data)
    assert [line["id"] for line in table(tmp_path / "candidates.csv")] == ["a", "b"]
    assert not list(tmp_path.glob("edited-*"))


def test_a_list_that_somebody_edited_is_kept(tmp_path: Path) -> None:
    hand_in(tmp_path, "a.csv", "id,value\na,1\nb,2\n")
    oracle = opened(tmp_path)
    oracle.evaluate(array(1.0), QueryContext("a"))
    mine = "id,value\na,a note of mine\n"
    (tmp_path / "candidates.csv").write_text(mine)
    oracle.evaluate(array(2.0), QueryContext("b"))
    assert (tmp_path / "edited-1-candidates.csv").read_text() == mine
    assert [line["id"] for line in table(tmp_path / "candidates.csv")] == ["a", "b"]


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    hand_in(tmp_path, "a.csv", "id,value\n" + "".join(f"q{number},{number}\n" for number in range(40)))
    oracles = [opened(tmp_path), opened(tmp_path)]
    assert oracles[0]._folder is not oracles[1]._folder
    questions = [Waiting(oracles[number % 2], f"q{number}", array(number)) for number in range(40)]
    assert [question.end() for question in questions] == list(range(40))
    assert sorted(line["id"] for line in table(tmp_path / "candidates.csv")) == sorted(f"q{n}" for n in range(40))
    assert not list(tmp_path.glob("edited-*"))


def test_another_campaign_is_refused_in_the_same_folder(tmp_path: Path) -> None:
    hand_in(tmp_path, "a.csv", "id,value\na,1\n")
    opened(tmp_path).evaluate(array(1.0), QueryContext("a"))
    with pytest.raises(OracleFailure, match="holds another candidate a already; give every campaign") as caught:
        opened(tmp_path).evaluate(array(2.0), QueryContext("a"))
    assert (caught.value.stage, caught.value.retryable) == ("folder", False)


def test_the_time_limit_counts_from_when_the_candidate_was_written(tmp_path: Path) -> None:
    question = Waiting(opened(tmp_path, time_limit=3600.0), "a", array(1.0))
    wait_for((tmp_path / "manifest.json").exists)
    path = tmp_path / "candidates" / "a.json"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps({**entry, "written": entry["written"] - 7200}))
    with pytest.raises(OracleFailure, match=r"no result within 0\.0417 days") as caught:
        opened(tmp_path, time_limit=3600.0).evaluate(array(1.0), QueryContext("a"))
    assert caught.value.stage == "wall-clock limit"
    assert question.failure is None
    hand_in(tmp_path, "late.csv", "id,value\na,1\n")
    assert opened(tmp_path, time_limit=3600.0).evaluate(array(1.0), QueryContext("a")).value == 1.0


def test_cost_fidelity_and_properties_come_with_a_result(tmp_path: Path) -> None:
    hand_in(tmp_path, "a.csv", "id,value,cost,fidelity,temperature\na,1,250,assay 2,298\n")
    answer = opened(tmp_path).evaluate(array(1.0), QueryContext("a"))
    assert (answer.cost, answer.fidelity, dict(answer.properties)) == (250.0, "assay 2", {"temperature": 298.0})


def test_a_folder_that_cannot_be_made_is_said_before_any_question(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: .*; choose another folder"):
        opened(tmp_path / "file")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"time_limit": "auto"}, "expected a number of seconds"),
        ({"id_column": "Value"}, "expected two columns, got 'Value' for both"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_at_validation(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        FileDropOracleConfig(folder=Path("lab"), **fields)


DRIVER = """
import sys
from pathlib import Path
from pilotwave.testing.small_campaign import campaign
from pilotwave_oracles.file_drop import FileDropOracleConfig
folder = Path(sys.argv[1])
oracle = FileDropOracleConfig(folder=folder / "lab", poll_seconds=0.02, settle_seconds=0.0)
driven = campaign(oracle, {"kind": "inline", "evaluators": 4}, queries=8, batch_size=4)
run_dir = folder / "run"
driven.resume(run_dir) if run_dir.exists() else driven.run(run_dir)
"""


def test_a_campaign_that_is_killed_while_people_measure_goes_on_where_it_was(tmp_path: Path) -> None:
    """The first driver is killed with four candidates out; their results come while nobody is there."""
    folder = tmp_path / "lab"

    def written() -> list[dict[str, str]]:
        lines = table(folder / "candidates.csv") if (folder / "candidates.csv").exists() else []
        return [line for line in lines if line.get("x6")]

    def measure(lines: list[dict[str, str]]) -> None:
        for line in lines:
            hand_in(folder, f"{line['id']}.csv", f"id,value\n{line['id']},{float(line['x1']):.6f}\n")

    first = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)])
    wait_for(lambda: len(written()) == 4)
    first.kill()
    first.wait()
    before = written()
    measure(before)
    second = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)])
    wait_for(lambda: len(written()) == 8)
    measure(written()[4:])
    assert second.wait(60) == 0
    assert written()[:4] == before
    assert answers_of(tmp_path / "run") == pytest.approx(
        {line["id"]: float(line["x1"]) for line in written()}, abs=1e-6
    )
