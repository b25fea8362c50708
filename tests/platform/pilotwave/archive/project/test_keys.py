"""The same question is the same question: geometry turned, shifted and renumbered, images, arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.archive.project import EvaluationKey, canonical_form
from pilotwave.archive.project.geometry import geometry_fingerprint, handedness, parse_mol_block
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample
from pilotwave.testing.answer_records import water

ELEMENTS = ["C", "F", "Cl", "Br", "H"]
CHIRAL = np.array([[0, 0, 0], [1.4, 0.1, 0.2], [-0.6, 1.6, 0.1], [-0.5, -0.7, 1.7], [-0.4, -0.5, -0.9]])


def block(elements: list[str], positions: np.ndarray, version: str = "V2000") -> str:
    if version == "V3000":
        rows = [
            f"M  V30 {i} {e} {x:.4f} {y:.4f} {z:.4f} 0"
            for i, (e, (x, y, z)) in enumerate(zip(elements, positions, strict=True), 1)
        ]
        return "\n".join(
            [
                "",
                "  test",
                "",
                "  0  0  0     0  0            999 V3000",
                "M  V30 BEGIN CTAB",
                "M  V30 COUNTS 5 0 0 0 0",
                "M  V30 BEGIN ATOM",
                *rows,
                "M  V30 END ATOM",
                "M  V30 END CTAB",
                "M  END",
            ]
        )
    rows = [f"{x:10.4f}{y:10.4f}{z:10.4f} {e:<3} 0  0" for e, (x, y, z) in zip(elements, positions, strict=True)]
    return "\n".join(["", "  test", "", f"{len(rows):3d}  0  0  0  0  0  0  0  0  0999 V2000", *rows, "M  END"])


def turned(seed: int) -> np.ndarray:
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))


@given(seed=st.integers(0, 2**32), shift=st.floats(-50, 50), order=st.permutations(range(5)))
@settings(max_examples=50, deadline=None)
def test_turning_shifting_and_renumbering_change_nothing(seed: int, shift: float, order: list[int]) -> None:
    # Distances of these positions keep away from the edges of rounding.
    moved = (CHIRAL @ turned(seed) + shift)[list(order)]
    again = geometry_fingerprint([ELEMENTS[place] for place in order], moved)
    assert again == geometry_fingerprint(ELEMENTS, CHIRAL)


def test_distances_of_the_example_keep_away_from_the_edges_of_rounding() -> None:
    distances = np.linalg.norm(CHIRAL[:, None] - CHIRAL[None], axis=-1) / 0.01
    assert (np.abs(distances % 1 - 0.5) > 1e-6).all()


@given(atom=st.integers(0, 4), axis=st.integers(0, 2), step=st.floats(0.05, 1.0))
@settings(max_examples=50, deadline=None)
def test_another_geometry_is_another_question(atom: int, axis: int, step: float) -> None:
    moved = CHIRAL.copy()
    moved[atom, axis] += step
    assert geometry_fingerprint(ELEMENTS, moved) != geometry_fingerprint(ELEMENTS, CHIRAL)


def test_elements_and_mirror_images_count() -> None:
    mirrored = CHIRAL * np.array([1, 1, -1])
    assert geometry_fingerprint(ELEMENTS, mirrored) != geometry_fingerprint(ELEMENTS, CHIRAL)
    assert handedness(ELEMENTS, mirrored) == -handedness(ELEMENTS, CHIRAL) != 0
    assert geometry_fingerprint(["C", "Cl", "F", "Br", "H"], CHIRAL) != geometry_fingerprint(ELEMENTS, CHIRAL)
    flat = CHIRAL * np.array([1, 1, 0])
    assert handedness(ELEMENTS, flat) == 0
    assert geometry_fingerprint(ELEMENTS, flat) == geometry_fingerprint(ELEMENTS, flat * np.array([-1, 1, 1]))
    assert geometry_fingerprint(["H"], CHIRAL[:1]) == geometry_fingerprint(["H"], CHIRAL[1:2])


@pytest.mark.parametrize("version", ["V2000", "V3000"])
def test_mol_blocks_are_read(version: str) -> None:
    atoms = parse_mol_block(block(ELEMENTS, CHIRAL, version))
    assert atoms is not None
    assert atoms[0] == ELEMENTS
    assert np.allclose(atoms[1], CHIRAL, atol=1e-4)


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_a_block_that_cannot_be_read_stands_for_itself(text: str) -> None:
    one, other = (canonical_form(MoleculeSample(item, "C")) for item in (text, text + " "))
    assert one != other
    assert one.startswith("C|block:")


def test_a_molecule_is_its_smiles_and_its_geometry() -> None:
    sample = water()
    atoms = parse_mol_block(sample.mol_block)
    assert atoms is not None
    elements, positions = atoms
    moved = MoleculeSample(block(elements[::-1], (positions @ turned(3) + 2)[::-1], "V3000"), sample.smiles)
    assert canonical_form(moved) == canonical_form(sample)
    assert canonical_form(water(7)) != canonical_form(sample)
    assert canonical_form(water(7), geometry=False) == canonical_form(sample, geometry=False) == "O"


def test_images_and_arrays_are_their_numbers() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert canonical_form(ImageSample(pixels, "boot")) == canonical_form(ImageSample(pixels, "shoe"))
    assert canonical_form(ImageSample(pixels)) != canonical_form(ImageSample(pixels[::-1]))
    array = ArraySample(np.ones(3, np.float32))
    assert canonical_form(array) == array.identity()


def test_the_digest_of_a_question_leaves_the_fidelity_out() -> None:
    words = {"oracle": "a", "oracle_version": "b", "oracle_parameters": "c"}
    key = EvaluationKey.of(ArraySample(np.ones(3, np.float32)), **words, fidelity="coarse")
    assert key.digest() == replace(key, fidelity=None).digest()
    assert 0 <= key.digest() < 2**63
    assert len({replace(key, **{name: "ab"}).digest() for name in [*words, "canonical"]} | {key.digest()}) == 5
