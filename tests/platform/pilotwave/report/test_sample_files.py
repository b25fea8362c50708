"""Samples as files: invalid draws are told, pictures say what they leave out, and bad outputs are refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from pilotwave.errors import InputError
from pilotwave.report.sample_files import PICTURED, SUFFIXES, Drawn, check_output, write_samples
from pilotwave.report.sample_quality import measure_samples
from pilotwave.samples import ArraySample, ImageSample, Invalid, MoleculeSample

METHANOL = """
     test

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.4000    0.0000    0.0000 O   0  0
  1  2  1  0
M  END
"""


def molecules() -> list[Drawn]:
    methanol = MoleculeSample(METHANOL, "CO", False, 1)
    return [Drawn(0, 11, Invalid("more than one fragment")), Drawn(1, 12, methanol), Drawn(2, 13, methanol)]


def pictures(count: int) -> list[Drawn]:
    random = np.random.default_rng(0)
    return [
        Drawn(index, index, ImageSample(random.integers(0, 256, (4, 5, 3), dtype=np.uint8), None))
        for index in range(count)
    ]


def test_an_invalid_draw_is_in_the_table_with_its_reason_and_in_no_other_file(tmp_path: Path) -> None:
    assert write_samples(molecules(), tmp_path / "a.csv", "m") == "3 draws"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert rows[0] == {
        "index": "0", "seed": "11", "smiles": "", "strictly_valid": "", "repaired_hydrogens": "",
        "invalid": "more than one fragment",
    }  # fmt: skip
    assert rows[1]["repaired_hydrogens"] == "1"
    assert write_samples(molecules(), tmp_path / "a.smi", "m") == "2 valid samples"
    assert (tmp_path / "a.smi").read_text() == "CO m-1\nCO m-2\n"
    assert write_samples(molecules(), tmp_path / "sub" / "a.SDF", "m") == "2 valid samples"
    records = (tmp_path / "sub" / "a.SDF").read_text().split("$$$$\n")
    assert [record.splitlines()[0] for record in records[:2]] == ["m-1", "m-2"]
    assert ">  <seed>\n12\n" in records[0]


def test_arrays_and_pictures_are_stacked_without_the_invalid(tmp_path: Path) -> None:
    arrays = [Drawn(index, index, ArraySample(np.full(3, index, dtype=np.float32))) for index in range(4)]
    arrays[2] = Drawn(2, 2, Invalid("latent is not finite"))
    write_samples(arrays, tmp_path / "a.npy", "a")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), [[0, 0, 0], [1, 1, 1], [3, 3, 3]])
    write_samples(pictures(3), tmp_path / "p.npy", "p")
    assert np.load(tmp_path / "p.npy").shape == (3, 4, 5, 3)
    assert np.load(tmp_path / "p.npy").dtype == np.uint8


def test_a_picture_of_very_many_says_that_it_shows_the_first(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    assert write_samples(pictures(PICTURED), tmp_path / "p.png", "p") == f"{PICTURED} draws"
    told = write_samples(pictures(PICTURED + 1), tmp_path / "p.png", "p")
    assert told == f"the first {PICTURED} of {PICTURED + 1} draws"
    assert list(tmp_path.iterdir()) == [tmp_path / "p.png"]


@pytest.mark.parametrize("media", SUFFIXES)
def test_every_ending_of_a_media_passes_and_all_others_are_refused(media: str, tmp_path: Path) -> None:
    for suffix in SUFFIXES[media]:
        check_output(tmp_path / f"x{suffix}", media)
        check_output(tmp_path / f"x{suffix.upper()}", media)
    others = {suffix for suffixes in SUFFIXES.values() for suffix in suffixes} - set(SUFFIXES[media])
    for suffix in [*others, ".pdf", ""]:
        with pytest.raises(InputError, match="expected a file name that ends in"):
            check_output(tmp_path / f"x{suffix}", media)


def test_a_media_that_nobody_knows_has_no_output(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no output for 'sound' samples"):
        check_output(tmp_path / "x.wav", "sound")


def test_pictures_of_another_kind_than_the_judge_knows_have_a_diversity_only() -> None:
    found = measure_samples([item.sample for item in pictures(5)], "image")
    assert set(found.values) == {"valid", "diversity"}
    assert 0.2 < found.values["diversity"] < 0.6  # of noise: sqrt(1/6) = 0.41
    same = [ImageSample(np.zeros((28, 28, 1), dtype=np.uint8), "no such thing")] * 3
    alike = measure_samples(same, "image")
    assert alike.values == {"valid": 3, "diversity": 0.0}
