"""Molecules in space: turned, never mirrored or stretched, and every atom is on the drawing."""

from __future__ import annotations

import io

import numpy as np
import pytest

pytest.importorskip("rdkit", reason="drawing molecules needs rdkit")
pytest.importorskip("matplotlib", reason="drawing molecules needs matplotlib")

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from pilotwave.report.ball_and_stick import draw_in_space, seen_widest
from pilotwave.report.molecule_cards import MoleculeCard, draw_cards
from pilotwave.samples import MoleculeSample


def sample(smiles: str) -> MoleculeSample:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(molecule, randomSeed=5) == 0
    return MoleculeSample(Chem.MolToMolBlock(molecule), smiles)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), atoms=st.integers(1, 12), flat=st.booleans())
def test_turning_keeps_every_distance_and_the_hand(seed: int, atoms: int, flat: bool) -> None:
    points = np.random.default_rng(seed).normal(size=(atoms, 3)) * [5.0, 3.0, 0.0 if flat else 1.0]
    turned = seen_widest(points)
    before = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(turned[:, None] - turned[None], axis=-1), before, atol=1e-9)
    if atoms >= 4:
        volumes = [np.linalg.det(places[1:4] - places[0]) for places in (points, turned)]
        assert volumes[0] == pytest.approx(volumes[1], abs=1e-8)
    np.testing.assert_allclose(turned[:, :2].max(0) + turned[:, :2].min(0), 0, atol=1e-9)


def test_a_drawing_has_the_colours_of_its_elements_and_nothing_reaches_the_edge() -> None:
    drawing = draw_in_space(sample("NCCO"), (356, 240))
    assert drawing.shape == (240, 356, 4)
    colours = {tuple(pixel) for pixel in drawing[..., :3].reshape(-1, 3).tolist()}
    assert {(25, 113, 194), (224, 49, 49), (73, 80, 87)} <= colours  # nitrogen, oxygen, carbon
    border = np.concatenate([drawing[0], drawing[-1], drawing[:, 0], drawing[:, -1]])
    assert (border[:, :3] == 255).all()


def test_cards_hold_formulas_structures_and_what_is_missing() -> None:
    cards = [
        MoleculeCard(sample("CCO"), "CCO", "draw 0", small_title=True),
        MoleculeCard(sample("CCO"), "CCO", "draw 0", in_space=True, small_title=True),
        MoleculeCard(None, "", "draw 1", small_title=True, reason="more than one fragment"),
        MoleculeCard(sample("CCO"), "C" * 81, "draw 2", small_title=True),
    ]
    page = np.asarray(Image.open(io.BytesIO(draw_cards(cards, columns=2))).convert("RGB"))
    assert page.shape == (680, 760, 3)
    inside = [page[top + 20 : top + 240, left + 20 : left + 360] for top in (0, 340) for left in (0, 380)]
    inks = [(cell < 200).any(-1).mean() for cell in inside]
    assert all(ink > 0.001 for ink in inks)
    assert inks[1] > 2 * inks[0]  # balls are fuller than lines
    long_title = page[340 + 262 : 340 + 300, 380:760]
    assert (long_title[:, 20:-20] < 100).any()
    assert not (long_title[:, :10] < 100).any()
    assert not (long_title[:, -10:] < 100).any()
