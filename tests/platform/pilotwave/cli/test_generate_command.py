"""``pilotwave generate``: what it writes and says, and every refusal in one line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave.cli import drawing
from pilotwave.cli import run as command_line
from pilotwave.testing.steered_run import SteeredRun, steer


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SteeredRun:
    return steer(tmp_path_factory.mktemp("generate") / "run")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Any:
    def said(*arguments: object) -> Said:
        code = command_line(["generate", *map(str, arguments)])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return said


def test_files_and_json_tell_the_same(say: Any, run: SteeredRun, here: Path) -> None:
    done = say(run.path, "-n", 7, "--seed", 3, "-o", "more.csv", "-o", "more.npy", "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    rows = list(csv.DictReader(io.StringIO((here / "more.csv").read_text())))
    assert [float(row["predicted"]) for row in rows] == [item["predicted"] for item in told["samples"]]
    assert [int(row["seed"]) for row in rows] == [item["seed"] for item in told["samples"]]
    table = np.array([[float(row[f"x{place}"]) for place in range(6)] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(table, np.load(here / "more.npy"))
    assert (told["name"], told["oracle"], told["answers"], told["guided"]) == ("contract", "faulty", 24, True)
    assert told["quality"] == {"valid": 7}
    assert told["files"] == {"more.csv": "7 draws", "more.npy": "7 valid samples"}
    assert told["drawn"] == 7 + sum(told["left_out"].values())


def test_people_read_what_was_learned_and_where_the_file_is(say: Any, run: SteeredRun, here: Path) -> None:
    done = say(run.path, "-n", 3)
    assert done.code == 0, done.err
    for words in ("contract-generated-seed0.npy: 3 valid samples", "24 answers of faulty", "surrogate expects"):
        assert words in done.out
    assert np.load(here / "contract-generated-seed0.npy").shape == (3, 6)


def test_pictures_show_what_is_expected(say: Any, tmp_path: Path) -> None:
    from PIL import Image

    images = steer(tmp_path / "images", media="image", backbone={"kind": "analytic", "dim": 36, "steps": 3})
    said = say(images.path, "-n", 3, "-o", "a.png")
    assert (said.code, said.err.count("\n")) == (2, 1)  # the recorded campaign draws arrays: another model
    from pilotwave.report.sample_files import Drawn, write_samples

    samples = [item.sample for item in images.candidates(["p0000-00", "p0000-01"]) if item.sample is not None]
    pages = []
    for predicted in (None, 1.25):
        drawn = [Drawn(place, 1, sample, predicted) for place, sample in enumerate(samples)]
        write_samples(drawn, tmp_path / "page.png", "x")
        pages.append(Image.open(tmp_path / "page.png").copy())
    assert pages[1].size[1] > pages[0].size[1]


def test_notes_go_to_standard_error(say: Any, tmp_path: Path) -> None:
    run = steer(tmp_path / "run", batches=1, judge=lambda sample, number: None)
    done = say(run.path, "-n", 2, "--json")
    assert done.code == 0
    assert done.err == "note: nothing was answered yet, so these samples are unguided\n"
    told = json.loads(done.out)
    assert told["notes"] == ["nothing was answered yet, so these samples are unguided"]
    assert [item["predicted"] for item in told["samples"]] == [None, None]
    assert not told["guided"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "0"], "-n: expected 1 or more, got 0"),
        (["--class", "coat"], "condition classes: a model of kind 'analytic' has no conditions to choose"),
        (["--condition", "atoms"], "--condition atoms: expected name=value, e.g. --condition atoms=9"),
        (["--condition", "classes=[a]", "--class", "b"], "--class: classes are given by --condition, too"),
        (["-o", "x.png"], "expected a file name that ends in .npy, .csv"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
    ],
)
def test_bad_input_is_one_line(say: Any, run: SteeredRun, arguments: list[str], message: str) -> None:
    done = say(run.path, *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_what_is_there_is_not_overwritten_and_no_run_is_said(say: Any, run: SteeredRun, here: Path) -> None:
    (here / "x.npy").write_text("mine")
    assert "say --force" in say(run.path, "-n", 2, "-o", "x.npy").err
    assert (here / "x.npy").read_text() == "mine"
    assert say(run.path, "-n", 2, "-o", "x.npy", "--force").code == 0
    done = say("nothing")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "no run and no model here" in done.err


def test_progress_is_said_in_a_log(say: Any, run: SteeredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(drawing, "LOG_INTERVAL_SECONDS", 0.001)
    done = say(run.path, "-n", 20)
    assert done.code == 0
    lines = done.err.splitlines()
    assert lines[0].startswith("generated 0 of 20 samples in ")
    assert any(line.startswith(("generated 6 of", "generated 12 of", "generated 18 of")) for line in lines)
