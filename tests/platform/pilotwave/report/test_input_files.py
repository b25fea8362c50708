"""Samples read from a user's files, and every refusal in one line that names the place."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("rdkit", reason="molecules need rdkit")
pytest.importorskip("PIL", reason="images need pillow")

from PIL import Image

from pilotwave.errors import InputError
from pilotwave.report.input_files import read_samples
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample

ALL = ("array", "image", "molecule")
WATER = """water

  by hand
  3  2  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.1064 O   0  0
    0.0000    0.7712   -0.4635 H   0  0
    0.0000   -0.7712   -0.4635 H   0  0
  1  2  1  0
  1  3  1  0
M  END
"""
BARE = "\n\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0000    0.0000    0.0000 C   0  0\nM  END\n"


def test_molecules_keep_their_blocks_names_and_order(tmp_path: Path) -> None:
    path = tmp_path / "two.sdf"
    path.write_text(f"{WATER}>  <note>\nof ours\n\n$$$$\n{BARE}$$$$\nrubbish\n$$$$\n\n")
    water, methane, rubbish = read_samples(path, ALL)
    assert isinstance(water.sample, MoleculeSample)
    assert (water.name, water.sample.smiles, water.sample.mol_block) == ("water", "O", WATER)
    assert (methane.name, methane.sample.label()) == ("two-2", "C")
    assert isinstance(rubbish.sample, MoleculeSample)
    assert rubbish.sample.mol_block == "rubbish\n"
    packed = tmp_path / "two.sdf.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [item.sample for item in read_samples(packed, ALL)][:1] == [water.sample]


def test_hydrogens_are_added_on_request(tmp_path: Path) -> None:
    path = tmp_path / "bare.mol"
    path.write_text(BARE)
    (before,) = read_samples(path, ALL)
    (after,) = read_samples(path, ALL, add_hydrogens=True)
    assert isinstance(before.sample, MoleculeSample)
    assert isinstance(after.sample, MoleculeSample)
    assert before.sample.mol_block == BARE
    assert after.sample.mol_block.count(" H ") == 4
    assert before.sample.smiles == after.sample.smiles == "C"


def test_images_come_from_a_folder_with_their_classes_or_alone(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colours = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    clear = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    (tmp_path / "bag").mkdir()
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(colours).save(tmp_path / "bag" / "b.png")
    Image.fromarray(clear).save(tmp_path / "bag" / "c.png")
    (tmp_path / "notes.txt").write_text("no image")
    found = read_samples(tmp_path, ALL)
    assert [item.name for item in found] == ["a.png", "bag/b.png", "bag/c.png"]
    for item, pixels, name in zip(found, (grey[..., None], colours, clear), (None, "bag", "bag"), strict=True):
        assert isinstance(item.sample, ImageSample)
        assert np.array_equal(item.sample.pixels, pixels)
        assert item.sample.class_name == name
    (alone,) = read_samples(tmp_path / "a.png", ("image",))
    assert alone.sample.identity() == found[0].sample.identity()


@pytest.mark.parametrize("text", ["1,2\n3,4\n", "a,b\n1,2\n3,4\n", "x,ID,y\n1,one,2\n\n3,two,4\n"])
def test_arrays_come_from_a_table(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    found = read_samples(path, ("array",))
    assert [item.name for item in found] == (["one", "two"] if "ID" in text else ["t-1", "t-2"])
    assert [item.sample.array.tolist() for item in found if isinstance(item.sample, ArraySample)] == [
        [1, 2],
        [3, 4],
    ]


def test_arrays_and_images_come_from_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(12.0).reshape(2, 2, 3))
    np.save(tmp_path / "b.npy", np.zeros((2, 4, 5), dtype=np.uint8))
    arrays = read_samples(tmp_path / "a.npy", ALL)
    assert [item.name for item in arrays] == ["a-1", "a-2"]
    assert isinstance(arrays[1].sample, ArraySample)
    assert arrays[1].sample.array.tolist() == [[6, 7, 8], [9, 10, 11]]
    (image, _) = read_samples(tmp_path / "b.npy", ("image",))
    assert isinstance(image.sample, ImageSample)
    assert image.sample.pixels.shape == (4, 5, 1)
    assert read_samples(tmp_path / "b.npy", ("array",))[0].sample.media == "array"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.sdf", None, "no such file; expected an .sdf"),
        ("a.xyz", b"3\n", "a.xyz: expected an .sdf"),
        ("a.sdf", b"", "there is nothing in it"),
        ("a.sdf", WATER.encode(), "expected array samples, got molecule samples"),
        ("a.csv", b"a,b\n", "there is nothing in it"),
        ("a.csv", b"a,b\n1,2\n3,x\n", "line 3: expected numbers, got 'x'"),
        ("a.csv", b"1,inf\n2,3\n4,nan\n", "line 3: expected numbers, got 'nan'"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read as CSV"),
        ("a.npy", b"no array", "expected arrays as numpy.save writes them"),
        ("a.png", b"no image", "expected an image"),
        ("a.sdf.gz", b"no gzip", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    name: str, content: bytes | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_samples(path, ("array",))
    assert "\n" not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.binary(max_size=120), name=st.sampled_from(["a.sdf", "a.csv", "a.npy", "a.png", "a.sdf.gz"]))
def test_any_bytes_are_samples_or_refused(data: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    try:
        found = read_samples(path, ALL)
    except InputError:
        return
    assert found
