"""``pilotwave sample``: what it writes, that seeds decide and batches do not, and every refusal in one line."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit", reason="molecules need rdkit")
pytest.importorskip("PIL", reason="pictures need pillow")

from PIL import Image
from rdkit import Chem

from pilotwave.backbones.image.judge import BUILTIN_JUDGE
from pilotwave.backbones.molecule.network import MoleculeNetwork, NetworkConfig
from pilotwave.cli import run as command_line
from pilotwave.cli import sample as sample_command
from pilotwave.training.weights import write_weights


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    return tmp_path


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def run(*arguments: str) -> Said:
        code = command_line(["sample", *arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


def test_molecules_in_every_format_tell_the_same(say, here: Path) -> None:  # type: ignore[no-untyped-def]
    files = [f"drawn.{suffix}" for suffix in ("sdf", "csv", "smi", "png")]
    outputs = [word for file in files for word in ("--output", file)]
    done = say("molecule", "-n", "7", "--steps", "8", "--seed", "5", *outputs, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    rows = list(csv.DictReader(io.StringIO((here / "drawn.csv").read_text())))
    assert [row["index"] for row in rows] == [str(index) for index in range(7)]
    valid = [row for row in rows if not row["invalid"]]
    assert len(valid) == told["quality"]["decoded"] > 0
    assert told["quality"]["drawn"] == 7
    assert sum(told["quality"]["reasons"].values()) == 7 - len(valid)
    assert sum(row["strictly_valid"] == "True" for row in valid) == told["quality"]["strict"]

    molecules = list(Chem.SDMolSupplier(str(here / "drawn.sdf"), removeHs=False))
    assert len(molecules) == len(valid)
    for molecule, row in zip(molecules, valid, strict=True):
        for name in ("smiles", "strictly_valid", "repaired_hydrogens", "index", "seed"):
            assert molecule.GetProp(name) == row[name]
        assert molecule.GetProp("_Name") == f"molecule-seed5-{row['index']}"
        assert molecule.GetConformer().Is3D()
        assert Chem.MolToSmiles(Chem.RemoveHs(molecule), isomericSmiles=False) == row["smiles"]
    lines = (here / "drawn.smi").read_text().splitlines()
    assert lines == [f"{row['smiles']} molecule-seed5-{row['index']}" for row in valid]
    assert Image.open(here / "drawn.png").size == (6 * 380, 2 * 340)
    assert told["files"]["drawn.sdf"] == f"{len(valid)} valid samples"


def test_the_seed_decides_and_neither_batches_nor_more_draws_do(say, here: Path) -> None:  # type: ignore[no-untyped-def]
    def drawn(*arguments: str) -> list[str]:
        done = say("molecule", "--steps", "5", "-o", "x.smi", "--force", *arguments)
        assert done.code == 0, done.err
        return (here / "x.smi").read_text().splitlines()

    together = drawn("-n", "4")
    assert len(together) > 1
    assert drawn("-n", "4", "--batch-size", "1") == together
    fewer = drawn("-n", "3", "--batch-size", "2")
    assert fewer == together[: len(fewer)]
    assert drawn("-n", "4", "--seed", "1") != together


def test_pictures_do_not_depend_on_batches_and_classes_go_by_name_or_number(say, here: Path) -> None:  # type: ignore[no-untyped-def]
    def drawn(*arguments: str) -> np.ndarray:
        done = say("image", "-n", "5", "--steps", "3", "-o", "x.npy", "--force", *arguments)
        assert done.code == 0, done.err
        return np.load(here / "x.npy")

    together = drawn()
    assert together.shape == (5, 28, 28, 1)
    assert together.dtype == np.uint8
    for size in ("1", "2", "3"):
        np.testing.assert_array_equal(drawn("--batch-size", size), together)
    sneakers = drawn("--class", "7")
    np.testing.assert_array_equal(drawn("--class", "sneaker"), sneakers)
    assert (sneakers != together).any()
    guided = drawn("--class", "7", "--set", "guidance_scale=2")
    assert (guided != sneakers).any()


def test_pictures_are_judged(say, here: Path) -> None:  # type: ignore[no-untyped-def]
    done = say("image", "-n", "6", "--steps", "8", "--class", "trouser", "--class", "ankle-boot", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)["quality"]
    assert told["valid"] == 6
    assert told["diversity"] > 0.05
    assert Image.open(here / "image-seed0.png").size[0] > 6 * 112
    if BUILTIN_JUDGE.exists():
        assert told["judged"] == 6
        assert told["judge_agrees"] >= 4  # the two classes that are easiest to tell


def test_people_read_the_quality_and_where_the_file_is(say, here: Path) -> None:  # type: ignore[no-untyped-def]
    done = say("molecule", "-n", "3", "--steps", "8")
    assert done.code == 0, done.err
    for word in ("molecule-seed0.sdf", "strictly valid", "valid, decoded", "distinct", "QED", "samples a second"):
        assert word in done.out
    assert (here / "molecule-seed0.sdf").exists()
    pictured = say("molecule", "-n", "2", "--steps", "8", "--in-space", "-o", "space.png", "-o", "same.sdf")
    assert "space.png: 2 draws" in pictured.out
    assert (here / "molecule-seed0.sdf").read_text().startswith((here / "same.sdf").read_text())


def test_any_registered_kind_can_be_sampled(say, here: Path) -> None:  # type: ignore[no-untyped-def]
    done = say("analytic", "-n", "4", "--set", "dim=6", "-o", "a.npy", "-o", "a.csv")
    assert done.code == 0, done.err
    rows = list(csv.reader(io.StringIO((here / "a.csv").read_text())))
    assert rows[0] == ["index", "seed", *(f"x{place}" for place in range(6)), "invalid"]
    table = np.array([row[2:-1] for row in rows[1:]], dtype=np.float32)
    np.testing.assert_array_equal(table, np.load(here / "a.npy"))


def test_progress_is_said_line_by_line_in_a_log(say, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sample_command, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(sample_command, "LOG_INTERVAL_SECONDS", 0.0)
    done = say("analytic", "-n", "4", "--batch-size", "2", "-o", "a.npy", "--set", "steps=2")
    assert done.code == 0, done.err
    lines = [line for line in done.err.splitlines() if line]
    assert [line.split(",")[0] for line in lines] == [f"drew {done} of 4" for done in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["molecul"], "did you mean 'molecule'"),
        (["molecule", "-n", "0"], "-n: expected 1 or more, got 0"),
        (["molecule", "--steps", "0"], "--steps: Input should be greater than or equal to 1, got 0"),
        (["molecule", "--seed", "-1"], "--seed"),
        (["molecule", "--batch-size", "0"], "--batch-size"),
        (["molecule", "--class", "7"], "--class: a model of kind 'molecule' has no classes; leave --class out"),
        (["analytic", "--checkpoint", "x.safetensors"], "has no checkpoint; leave --checkpoint out"),
        (["image", "--class", "snaeker"], "did you mean 'sneaker'"),
        (["image", "--class", "10"], "expected a class from 0 to 9, got 10"),
        (["molecule", "--set", "smapler=ddim"], "did you mean 'sampler'"),
        (["molecule", "--set", "sampler=ddim"], "--set sampler"),
        (["molecule", "--checkpoint", "no.safetensors"], "there is no such file"),
        (["molecule", "--checkpoint", "notes.txt"], "notes.txt"),
        (["molecule", "-o", "x.npy"], "ends in .sdf, .smi, .csv, .png"),
        (["image", "-o", "x.sdf"], "ends in .png, .npy"),
        (["image", "-o", "x"], "ends in .png, .npy"),
        (["molecule", "-o", "kept.sdf"], "there is such a file already; choose another name, or say --force"),
        (["molecule", "-o", "new.sdf", "-o", "kept.sdf"], "kept.sdf: there is such a file already"),
        (["molecule", "-o", "folder.sdf"], "expected the name of a file, got a folder"),
        (["image", "--device", "tpu"], "tpu"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_drawn(  # type: ignore[no-untyped-def]
    say, here: Path, arguments: list[str], expected: str
) -> None:
    (here / "kept.sdf").write_text("a thesis")
    (here / "notes.txt").write_text("no weights")
    (here / "folder.sdf").mkdir()
    before = sorted(here.iterdir())
    refused = say(*arguments)
    assert refused.code == 2
    assert expected in refused.err
    assert len([line for line in refused.err.splitlines() if line]) == 1
    assert sorted(here.iterdir()) == before
    assert (here / "kept.sdf").read_text() == "a thesis"


def test_an_untrained_model_draws_nothing_valid_and_writes_nothing(say, here: Path) -> None:  # type: ignore[no-untyped-def]
    config = NetworkConfig(width=8, layers=1, heads=1, pair_width=4, pair_blocks=1, radial_functions=2)
    frequencies = [0.0] * config.slots + [1.0]
    contents = {"network": config.model_dump(), "atom_counts": frequencies}
    write_weights(
        here / "w.safetensors", MoleculeNetwork(config).state_dict(), model="molecule", config=contents, progress={}
    )
    refused = say("molecule", "-n", "3", "--steps", "2", "--checkpoint", "w.safetensors")
    assert refused.code == 2
    assert "none of 3 samples is valid" in refused.err
    assert sorted(path.name for path in here.iterdir()) == ["w.safetensors"]


def test_a_missing_package_is_named_before_anything_is_drawn(say, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from pilotwave.config.components import ComponentConfig

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name == "matplotlib" else find_spec(name)
    )
    refused = say("molecule", "-n", "2", "-o", "x.png")
    assert refused.code == 2
    assert "needs matplotlib, which is not installed; run: pip install 'pilotwave[molecules,report]'" in refused.err
    monkeypatch.setattr(ComponentConfig, "is_installed", staticmethod(lambda package: package != "rdkit"))
    refused = say("molecule", "-n", "2")
    assert refused.code == 2
    assert "pip install 'pilotwave[molecules]'" in refused.err


@pytest.mark.parametrize(("kind", "file"), [("analytic", "a.npy"), ("image", "a.png")])
def test_a_place_that_cannot_be_written_is_said(say, here: Path, kind: str, file: str) -> None:  # type: ignore[no-untyped-def]
    (here / "plain").write_text("not a folder")
    refused = say(kind, "-n", "1", "--steps", "1", "-o", f"plain/{file}")
    assert refused.code == 4
    assert f"plain/{file}" in refused.err
    assert len(refused.err.splitlines()) == 1


def test_the_help_has_an_example(say) -> None:  # type: ignore[no-untyped-def]
    shown = say("--help")
    assert shown.code == 0
    assert "Example: pilotwave sample" in " ".join(shown.out.split())
