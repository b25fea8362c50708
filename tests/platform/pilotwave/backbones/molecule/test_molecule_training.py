"""Training: the same end after kill -9, several processes, its own schedule, and refusals in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pilotwave.backbones.molecule import training_loss
from pilotwave.backbones.molecule.backbone import MODEL, MoleculeBackboneConfig
from pilotwave.backbones.molecule.network import NetworkConfig
from pilotwave.backbones.molecule.training import (
    CHECKPOINT_NAME,
    MoleculeTrainingConfig,
    learning_rate_factor,
    train,
)
from pilotwave.errors import CheckpointError
from pilotwave.training.progress import TrainingProgress
from pilotwave.training.weights import read_weights

STEPS = 10
TRAIN_AND_TELL = """
import sys
from pathlib import Path
from pilotwave.backbones.molecule.training import MoleculeTrainingConfig, train
if __name__ == "__main__":
    config = MoleculeTrainingConfig.model_validate_json(Path(sys.argv[1]).read_text())
    train(config, lambda progress: print(progress.seen, flush=True))
"""


def tiny(output: Path, cache: Path, **changes: object) -> MoleculeTrainingConfig:
    fields: dict[str, object] = {
        "output": output,
        "cache": cache,
        "molecules": 8 * STEPS,
        "batch_size": 8,
        "processes": 1,
        "network": NetworkConfig(width=24, layers=2, heads=2, pair_width=8, pair_blocks=2, radial_functions=8),
        "report_every": 8,
        "sample_every": 10_000,
        "samples": 2,
        "sample_steps": 2,
        "checkpoint_seconds": 0,
        "device": "cpu",
    }
    return MoleculeTrainingConfig.model_validate(fields | changes)


def train_silently(config: MoleculeTrainingConfig) -> list[TrainingProgress]:
    reports: list[TrainingProgress] = []
    train(config, reports.append)
    return reports


def train_and_kill(config: MoleculeTrainingConfig, after_reports: int, folder: Path) -> int:
    """Trains in a process of its own, killed without warning; returns how far it said it was."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json())
    (folder / "run.py").write_text(TRAIN_AND_TELL)
    command = [sys.executable, str(folder / "run.py"), str(folder / "config.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(after_reports)]
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return seen[-1]


def test_killed_and_started_again_it_ends_bit_for_bit_the_same(tmp_path: Path, cache: Path) -> None:
    undisturbed = tiny(tmp_path / "undisturbed", cache)
    train_silently(undisturbed)
    killed = tiny(tmp_path / "killed", cache)
    seen = train_and_kill(killed, after_reports=4, folder=tmp_path / "process")
    assert 32 <= seen < killed.molecules
    reports = train_silently(killed)
    assert seen - 8 <= reports[0].seen - 8, "it continued, and did not start anew"
    assert reports[-1].seen == killed.molecules
    ours, theirs = (read_weights(run.output / "molecule.safetensors", model=MODEL) for run in (killed, undisturbed))
    for name, tensor in theirs.tensors.items():
        assert torch.equal(ours.tensors[name], tensor), name


def test_two_processes_average_their_gradients(tmp_path: Path, cache: Path) -> None:
    """Both see half of each batch; the network stays one, and its weights serve as a checkpoint."""
    config = tiny(tmp_path / "two", cache, processes=2, molecules=24)
    folder = tmp_path / "process"
    folder.mkdir()
    (folder / "config.json").write_text(config.model_dump_json())
    (folder / "run.py").write_text(TRAIN_AND_TELL)
    subprocess.run([sys.executable, str(folder / "run.py"), str(folder / "config.json")], check=True, timeout=120)
    path = config.output / "molecule.safetensors"
    assert read_weights(path, model=MODEL).progress["seen"] == 24
    assert MoleculeBackboneConfig(kind="molecule", checkpoint=str(path), steps=2).build("cpu").steps == 2


def test_the_loss_falls(tmp_path: Path, cache: Path) -> None:
    config = tiny(
        tmp_path / "run", cache, molecules=32 * 60, batch_size=32, report_every=32 * 15, checkpoint_seconds=60
    )
    reports = train_silently(config)
    assert reports[-1].loss < 0.9 * reports[0].loss
    assert reports[-1].held_out_loss < 0.95 * reports[0].held_out_loss
    assert {"strict_validity", "decoded_validity"} <= reports[-1].quality.keys()
    assert len(reports[-1].samples) == config.samples


def test_it_pauses_and_continues(tmp_path: Path, cache: Path) -> None:
    paused = tiny(tmp_path / "run", cache, pause_after_minutes=1e-6)
    assert train(paused, lambda progress: None).name == CHECKPOINT_NAME
    assert train(tiny(tmp_path / "run", cache), lambda progress: None).name == "molecule.safetensors"


def test_another_run_s_folder_is_refused(tmp_path: Path, cache: Path) -> None:
    train_silently(tiny(tmp_path / "run", cache, molecules=8))
    with pytest.raises(CheckpointError, match=r"seed = 0 \(now 1\)") as error:
        train_silently(tiny(tmp_path / "run", cache, seed=1))
    assert "\n" not in str(error.value)
    (tmp_path / "run" / CHECKPOINT_NAME).write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="truncated"):
        train_silently(tiny(tmp_path / "run", cache))


def test_the_budget_may_change(tmp_path: Path, cache: Path) -> None:
    train_silently(tiny(tmp_path / "run", cache, molecules=16))
    reports = train_silently(tiny(tmp_path / "run", cache, molecules=32))
    assert reports[0].seen > 16
    assert reports[-1].seen == 32


@given(seen=st.integers(0, 999), decay=st.floats(0.01, 1.0))
def test_the_rate_rises_stays_and_falls_to_zero(seen: int, decay: float) -> None:
    config = MoleculeTrainingConfig(output=Path("x"), molecules=1000, batch_size=2, decay=decay)
    factor = learning_rate_factor(seen, config)
    assert 0.0 <= factor <= 1.0
    if seen >= 100 and seen <= 1000 * (1 - decay):
        assert factor == pytest.approx(1.0)
    assert learning_rate_factor(1000, config) == 0.0


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31 - 1))
def test_random_turns_are_orthogonal_and_of_both_hands(seed: int) -> None:
    turns = training_loss.random_orthogonal(64, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(64, 3, 3), atol=1e-5, rtol=0)
    hands = torch.linalg.det(turns).sign()
    assert set(hands.tolist()) == {1.0, -1.0}


@pytest.mark.parametrize(
    "changes", [{"molecules": 0}, {"processes": 0}, {"epochs": 3}, {"network": {"width": 25, "heads": 2}}]
)
def test_wrong_settings_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MoleculeTrainingConfig.model_validate({"output": "x", **changes})
