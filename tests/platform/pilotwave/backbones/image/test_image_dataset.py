"""The idx reader: what was written is read; damaged files give one line, never a traceback."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pilotwave.backbones.image import dataset
from pilotwave.errors import InputError

INSTALLED = (dataset.DEBIAN_FOLDER / "train-images-idx3-ubyte.gz").is_file()


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def almost_idx(count: int, tail: bytes) -> bytes:
    return bytes([0, 0, 8, 1]) + struct.pack(">I", count) + tail


def some_bytes(count: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, random.integers(0, 10, count, dtype=np.uint8)


def write_split(folder: Path, images: np.ndarray, labels: np.ndarray, prefix: str = "train") -> None:
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
    (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


@settings(max_examples=50, deadline=None)
@given(
    array=arrays.arrays(np.uint8, arrays.array_shapes(max_dims=4, max_side=5)),
    zipped=st.booleans(),
)
def test_any_shape_is_read_plain_or_zipped(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, zipped: bool
) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    np.testing.assert_array_equal(dataset.read_idx(path), array)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=40) | st.builds(almost_idx, st.integers(0, 9), st.binary(max_size=9)))
def test_foreign_bytes_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(data)
    whole = len(data) >= 8 and data[:4] == b"\0\0\x08\x01" and len(data) == 8 + int.from_bytes(data[4:8], "big")
    if whole:
        assert idx(dataset.read_idx(path)) == data
        return
    with pytest.raises(InputError) as caught:
        dataset.read_idx(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), zipped=st.booleans())
def test_a_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, share: float, zipped: bool) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    data = idx(some_bytes()[0])
    data = gzip.compress(data) if zipped else data
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError):
        dataset.read_idx(path)


def test_a_users_folder_is_read(tmp_path: Path) -> None:
    images, labels = some_bytes()
    write_split(tmp_path, images, labels)
    write_split(tmp_path, images[:2], labels[:2], "t10k")
    train, held_out = dataset.load("train", tmp_path), dataset.load("held-out", tmp_path)
    np.testing.assert_array_equal(train.images[..., 0], images)
    np.testing.assert_array_equal(train.labels, labels)
    assert len(held_out) == 2
    assert train.digest() != held_out.digest()


def test_the_digest_sees_every_pixel_and_label(tmp_path: Path) -> None:
    images, labels = some_bytes()
    first = dataset.LabelledImages(images, labels.astype(np.int64)).digest()
    images[3, 4, 5] ^= 1
    second = dataset.LabelledImages(images, labels.astype(np.int64)).digest()
    labels[1] = (labels[1] + 1) % 10
    third = dataset.LabelledImages(images, labels.astype(np.int64)).digest()
    assert len({first, second, third}) == 3


def test_a_missing_file_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="apt install dataset-fashion-mnist") as caught:
        dataset.load("train", tmp_path)
    assert "train-images-idx3-ubyte" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_images_and_labels_must_fit_together(tmp_path: Path) -> None:
    images, labels = some_bytes()
    for wrong_images, wrong_labels in (
        (images, labels[:-1]),
        (images[:, :27], labels),
        (images[:0], labels[:0]),
        (images, labels + 10),
        (labels, labels),
    ):
        write_split(tmp_path, wrong_images, wrong_labels)
        with pytest.raises(InputError, match="expected"):
            dataset.load("train", tmp_path)


@pytest.mark.skipif(not INSTALLED, reason="the Debian package dataset-fashion-mnist is not installed")
def test_the_debian_package_holds_sixty_and_ten_thousand() -> None:
    train, held_out = dataset.load("train"), dataset.load("held-out")
    assert np.bincount(train.labels).tolist() == [6000] * 10
    assert np.bincount(held_out.labels).tolist() == [1000] * 10
    assert train.images.mean() == pytest.approx(72.94, abs=0.01)
