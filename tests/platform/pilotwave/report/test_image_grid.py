"""Pages of pictures: every pixel lands where it belongs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pilotwave.errors import StorageError
from pilotwave.report.image_grid import save_image_grid
from pilotwave.samples import ImageSample


def picture(seed: int, height: int = 6, width: int = 5, channels: int = 1) -> ImageSample:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return ImageSample(pixels)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 7), columns=st.integers(1, 9), zoom=st.integers(1, 3))
def test_every_picture_is_found_in_its_cell(
    tmp_path_factory: pytest.TempPathFactory, count: int, columns: int, zoom: int
) -> None:
    path = tmp_path_factory.mktemp("grid") / "grid.png"
    samples = [picture(seed) for seed in range(count)]
    save_image_grid(samples, path, columns=columns, zoom=zoom)
    page = np.asarray(Image.open(path))
    used = min(columns, count)
    rows = -(-count // used)
    assert page.shape == (4 + rows * (6 * zoom + 4), 4 + used * (5 * zoom + 4), 3)
    for place, sample in enumerate(samples):
        top = 4 + place // used * (6 * zoom + 4)
        left = 4 + place % used * (5 * zoom + 4)
        cell = page[top : top + 6 * zoom : zoom, left : left + 5 * zoom : zoom]
        np.testing.assert_array_equal(cell, sample.pixels.repeat(3, axis=2))


def test_colours_stay_and_transparency_lies_on_paper(tmp_path: Path) -> None:
    colour, glass = picture(1, channels=3), picture(2, channels=4)
    glass.pixels[..., 3] = 0
    save_image_grid([colour, glass], tmp_path / "new" / "grid.png", columns=2, zoom=1)
    page = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    np.testing.assert_array_equal(page[4:10, 4:9], colour.pixels)
    assert page[4:10, 13:18].min() == 255


def test_labels_are_written_below(tmp_path: Path) -> None:
    samples = [picture(seed, 28, 28) for seed in range(2)]
    save_image_grid(samples, tmp_path / "plain.png", columns=2)
    save_image_grid(samples, tmp_path / "named.png", columns=2, labels=["boot", "a name far too long for its cell"])
    plain, named = (np.asarray(Image.open(tmp_path / name)) for name in ("plain.png", "named.png"))
    assert named.shape[0] == plain.shape[0] + 14
    assert named[61:, 4:60].min() < 100
    assert named[61:, 120:].min() == 255
    with pytest.raises(ValueError, match="a label for each of 2"):
        save_image_grid(samples, tmp_path / "no.png", labels=["one"])


def test_no_pictures_and_no_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="samples"):
        save_image_grid([], tmp_path / "no.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not write"):
        save_image_grid([picture(0)], tmp_path / "file" / "no.png")
