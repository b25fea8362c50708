"""Fine-tuning on the user's molecules: real data in every batch, the same end after kill -9, guards, the card."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rdkit import Chem

from pilotwave.backbones.molecule import dataset, fine_tuning, qm9, training_data
from pilotwave.backbones.molecule.backbone import MODEL, builtin_weights
from pilotwave.backbones.molecule.diversity import diversity
from pilotwave.backbones.molecule.network import NetworkConfig
from pilotwave.backbones.molecule.representation import QM9, EncodedMolecule
from pilotwave.backbones.molecule.training import CHECKPOINT_NAME, MoleculeTrainingConfig, train
from pilotwave.errors import CheckpointError, InputError
from pilotwave.storage import load_checkpoint, save_checkpoint
from pilotwave.training.card import CARD_NAME
from pilotwave.training.collapse import CollapseError
from pilotwave.training.progress import TrainingProgress, TrainingWatcher
from pilotwave.training.weights import read_weights, write_weights

STEPS = 8
NETWORK = NetworkConfig(width=24, layers=2, heads=2, pair_width=8, pair_blocks=2, radial_functions=8)
TRAIN_AND_TELL = """
import sys
from pathlib import Path
from pilotwave.backbones.molecule.training import MoleculeTrainingConfig, train
config = MoleculeTrainingConfig.model_validate_json(Path(sys.argv[1]).read_text())
train(config, lambda progress: print(progress.seen, flush=True))
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, embedded: list[Chem.Mol]) -> Path:
    """The user's file: twenty molecules, so that the numbers of rows differ."""
    path = tmp_path_factory.mktemp("own") / "mine.sdf"
    path.write_text("".join(Chem.MolToMolBlock(molecule) + "$$$$\n" for molecule in embedded[:20]))
    return path


def tiny(output: Path, cache: Path, **changes: object) -> MoleculeTrainingConfig:
    fields: dict[str, object] = {
        "output": output,
        "cache": cache,
        "molecules": 8 * STEPS,
        "batch_size": 8,
        "processes": 1,
        "network": NETWORK,
        "report_every": 8,
        "sample_every": 10_000,
        "samples": 2,
        "sample_steps": 2,
        "checkpoint_seconds": 0,
        "device": "cpu",
    }
    return MoleculeTrainingConfig.model_validate(fields | changes)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Weights to begin from."""
    return train(tiny(tmp_path_factory.mktemp("start"), cache, molecules=8), lambda progress: None)


class Listening(TrainingWatcher):
    """Keeps what was announced for good."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def announce(self, line: str, *, passing: bool = False) -> None:
        if not passing:
            self.lines.append(line)


def same_weights(ours: Path, theirs: Path) -> bool:
    one, other = (read_weights(run / "molecule.safetensors", model=MODEL).tensors for run in (ours, theirs))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_killed_and_started_again_fine_tuning_ends_bit_for_bit_the_same(
    tmp_path: Path, cache: Path, own: Path, start: Path
) -> None:
    changes = {"data": str(own), "start": str(start), "real_share": 0.3}
    undisturbed = tiny(tmp_path / "undisturbed", cache, **changes)
    train(undisturbed, lambda progress: None)
    killed = tiny(tmp_path / "killed", cache, **changes)
    (tmp_path / "config.json").write_text(killed.model_dump_json())
    (tmp_path / "run.py").write_text(TRAIN_AND_TELL)
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "config.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(3)]
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert seen[-1] < killed.molecules
    train(killed, lambda progress: None)
    assert same_weights(killed.output, undisturbed.output)
    ours, theirs = (load_checkpoint(run.output / CHECKPOINT_NAME)["history"] for run in (killed, undisturbed))
    assert [point["seen"] for point in theirs] == [8 * step for step in range(1, STEPS + 1)]
    assert ours == theirs, "the whole curve is there"


def test_a_run_that_the_user_stopped_goes_on_where_it_stood(tmp_path: Path, cache: Path) -> None:
    class Stopping(TrainingWatcher):
        def __init__(self) -> None:
            self.ticks: list[int] = []

        def tick(self, seen: int, total: int, loss: float) -> None:
            assert (total, loss > 0) == (8 * STEPS, True)
            self.ticks.append(seen)

        def must_stop(self) -> bool:
            return len(self.ticks) == 3

    watcher = Stopping()
    stopped, undisturbed = (tiny(tmp_path / name, cache, checkpoint_seconds=60) for name in ("stopped", "whole"))
    assert train(stopped, watcher).name == CHECKPOINT_NAME
    assert watcher.ticks == [8, 16, 24]
    train(stopped, lambda progress: None)
    train(undisturbed, lambda progress: None)
    assert same_weights(stopped.output, undisturbed.output)


def test_a_measurement_that_was_cut_off_is_made_when_the_run_is_resumed(tmp_path: Path, cache: Path) -> None:
    class PulledPlug(TrainingWatcher):
        def announce(self, line: str, *, passing: bool = False) -> None:
            if line.startswith("drawing"):
                raise OSError("no power")

    config = tiny(tmp_path / "run", cache, molecules=24, sample_every=16, checkpoint_seconds=60)
    with pytest.raises(OSError, match="no power"):
        train(config, PulledPlug())
    reports: list[TrainingProgress] = []
    train(config, reports.append)
    assert [(report.seen, bool(report.quality)) for report in reports] == [(16, True), (24, True)]
    history = load_checkpoint(config.output / CHECKPOINT_NAME)["history"]
    assert [point["seen"] for point in history] == [8, 16, 24], "the report before the cut is not lost"


def test_every_batch_holds_the_share_of_real_data(tmp_path: Path, cache: Path, own: Path, start: Path) -> None:
    config = tiny(tmp_path / "run", cache, data=str(own), start=str(start), real_share=0.3)
    heard = Listening()
    data = training_data.load(config, heard)
    assert heard.lines == ["mine.sdf: 20 of 20 molecules fit"]
    real = dataset.split(qm9.load(cache))[0]
    assert len(data.molecules) - data.own == len(real)
    for step in range(40):
        rows = data.rows(step, 8, seed=0)
        assert (rows >= data.own).sum() == 3, "30% of 8, rounded up"
    assert np.isclose(sum(data.atom_counts()), 1.0)
    assert not set(data.held_out.smiles) & set(data.molecules.smiles[: data.own])
    assert data.real_held_out is not None
    train(config, lambda progress: None)
    card = (config.output / CARD_NAME).read_text()
    for part in (
        "Share of real data (qm9) mixed into the user's own: 30% of every batch, at least.",
        "**the user's own molecules, mine.sdf**: 19 molecules to train on, 1 held out",
        "not known here: yours to state",
        "real data, mixed in: 30% at least of every batch",
        "doi 10.1038/sdata.2014.22",
        "| real_share | 0.3 | null |",
        "Finished: 64 of 64 molecules seen",
        "one process of 1 thread, ",
        "| decoded (the same after repairing hydrogens) |",
        f"it began from the weights `{start}`",
    ):
        assert part in card, part


def test_the_share_is_a_quarter_unless_said_otherwise(tmp_path: Path, cache: Path, own: Path, start: Path) -> None:
    fine_tuned = tiny(tmp_path, cache, data=str(own), start=str(start))
    assert fine_tuned.share_of_real == 0.25
    assert tiny(tmp_path, cache, data=str(own)).share_of_real == 0
    assert tiny(tmp_path, cache, start=str(start)).share_of_real == 0
    assert tiny(tmp_path, cache, data=str(own), real_share=0.5).share_of_real == 0.5
    on_purpose = tiny(tmp_path / "run", cache, data=str(own), start=str(start), real_share=0, molecules=8)
    data = training_data.load(on_purpose, TrainingWatcher())
    assert len(data.molecules) == data.own
    train(on_purpose, lambda progress: None)
    card = (on_purpose.output / CARD_NAME).read_text()
    assert "mixed into the user's own: none was mixed in" in card
    assert "No real data was mixed in." in card
    with pytest.raises(ValidationError, match="real_share is for data of your own"):
        tiny(tmp_path, cache, real_share=0.5)


def test_the_file_is_known_by_its_content(tmp_path: Path, cache: Path, own: Path) -> None:
    moved = tmp_path / "moved.sdf"
    moved.write_bytes(own.read_bytes())
    train(tiny(tmp_path / "run", cache, data=str(own), molecules=8), lambda progress: None)
    train(tiny(tmp_path / "run", cache, data=str(moved), molecules=16), lambda progress: None)
    moved.write_text(own.read_text().replace("RDKit", "other", 1))
    with pytest.raises(
        CheckpointError, match=r"is of another run: data = SDF [0-9a-f]{16} \(now SDF [0-9a-f]{16}\)"
    ):
        train(tiny(tmp_path / "run", cache, data=str(moved), molecules=24), lambda progress: None)


def test_what_cannot_be_used_is_refused_before_training(
    tmp_path: Path, cache: Path, own: Path, start: Path
) -> None:
    def refusal(**changes: object) -> str:
        with pytest.raises(InputError) as error:
            train(tiny(tmp_path / "run", cache, **changes), lambda progress: None)
        assert not (tmp_path / "run").exists()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "expected an SDF" in refusal(data=str(tmp_path / "nowhere.sdf"))
    assert "expected an SDF" in refusal(data="qm8")
    wider = NETWORK.model_copy(update={"width": 32})
    assert "are of another network: width = 24 (now 32)" in refusal(start=str(start), network=wider)
    assert "expected a safetensors file" in refusal(start=str(own))
    assert "expected device auto, cpu" in refusal(device="tpu")
    image = Path(qm9.__file__).parent.parent / "image" / "weights" / "image.safetensors"
    assert "they are of model 'image'" in refusal(start=str(image), data=str(own))


def test_an_older_checkpoint_is_continued(tmp_path: Path, cache: Path) -> None:
    """Runs that began before there was a curve or a share of real data go on."""
    train(tiny(tmp_path / "run", cache, molecules=16), lambda progress: None)
    path = tmp_path / "run" / CHECKPOINT_NAME
    state = load_checkpoint(path)
    kept = {name: state[name] for name in ("identity", "step", "network", "average", "optimizers")}
    del kept["identity"]["real_share"]
    save_checkpoint(path, kept)
    reports: list[TrainingProgress] = []
    train(tiny(tmp_path / "run", cache, molecules=32), reports.append)
    assert [report.seen for report in reports] == [24, 32]


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, cache: Path) -> None:
    config = tiny(tmp_path / "run", cache, molecules=8)
    path = train(config, lambda progress: None)
    before = path.read_bytes()
    reports: list[TrainingProgress] = []
    assert train(config, reports.append) == path
    assert not reports
    assert path.read_bytes() == before


def only_hydrocarbons(folder: Path) -> Path:
    """Returns weights of the built-in model, turned into one that only ever draws carbon with two hydrogens."""
    weights = read_weights(builtin_weights(MODEL), model=MODEL)
    tensors = dict(weights.tensors)
    tensors["class_head.bias"] = tensors["class_head.bias"].clone()
    tensors["class_head.bias"][2] += 30
    path = folder / "hydrocarbons.safetensors"
    write_weights(path, tensors, model=MODEL, config=weights.config, progress={})
    return path


def test_a_collapse_stops_the_run_and_names_the_last_good_weights(tmp_path: Path, cache: Path, own: Path) -> None:
    changes = {
        "data": str(own), "start": str(only_hydrocarbons(tmp_path)), "network": NetworkConfig(), "batch_size": 4,
        "samples": 20, "sample_steps": 8, "learning_rate": 1e-6, "trunk_learning_rate": 1e-6, "sample_every": 4,
    }  # fmt: skip
    path = train(tiny(tmp_path / "run", cache, molecules=4, **changes), lambda progress: None)
    good = path.read_bytes()
    reports: list[TrainingProgress] = []
    strict = tiny(tmp_path / "run", cache, molecules=80, collapse_below=0.95, **changes)
    with pytest.raises(CollapseError) as error:
        train(strict, reports.append)
    message = str(error.value)
    assert message.startswith("the samples collapsed: ")
    assert f"the last good weights are {path} (4 molecules seen); raise real_share" in message
    assert path.read_bytes() == good
    assert [report.seen for report in reports] == [8, 12]
    assert all(report.note.startswith("low diversity of samples: ") for report in reports)
    assert "At the last measurement: low diversity" in (tmp_path / "run" / CARD_NAME).read_text()
    assert load_checkpoint(tmp_path / "run" / CHECKPOINT_NAME)["step"] == 3


def test_molecules_that_are_all_alike_are_told(encoded: list[EncodedMolecule]) -> None:
    varied = [molecule.smiles for molecule in encoded]
    alike = [f"{'C' * length}O" for length in range(2, 9)] * 4
    assert fine_tuning.narrowness(varied, varied, 0.5, "qm9") == ""
    assert fine_tuning.narrowness(varied[:4], varied, 0.5, "qm9") == "", "too few to tell"
    warning = fine_tuning.narrowness(alike, varied, 0.8, "qm9")
    assert warning.startswith("your molecules are little varied (mean Tanimoto distance 0.")


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_split_keeps_molecules_apart_and_holds_out_one_at_least(
    data: st.DataObject, encoded: list[EncodedMolecule]
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(encoded), min_size=2, max_size=30))
    molecules = dataset.pad(chosen, QM9.slots)
    training, held_out = fine_tuning.split(molecules)
    assert len(held_out) >= 1
    assert len(training) + len(held_out) == len(molecules)
    assert not set(training.smiles) & set(held_out.smiles)


@settings(deadline=None, max_examples=25)
@given(copies=st.integers(1, 5), seed=st.integers(0, 100))
def test_diversity_falls_with_copies_and_ignores_order(
    copies: int, seed: int, encoded: list[EncodedMolecule]
) -> None:
    smiles = [molecule.smiles for molecule in encoded]
    once, repeated = diversity(smiles), diversity(smiles * copies)
    assert once is not None
    assert repeated is not None
    assert repeated["distinct"] == pytest.approx(1 / copies)
    assert repeated["tanimoto_distance"] <= once["tanimoto_distance"] + 1e-9
    shuffled = np.random.default_rng(seed).permutation(smiles).tolist()
    assert diversity(shuffled) == pytest.approx(once)
    assert diversity([smiles[0]] * 16) == {"distinct": 1 / 16, "tanimoto_distance": 0.0}
    assert diversity(smiles[:15]) is None
