"""A folder of pictures: classes, colours and sizes; what cannot be used gives one line that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.backbones.image.folder import held_out_rows, load_folder, picture_from_bytes
from pilotwave.backbones.image.network import PictureFormat
from pilotwave.backbones.image.sources import load_source
from pilotwave.errors import InputError

Image = pytest.importorskip("PIL.Image")


def write(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode).save(path)


def noise(seed: int, side: int = 16, channels: int = 3) -> np.ndarray:
    shape = (side, side) if channels == 1 else (side, side, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fill(folder: Path, count: int = 12, side: int = 16, channels: int = 3, suffix: str = "png") -> None:
    for seed in range(count):
        write(folder / f"{seed:03d}.{suffix}", noise(seed, side, channels))


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_source(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "PNG"])
def test_one_class_of_colour_pictures(tmp_path: Path, suffix: str) -> None:
    fill(tmp_path / "flowers", suffix=suffix)
    (tmp_path / "flowers" / "notes.txt").write_text("left alone")
    train, held_out = load_folder(tmp_path / "flowers")
    assert (len(train), len(held_out)) == (11, 1)
    assert train.picture == PictureFormat(channels=3, side=16, class_names=("flowers",))
    assert held_out.picture == train.picture


def test_sub_folders_are_classes_and_grey_stays_grey(tmp_path: Path) -> None:
    fill(tmp_path / "b" / "deeper", channels=1)
    write(tmp_path / "a" / "rgb.png", np.repeat(noise(50, channels=1)[..., None], 3, axis=2))
    train, held_out = load_folder(tmp_path)
    assert train.class_names == ("a", "b")
    assert train.images.shape[1:] == (16, 16, 1)
    assert sorted([*train.labels, *held_out.labels]) == [0] + [1] * 12
    everything = {image.tobytes() for image in [*train.images, *held_out.images]}
    assert noise(3, channels=1).tobytes() in everything


def test_transparent_pictures_are_laid_over_white(tmp_path: Path) -> None:
    fill(tmp_path)
    clear = noise(0, channels=4)
    clear[..., 3] = 0
    write(tmp_path / "clear.png", clear)
    train, held_out = load_folder(tmp_path)
    assert any((image == 255).all() for image in [*train.images, *held_out.images])


def test_an_empty_or_missing_folder_is_one_line(tmp_path: Path) -> None:
    assert "found 0" in refusal(tmp_path)
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")
    fill(tmp_path, count=9)
    assert "found 9" in refusal(tmp_path)


def test_mixed_sizes_name_the_file(tmp_path: Path) -> None:
    fill(tmp_path)
    write(tmp_path / "007.png", noise(7, side=20))
    message = refusal(tmp_path)
    assert "of one size" in message
    assert str(tmp_path / "007.png") in message
    assert "20x20" in message


@pytest.mark.parametrize("shape", [(16, 20), (18, 18), (12, 12), (132, 132)])
def test_a_size_that_no_model_has_names_the_file(tmp_path: Path, shape: tuple[int, int]) -> None:
    for seed in range(10):
        write(tmp_path / f"{seed}.png", np.full(shape, seed, dtype=np.uint8))
    message = refusal(tmp_path)
    assert str(tmp_path / "0.png") in message
    assert f"{shape[1]}x{shape[0]}" in message


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_an_unreadable_file_is_named(tmp_path: Path, data: bytes) -> None:
    fill(tmp_path)
    (tmp_path / "broken.png").write_bytes(data)
    assert str(tmp_path / "broken.png") in refusal(tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    fill(tmp_path, side=64)
    path = tmp_path / "003.png"
    path.write_bytes(path.read_bytes()[:3000])
    assert str(path) in refusal(tmp_path)


def test_pictures_in_the_folder_and_in_sub_folders_are_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path / "sub")
    assert "both in" in refusal(tmp_path)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=200))
def test_foreign_bytes_are_one_line(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        picture_from_bytes(data, "the-file.png")
    assert "\n" not in str(caught.value)
    assert "the-file.png" in str(caught.value)


@settings(deadline=None)
@given(count=st.integers(1, 60), copies=st.integers(1, 3))
def test_a_tenth_is_held_out_and_copies_stay_together(count: int, copies: int) -> None:
    images = np.stack([noise(seed, 4) for seed in range(count)])
    rows = held_out_rows(np.concatenate([images] * copies)).reshape(copies, count)
    assert (rows == rows[0]).all()
    assert rows[0].sum() == max(1, count // 10)


@settings(deadline=None)
@given(side=st.integers(4, 32).map(lambda quarter: 4 * quarter), channels=st.sampled_from([1, 3]))
def test_every_side_folds_into_an_even_grid(side: int, channels: int) -> None:
    picture = PictureFormat(channels=channels, side=side, class_names=("a",))
    assert side % (2 * picture.fold) == 0
    assert 8 <= side // picture.fold <= 64
