"""The judge: calibrated, as good as it says, trained resumably, and kept away from anything that guides."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pilotwave
from pilotwave.backbones.image import dataset, judge_training
from pilotwave.backbones.image.judge import (
    BUILTIN_JUDGE,
    expected_calibration_error,
    fit_temperature,
    read_judge,
)
from pilotwave.backbones.image.judge_training import JudgeTrainingConfig
from pilotwave.errors import CheckpointError, InputError
from pilotwave.training.progress import TrainingProgress

INSTALLED = (dataset.DEBIAN_FOLDER / "train-images-idx3-ubyte.gz").is_file()


def some_logits(count: int, seed: int) -> torch.Tensor:
    return 2 * torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


def drawn_from(logits: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)[:, 0]


@settings(max_examples=15, deadline=None)
@given(temperature=st.floats(0.2, 5), seed=st.integers(0, 1000))
def test_the_temperature_that_spoiled_logits_is_found(temperature: float, seed: int) -> None:
    logits = some_logits(4000, seed)
    found = fit_temperature(logits * temperature, drawn_from(logits, seed + 1))
    assert found == pytest.approx(temperature, rel=0.15)


def test_calibration_error_of_honest_and_boastful_probabilities() -> None:
    logits = some_logits(20_000, 0)
    labels = drawn_from(logits, 1).numpy()
    assert expected_calibration_error(torch.softmax(logits, 1).numpy(), labels) < 0.02
    assert expected_calibration_error(torch.softmax(4 * logits, 1).numpy(), labels) > 0.1
    sure = np.tile([1.0, 0.0], (10, 1))
    assert expected_calibration_error(sure, np.zeros(10, np.int64)) == 0.0
    assert expected_calibration_error(sure, np.arange(10) % 2) == pytest.approx(0.5)


@pytest.mark.skipif(not INSTALLED, reason="the Debian package dataset-fashion-mnist is not installed")
def test_the_shipped_judge_is_as_good_as_it_says() -> None:
    judge, held_out = read_judge(), dataset.load("held-out")
    assert BUILTIN_JUDGE.stat().st_size < 1_000_000
    found = judge_training.measure(judge, held_out.select(np.arange(3000)))
    assert found["accuracy"] == pytest.approx(judge.measured["accuracy"], abs=0.015)
    assert found["expected_calibration_error"] < 0.02


def test_wrong_sizes_and_files_are_refused(tmp_path: Path) -> None:
    judge = read_judge()
    with pytest.raises(ValueError, match="expected pictures of shape"):
        judge(np.zeros((2, 32, 32, 1), np.uint8))
    assert judge(np.zeros((0, 28, 28, 1), np.uint8)).probabilities.shape == (0, 10)
    with pytest.raises(CheckpointError, match="of model 'image'"):
        read_judge(BUILTIN_JUDGE.with_name("image.safetensors"))
    with pytest.raises(CheckpointError, match="no such file"):
        read_judge(tmp_path / "none")


def test_nothing_that_samples_or_steers_knows_the_judge() -> None:
    """Only what measures and trains may import it: not the backbone, an algorithm, an oracle or the loop."""
    root = Path(pilotwave.__file__).parent
    allowed = {"judge.py", "judge_training.py", "quality.py", "evaluation.py"}
    guilty = []
    for path in [*root.rglob("*.py"), *(root.parents[1] / "oracles").rglob("*.py")]:
        rooms = {"algorithms", "backbones", "surrogates", "execution", "pilotwave_oracles"}
        if path.name in allowed or not rooms & set(path.parts):
            continue
        names = [
            name
            for node in ast.walk(ast.parse(path.read_text()))
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        ]
        guilty += [str(path) for name in names if name.endswith("image.judge")]
    assert not guilty


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Bright on the left or bright on top: two classes that mirroring and shifting leave apart."""
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    for name in ("dark", "bright"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for place in range(30):
            picture = random.integers(0, 60, (16, 16), dtype=np.uint8) + (150 if name == "bright" else 0)
            image.fromarray(picture.astype(np.uint8)).save(tmp_path / "data" / name / f"{place}.png")
    return tmp_path / "data"


def test_a_judge_of_a_users_folder_learns_resumes_and_writes_its_card(tmp_path: Path, folder: Path) -> None:
    def config(images: int, **changes: object) -> JudgeTrainingConfig:
        fields = {
            "output": tmp_path / "out",
            "data": folder,
            "images": images,
            "batch_size": 16,
            "report_every": 16,
        }
        return JudgeTrainingConfig.model_validate(fields | changes)

    reports: list[TrainingProgress] = []
    path = judge_training.train(config(640), reports.append)
    assert reports[-1].seen == 640
    judge = read_judge(path)
    assert judge.picture.class_names == ("bright", "dark")
    assert judge.measured["accuracy"] > 0.9
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "must never guide" in card
    assert str(folder) in card
    again: list[TrainingProgress] = []
    judge_training.train(config(640), again.append)
    assert again == []
    with pytest.raises(CheckpointError, match="another training run"):
        judge_training.train(config(640, seed=1), again.append)


def test_a_judge_of_one_class_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="two classes"):
        judge_training.train(JudgeTrainingConfig(output=tmp_path / "out", data=folder / "dark"), print)
