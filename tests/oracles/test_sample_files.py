"""Samples as files: other readers find in them what was put in."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from rdkit import Chem

from pilotwave.errors import OracleFailure
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample
from pilotwave_oracles.sample_files import npy_bytes, png_bytes, sdf_record, xyz_of
from pilotwave_oracles.xtb_water import WATER

images = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3, 4])),
    elements=st.integers(0, 255),
)


@given(images)
def test_another_reader_finds_the_same_pixels_in_a_png(pixels: np.ndarray) -> None:
    with Image.open(io.BytesIO(png_bytes(ImageSample(pixels)))) as image:
        image.load()
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_an_image_without_pixels_is_no_png() -> None:
    with pytest.raises(OracleFailure, match="sides of 1 to 65500 pixels, got 3x0") as caught:
        png_bytes(ImageSample(np.zeros((0, 3, 1), dtype=np.uint8)))
    assert caught.value.stage == "encode"


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_side=5), elements=st.floats(width=32)))
def test_an_array_file_holds_the_same_bits(array: np.ndarray) -> None:
    again = np.load(io.BytesIO(npy_bytes(ArraySample(array))))
    assert again.dtype == np.float32
    assert again.tobytes() == array.tobytes()
    assert again.shape == array.shape


def test_an_xyz_file_has_the_atoms_where_the_mol_block_has_them() -> None:
    xyz = xyz_of(MoleculeSample(WATER, "O"))
    assert (xyz.charge, xyz.multiplicity) == (0, 1)
    read = Chem.MolFromXYZBlock(xyz.text)
    assert [atom.GetSymbol() for atom in read.GetAtoms()] == ["O", "H", "H"]
    expected = Chem.MolFromMolBlock(WATER, removeHs=False).GetConformer().GetPositions()
    np.testing.assert_allclose(read.GetConformer().GetPositions(), expected, atol=1e-7)


def test_charge_and_radicals_go_into_charge_and_multiplicity() -> None:
    counts = "\n\n\n  2  1  0  0  0  0  0  0  0  0999 V2000\n"
    atoms = "    0.0000    0.0000    0.0000 O   0  0\n    0.9700    0.0000    0.0000 H   0  0\n"
    block = f"{counts}{atoms}  1  2  1  0\n"
    hydroxide = xyz_of(MoleculeSample(f"{block}M  CHG  1   1  -1\nM  END\n", "[OH-]"))
    radical = xyz_of(MoleculeSample(f"{block}M  RAD  1   1   2\nM  END\n", "[OH]"))
    assert (hydroxide.charge, hydroxide.multiplicity) == (-1, 1)
    assert (radical.charge, radical.multiplicity) == (0, 2)


def test_an_sdf_record_has_title_and_fields() -> None:
    text = sdf_record(MoleculeSample(WATER, "O"), "p0000-00", {"id": "p0000-00", "note": "a\n\nb"})
    supplier = Chem.SDMolSupplier()
    supplier.SetData(text + text, removeHs=False)
    assert len(supplier) == 2
    for molecule in supplier:
        assert molecule.GetProp("_Name") == molecule.GetProp("id") == "p0000-00"
        assert molecule.GetNumAtoms() == 3


def test_a_mol_block_without_an_end_is_no_record() -> None:
    with pytest.raises(OracleFailure, match="ends with 'M  END'"):
        sdf_record(MoleculeSample("no mol block", "?"), "a", {})
