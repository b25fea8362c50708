"""An SDF of the user's own: what fits is read, what does not is counted, what is wrong is refused in one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from pilotwave.backbones.molecule import sdf
from pilotwave.backbones.molecule.representation import DRUGLIKE, QM9, EncodedMolecule
from pilotwave.errors import InputError


def block(molecule: Chem.Mol, title: str = "", *, flat: bool = False, marked: str = "3D") -> str:
    molecule = Chem.Mol(molecule)
    molecule.SetProp("_Name", title)
    if flat:
        conformer = molecule.GetConformer()
        for index, (x, y, _) in enumerate(conformer.GetPositions().tolist()):
            conformer.SetAtomPosition(index, (x, y, 0.0))
    return Chem.MolToMolBlock(molecule).replace("RDKit          3D", f"RDKit          {marked}")


def embed(smiles: str) -> Chem.Mol:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(molecule, randomSeed=3) == 0
    return molecule


def sdf_text(molecules: list[Chem.Mol]) -> str:
    return "".join(f"{block(molecule, f'm{i}')}> <score>\n{i}\n\n$$$$\n" for i, molecule in enumerate(molecules))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.sdf"


def refusal(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError) as error:
        sdf.load(path, QM9, path.parent / "cache")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert not list((path.parent / "cache").rglob("*.json")), "nothing half-done is kept"
    return message.removeprefix(f"{path}: ")


def test_molecules_are_read_as_they_are(
    path: Path, embedded: list[Chem.Mol], encoded: list[EncodedMolecule]
) -> None:
    path.write_text(sdf_text(embedded))
    read = sdf.load(path, QM9, path.parent / "cache")
    assert read.records == len(embedded)
    assert read.molecules.smiles.tolist() == [molecule.smiles for molecule in encoded]
    for row, molecule in enumerate(encoded):
        size = len(molecule.classes)
        assert (read.molecules.classes[row, :size] == molecule.classes).all()
        centred = molecule.positions - molecule.positions.mean(axis=0)
        np.testing.assert_allclose(read.molecules.positions[row, :size], centred, atol=2e-4)


def test_it_is_prepared_once_for_each_content_and_model(
    path: Path, embedded: list[Chem.Mol], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = path.parent / "cache"
    path.write_text(sdf_text(embedded))
    first = sdf.load(path, QM9, cache)
    assert sdf.load(path, DRUGLIKE, cache).molecules.positions.shape[1] == DRUGLIKE.slots
    zipped = path.with_suffix(".sdf.gz")
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    again = sdf.load(zipped, QM9, cache)
    assert (again.molecules.positions == first.molecules.positions).all()
    path.write_text(sdf_text(embedded[:-1]))
    assert len(sdf.load(path, QM9, cache).molecules) == len(embedded) - 1, "another content is read anew"
    path.write_text(sdf_text(embedded))
    monkeypatch.setattr(sdf, "encode_record", None)
    assert sdf.load(path, QM9, cache).text() == first.text(), "the first content is still known"


def test_what_does_not_fit_is_left_out_and_told(path: Path, embedded: list[Chem.Mol]) -> None:
    three_dimensional = [embed(smiles) for smiles in ("CCCCCCCCCC", "C[NH3+]", "CO.CO", "O")]
    conformer = Chem.Mol(embedded[6])
    positions = conformer.GetConformer()
    for index, position in enumerate(positions.GetPositions().tolist()):
        positions.SetAtomPosition(index, [2 * value for value in position])
    stretched = block(conformer)
    broken = block(embedded[0]).replace("  1  2  1  0", "  1 99  1  0")
    path.write_text(sdf_text(embedded + three_dimensional) + f"{stretched}$$$$\n{broken}$$$$\n")
    read = sdf.load(path, QM9, path.parent / "cache")
    assert len(read.molecules) == len(embedded)
    assert read.records == len(embedded) + 6
    counts = {reason[:20]: count for reason, count in read.left_out.items()}
    assert counts == {
        "not 2 to 9 heavy ato": 2,
        "its SMILES does not ": 2,
        "a charge, a radical,": 1,
        "RDKit cannot read th": 1,
    }
    assert read.text().startswith("22 of 28 molecules fit; 2 left out: ")


def test_no_coordinates_in_three_dimensions_is_refused(path: Path, embedded: list[Chem.Mol]) -> None:
    drawing = block(embedded[6], "a drawing", flat=True, marked="2D")
    message = refusal(path, sdf_text(embedded[:3]) + drawing + "$$$$\n")
    assert message.startswith("record 4 ('a drawing') has no coordinates in three dimensions; expected a conformer")
    nothing = Chem.MolToMolBlock(Chem.MolFromSmiles("CCO"))
    assert refusal(path, f"{nothing}$$$$\n{nothing}$$$$\n").startswith("record 1 and 1 other have no coordinates")


def test_a_planar_molecule_is_believed_to_be_three_dimensional(embedded: list[Chem.Mol]) -> None:
    planar = next(molecule for molecule in embedded if Chem.MolToSmiles(Chem.RemoveHs(molecule)) == "c1ccccc1")
    outcome = sdf.encode_record(block(planar, flat=True, marked="3D"), QM9)
    assert isinstance(outcome, EncodedMolecule)
    assert outcome.smiles == "c1ccccc1"


def test_unknown_elements_are_refused(path: Path, embedded: list[Chem.Mol]) -> None:
    bromine = block(embedded[0], "bromide").replace(" O ", " Br", 1)
    silicon = block(embedded[1], "silane").replace(" N ", " Si", 1)
    message = refusal(path, sdf_text(embedded[:2]) + f"{bromine}$$$$\n{silicon}$$$$\n{bromine}$$$$\n")
    assert message == (
        "record 3 ('bromide') and 2 others have elements that the model does not know (Br, Si); "
        "expected only C, F, H, N, O; take such molecules out of the file"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"  \n\n", "the file is empty"),
        (b"smiles,score\nCCO,1\n", "no record in it"),
        (bytes(range(256)) * 9, "no record in it"),
        (b"\x1f\x8b\x08\x00damaged", "damaged"),
        (
            b"x\n\n\n  2  1  0\ngarbage\nM  END\n$$$$\n",
            "not one of its records (1) can be used; most often: RDKit",
        ),
    ],
)
def test_files_that_are_no_sdf_are_refused(path: Path, content: bytes, expected: str) -> None:
    assert expected in refusal(path, content)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere.sdf", tmp_path):
        with pytest.raises(InputError, match=r"expected an SDF \(.sdf or .sdf.gz\), but: "):
            sdf.load(place, QM9, tmp_path)


def test_too_few_molecules_are_refused(path: Path, embedded: list[Chem.Mol]) -> None:
    message = refusal(path, sdf_text(embedded[:5] * 10))
    assert message.startswith("expected 20 different molecules at least, got 5 from 50 records (0 left out)")


def test_large_files_are_read_by_several_processes(
    path: Path, embedded: list[Chem.Mol], monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(sdf_text(embedded))
    alone = sdf.load(path, QM9, path.parent / "alone")
    monkeypatch.setattr(sdf, "_MANY", 1)
    monkeypatch.setattr(sdf, "_TOLD_EVERY", 10)
    lines: list[str] = []
    together = sdf.load(path, QM9, path.parent / "together", processes=2, announce=lines.append)
    assert lines == ["read 10 of 22 records of mine.sdf", "read 20 of 22 records of mine.sdf"]
    assert together.molecules.smiles.tolist() == alone.molecules.smiles.tolist()
    assert (together.molecules.positions == alone.molecules.positions).all()


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=200), lines=st.lists(st.sampled_from(["M  END", "$$$$", "  1  0  0", "abc"])))
def test_no_text_breaks_the_reader(text: str, lines: list[str]) -> None:
    outcome = sdf.encode_record("\n".join([text, *lines]), QM9)
    assert not isinstance(outcome, EncodedMolecule)
