"""Training: the same end after kill -9, its own schedule, and refusals in one line."""

from __future__ import annotations

import gzip
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pilotwave.backbones.image import dataset
from pilotwave.backbones.image.backbone import BUILTIN_WEIGHTS, ImageBackboneConfig
from pilotwave.backbones.image.judge import BUILTIN_JUDGE
from pilotwave.backbones.image.network import ImageNetworkConfig, PictureFormat
from pilotwave.backbones.image.sources import load_source
from pilotwave.backbones.image.training import CHECKPOINT_NAME, ImageTrainingConfig, rate_factor, train
from pilotwave.backbones.image.training_data import TrainingData
from pilotwave.errors import CheckpointError, ConfigError, InputError
from pilotwave.storage import load_checkpoint
from pilotwave.training.collapse import CollapseError
from pilotwave.training.progress import TrainingProgress, TrainingWatcher
from pilotwave.training.weights import read_weights
from pilotwave.types import Draw

STEPS = 9
TRAIN_AND_TELL = """
import sys
from pathlib import Path
from pilotwave.backbones.image.training import ImageTrainingConfig, train
config = ImageTrainingConfig.model_validate_json(Path(sys.argv[1]).read_text())
train(config, lambda progress: print(progress.seen, flush=True))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-three pictures, so that epochs end within batches: bright squares at a place of their class."""
    folder = tmp_path_factory.mktemp("idx")
    random = np.random.default_rng(0)
    for prefix, count in (("train", 43), ("t10k", 8)):
        labels = random.integers(0, 10, count, dtype=np.uint8)
        images = random.integers(0, 30, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 8, 5:20] = 220
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def tiny(output: Path, data: Path, **changes: object) -> ImageTrainingConfig:
    fields: dict[str, object] = {
        "output": output,
        "data": data,
        "images": 8 * STEPS,
        "batch_size": 8,
        "network": ImageNetworkConfig(widths=(8, 16), blocks=(1, 2), head_width=8, embedding=16),
        "report_every": 1,
        "evaluate_every": 24,
        "checkpoint_seconds": 0,
        "samples": 10,
    }
    return ImageTrainingConfig.model_validate(fields | changes)


def train_silently(config: ImageTrainingConfig) -> list[TrainingProgress]:
    reports: list[TrainingProgress] = []
    train(config, reports.append)
    return reports


def train_and_kill(config: ImageTrainingConfig, after_reports: int, folder: Path) -> int:
    """Trains in a process of its own, killed without warning; returns how far it said it was."""
    (folder / "config.json").write_text(config.model_dump_json())
    command = [sys.executable, "-c", TRAIN_AND_TELL, str(folder / "config.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(after_reports)]
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return seen[-1]


def test_a_killed_run_ends_bit_for_bit_like_an_undisturbed_one(tmp_path: Path, data: Path) -> None:
    undisturbed = tiny(tmp_path / "undisturbed", data)
    train_silently(undisturbed)
    killed = tiny(tmp_path / "killed", data)
    assert train_and_kill(killed, 4, tmp_path) < killed.images
    reports = train_silently(killed)
    assert len(reports) < STEPS
    assert reports[-1].seen == reports[-1].total == killed.images
    one, other = (load_checkpoint(config.output / CHECKPOINT_NAME) for config in (undisturbed, killed))
    assert one["step"] == other["step"] == STEPS
    for name, tensor in one["network"].items():
        assert torch.equal(tensor, other["network"][name]), name
    for name, tensor in one["average"]["average"].items():
        assert torch.equal(tensor, other["average"]["average"][name]), name
    paths = [config.output / "image.safetensors" for config in (undisturbed, killed)]
    first, second = (read_weights(path, model="image") for path in paths)
    assert first.fingerprint == second.fingerprint
    assert first.progress == second.progress


def test_a_finished_run_trains_no_further_unless_its_budget_grows(tmp_path: Path, data: Path) -> None:
    config = tiny(tmp_path / "run", data, images=16)
    train_silently(config)
    before = read_weights(config.output / "image.safetensors", model="image")
    assert train_silently(config) == []
    assert read_weights(config.output / "image.safetensors", model="image").fingerprint == before.fingerprint
    reports = train_silently(tiny(tmp_path / "run", data, images=32))
    assert [report.seen for report in reports] == [24, 32]
    after = read_weights(config.output / "image.safetensors", model="image")
    assert after.fingerprint != before.fingerprint
    assert after.progress["images_seen"] == 32


def test_a_run_that_is_told_to_stop_saves_and_goes_on_later(tmp_path: Path, data: Path) -> None:
    class Impatient(TrainingWatcher):
        seen = 0

        def tick(self, seen: int, total: int, loss: float) -> None:
            self.seen = seen

        def must_stop(self) -> bool:
            return self.seen == 24

    config = tiny(tmp_path / "run", data, checkpoint_seconds=60)
    assert train(config, Impatient()) == config.output / CHECKPOINT_NAME
    assert load_checkpoint(config.output / CHECKPOINT_NAME)["step"] == 3
    assert train_silently(config)[-1].seen == config.images


def test_the_finished_weights_make_a_backbone(tmp_path: Path, data: Path) -> None:
    path = train(tiny(tmp_path / "run", data, images=8), lambda progress: None)
    backbone = ImageBackboneConfig(kind="image", checkpoint=str(path), steps=2).build("cpu")
    latents = backbone.sample(torch.randn(3, 2, 1, 28, 28), torch.tensor([[1], [2]]))
    assert latents.shape == (2, 1, 28, 28)


def test_training_lowers_the_loss_on_pictures_it_never_saw(tmp_path: Path, data: Path) -> None:
    rates = {"learning_rate": 5e-3, "matrix_learning_rate": 2e-2}
    changes = rates | {"images": 1280, "batch_size": 32, "ema_decay": 0.8, "evaluate_every": 128}
    reports = train_silently(tiny(tmp_path / "run", data, checkpoint_seconds=60, **changes))
    losses = [report.held_out_loss for report in reports if report.held_out_loss is not None]
    assert losses[-1] < 0.7 * losses[0]
    assert reports[-1].fraction == 1.0


@pytest.mark.parametrize(
    "changes",
    [{"learning_rate": 1e-4}, {"seed": 1}, {"network": {"widths": (8, 8), "blocks": (1, 2), "head_width": 8}}],
)
def test_another_runs_folder_is_refused(tmp_path: Path, data: Path, changes: dict[str, object]) -> None:
    train_silently(tiny(tmp_path, data, images=8))
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    with pytest.raises(CheckpointError, match=f"another training run.*{next(iter(changes))}") as caught:
        train_silently(tiny(tmp_path, data, images=8, **changes))
    assert "\n" not in str(caught.value)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, data: Path) -> None:
    (tmp_path / CHECKPOINT_NAME).write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="truncated or of another kind"):
        train_silently(tiny(tmp_path, data))


def test_missing_data_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "t10k-labels-idx1-ubyte.gz").touch()
    with pytest.raises(InputError, match="dataset-fashion-mnist"):
        train_silently(tiny(tmp_path, tmp_path))


def test_a_diverged_run_stops_and_keeps_its_last_good_checkpoint(tmp_path: Path, data: Path) -> None:
    config = tiny(tmp_path, data, images=8 * 400, warm_up=0.0).model_copy(update={"learning_rate": 1e30})
    with pytest.raises((InputError, CheckpointError), match="diverged"):
        train_silently(config)


def test_training_begins_from_given_weights(tmp_path: Path, data: Path) -> None:
    first = train(tiny(tmp_path / "first", data, images=32), lambda progress: None)
    slow = {"images": 8, "learning_rate": 1e-9, "matrix_learning_rate": 1e-9, "network": None}
    second = train(tiny(tmp_path / "second", data, start=str(first), **slow), lambda progress: None)
    before, after = (read_weights(path, model="image") for path in (first, second))
    for name, tensor in before.tensors.items():
        torch.testing.assert_close(after.tensors[name], tensor, atol=1e-3, rtol=1e-2)
    assert after.progress["images_seen"] == 8
    assert after.progress["training"]["start"] == before.fingerprint


def test_a_start_of_another_model_or_shape_is_one_line(tmp_path: Path, data: Path) -> None:
    first = train(tiny(tmp_path / "first", data, images=8), lambda progress: None)

    def refusal(start: str, folder: Path = data) -> str:
        with pytest.raises(CheckpointError) as caught:
            train_silently(tiny(tmp_path / "second", folder, start=start))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "of model 'judge'" in refusal(str(BUILTIN_JUDGE))
    assert "no such file" in refusal(str(tmp_path / "none.safetensors"))
    assert "has widths" in refusal("builtin")
    folder = pictures_of_classes(tmp_path / "pictures", ("bag", "spaceship"), 28)
    assert "of 2 classes (bag, spaceship)" in refusal(str(first), folder)
    small = pictures_of_classes(tmp_path / "small", ("bag", "coat"), 16)
    assert "16x16" in refusal(str(first), small)


def pictures_of_classes(folder: Path, names: tuple[str, ...], side: int, varied: bool = True) -> Path:
    """Twenty grey pictures of every class, alike but for a few pixels unless varied."""
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for place in range(20):
            picture = random.integers(0, 2, (side, side), dtype=np.uint8) * np.uint8(255 if varied else 3)
            image.fromarray(picture).save(folder / name / f"{place}.png")
    return folder


def test_a_users_folder_of_any_size_and_class_trains(tmp_path: Path) -> None:
    folder = pictures_of_classes(tmp_path / "pictures", ("cat", "dog"), 20)
    config = tiny(tmp_path / "run", folder, images=16)
    reports: list[TrainingProgress] = []
    path = train(config, reports.append)
    assert "relative_diversity" in reports[-1].quality
    assert [sample.class_name for sample in reports[-1].samples[:3]] == ["cat", "dog", "cat"]
    backbone = ImageBackboneConfig(kind="image", checkpoint=str(path), steps=1, classes=("dog",)).build("cpu")
    assert backbone.latent_shape == (1, 20, 20)
    conditions = backbone.draw_conditions([Draw.of(0, 0, slot) for slot in range(5)])
    assert conditions.flatten().tolist() == [1] * 5
    with pytest.raises(ConfigError, match="did you mean 'dog'"):
        ImageBackboneConfig(kind="image", checkpoint=str(path), classes=("dogs",)).build("cpu")


def test_the_card_says_what_the_run_knows(tmp_path: Path, data: Path) -> None:
    train_silently(tiny(tmp_path / "run", data, images=24))
    card = (tmp_path / "run" / "MODEL_CARD.md").read_text()
    for expected in (
        str(data),
        "43 pictures to train on, 8 held out",
        "24 of 24 pictures seen",
        "Licence",
        "seed 0",
    ):
        assert expected in card
    assert "judge takes the sample for its class" in card


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures_of_classes(tmp_path_factory.mktemp("real") / "pictures", dataset.CLASS_NAMES, 28)


def test_fine_tuning_mixes_real_pictures_into_every_batch(tmp_path: Path, data: Path, real: Path) -> None:
    start = train(tiny(tmp_path / "first", data, images=8), lambda progress: None)
    own = pictures_of_classes(tmp_path / "own", ("bag", "coat"), 28, varied=False)
    config = tiny(tmp_path / "run", own, start=str(start), real=real, real_share=0.3, images=16, collapse_below=0)
    batches = TrainingData(config, load_source(own), read_picture_format(start))
    assert batches.real_per_batch == 3  # of eight: at least 30%
    for step in range(20):
        images, labels = batches.pictures(step)
        assert (images.reshape(8, -1).max(1) > 100).sum() == 3
        assert {dataset.CLASS_NAMES[label] for label in labels[:5]} <= {"bag", "coat"}
    train_silently(config)
    assert "Mixed in: 38% of every batch" in (config.output / "MODEL_CARD.md").read_text()
    wrong = pictures_of_classes(tmp_path / "wrong", ("bag",), 32)
    with pytest.raises(InputError, match="leave real out"):
        train_silently(tiny(tmp_path / "other", own, start=str(start), real=wrong))


def test_fine_tuning_that_collapses_stops_and_keeps_the_last_good_weights(tmp_path: Path) -> None:
    """A model of clothes varies much less than pictures of random pixels do."""
    own = pictures_of_classes(tmp_path / "own", ("bag", "coat"), 28)
    rates = {"learning_rate": 1e-9, "matrix_learning_rate": 1e-9}
    changes = {"real_share": 0, "images": 240, "collapse_below": 0.95, "network": None}
    config = tiny(tmp_path / "run", own, start="builtin", **rates, **changes)
    reports: list[TrainingProgress] = []
    with pytest.raises(
        CollapseError, match=r"samples collapsed.*2 measurements running.*last good weights"
    ) as caught:
        train(config, reports.append)
    assert [report.seen for report in reports if report.note] == [24, 48]
    assert "\n" not in str(caught.value)
    kept, given = (read_weights(p, model="image") for p in (config.output / "image.safetensors", BUILTIN_WEIGHTS))
    assert kept.progress["images_seen"] == 0
    for name, tensor in given.tensors.items():
        assert torch.equal(kept.tensors[name], tensor)


def read_picture_format(path: Path) -> PictureFormat:
    return PictureFormat.model_validate(read_weights(path, model="image").config["picture"])


@settings(deadline=None)
@given(step=st.integers(0, 999), warm_up=st.floats(0, 0.5), decay=st.floats(0, 0.5))
def test_the_learning_rate_rises_stays_and_falls_to_zero(step: int, warm_up: float, decay: float) -> None:
    config = ImageTrainingConfig(output=Path("unused"), images=1000, batch_size=1, warm_up=warm_up, decay=decay)
    factor = rate_factor(config, step)
    assert 0.0 < factor <= 1.0
    if warm_up * 1000 <= step <= (1 - decay) * 1000:
        assert factor == pytest.approx(1.0)
    if decay > 0.01:
        assert rate_factor(config, 999) <= 1.0 / (decay * 1000) + 1e-9


@pytest.mark.parametrize(
    "changes",
    [
        {"imagse": 3},
        {"images": 0},
        {"batch_size": 0},
        {"learning_rate": -1},
        {"precision": "int4"},
        {"network": {"widths": (0, 32)}},
        {"network": {"widths": (16, 16), "head_width": 32}},
        {"network": {"widths": (16,)}},
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, data: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        tiny(tmp_path, data, **changes)
