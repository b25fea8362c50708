"""Encoding and decoding: what comes back is what went in, whatever its place, and never an impossible molecule."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pilotwave.backbones.molecule import bond_perception, decoding, qm9
from pilotwave.backbones.molecule.representation import (
    MOST_HYDROGENS,
    QM9,
    VALENCE,
    EncodedMolecule,
    NotRepresentable,
    encode_molecule,
)
from pilotwave.errors import MissingDependencyError

seeds = st.integers(0, 2**32 - 1)


def random_turn(random: np.random.Generator) -> np.ndarray:
    factor, triangle = np.linalg.qr(random.normal(size=(3, 3)))
    return factor * np.sign(np.diag(triangle))


def distances(molecule: EncodedMolecule) -> np.ndarray:
    """All distances (Å), sorted."""
    gaps = molecule.positions[:, None] - molecule.positions[None]
    return np.sort(np.linalg.norm(gaps, axis=-1), axis=None)


def test_every_embedded_molecule_comes_back(encoded: list[EncodedMolecule]) -> None:
    for molecule in encoded:
        decoded = decoding.decode_united_atoms(molecule.positions, molecule.classes.tolist(), QM9)
        assert decoded.smiles == molecule.smiles
        assert decoded.strictly_valid
        assert decoded.repaired_hydrogens == 0


def test_qm9_comes_back() -> None:
    """Every hundredth of the first 43,600 molecules: encoding, decoding and encoding again change nothing."""
    try:
        rows = list(itertools.islice(qm9.raw_molecules(), 0, 43_600, 100))
    except MissingDependencyError as reason:
        pytest.skip(str(reason))
    encoded = [molecule for molecule in map(qm9.encode_raw, rows) if molecule]
    assert len(encoded) >= 0.98 * len(rows)  # the rest are zwitterions and classes that do not fit
    for molecule in encoded:
        decoded = decoding.decode_united_atoms(molecule.positions, molecule.classes.tolist(), QM9, repair=False)
        assert decoded.smiles == molecule.smiles
        again = encode_molecule(decoded.molecule, QM9)
        assert again.classes.tolist() == molecule.classes.tolist()
        # Symmetric atoms may change places.
        np.testing.assert_allclose(distances(again), distances(molecule), atol=1e-4)


def test_slots_are_in_the_order_of_the_smiles(encoded: list[EncodedMolecule]) -> None:
    for molecule in encoded:
        heavy = Chem.MolFromSmiles(molecule.smiles)
        classes = [QM9.class_index[atom.GetSymbol(), atom.GetTotalNumHs()] for atom in heavy.GetAtoms()]
        assert molecule.classes.tolist() == classes
        bonded = Chem.GetAdjacencyMatrix(heavy).astype(bool)
        assert ((molecule.bonds > 0) == bonded).all()


@settings(deadline=None, max_examples=60)
@given(seed=seeds)
def test_decoding_does_not_depend_on_the_frame(encoded: list[EncodedMolecule], seed: int) -> None:
    random = np.random.default_rng(seed)
    molecule = encoded[seed % len(encoded)]
    moved = molecule.positions @ random_turn(random) + random.normal(size=3) * 10
    assert decoding.decode_united_atoms(moved, molecule.classes.tolist(), QM9).smiles == molecule.smiles


@settings(deadline=None, max_examples=60)
@given(seed=seeds)
def test_decoding_does_not_depend_on_the_order(encoded: list[EncodedMolecule], seed: int) -> None:
    molecule = encoded[seed % len(encoded)]
    order = np.random.default_rng(seed).permutation(len(molecule.classes))
    decoded = decoding.decode_united_atoms(molecule.positions[order], molecule.classes[order].tolist(), QM9)
    assert decoded.smiles == molecule.smiles


@settings(deadline=None, max_examples=80)
@given(seed=seeds)
def test_a_wrong_hydrogen_is_repaired_and_said(encoded: list[EncodedMolecule], seed: int) -> None:
    random = np.random.default_rng(seed)
    molecule = encoded[seed % len(encoded)]
    classes = molecule.classes.tolist()
    place = int(random.integers(len(classes)))
    atom = QM9.classes[classes[place]]
    wrong = [h for h in range(MOST_HYDROGENS[atom.element] + 1) if abs(h - atom.hydrogens) == 1]
    if not wrong:
        return
    classes[place] = QM9.class_index[atom.element, int(random.choice(wrong))]
    strict = decoding.decode_united_atoms(molecule.positions, classes, QM9, repair=False)
    assert not strict.valid, "one hydrogen off leaves an odd number of electrons"
    assert strict.reason
    decoded = decoding.decode_united_atoms(molecule.positions, classes, QM9)
    assert decoded.smiles == molecule.smiles
    assert decoded.repaired_hydrogens == 1
    assert not decoded.strictly_valid


@settings(deadline=None, max_examples=300)
@given(seed=seeds)
def test_whatever_is_sampled_only_possible_molecules_come_out(seed: int) -> None:
    """Random walks of atoms at bonding distances: mostly nonsense, and what decodes is chemistry."""
    random = np.random.default_rng(seed)
    atoms = int(random.integers(2, QM9.slots + 1))
    steps = random.normal(size=(atoms, 3))
    steps *= random.uniform(1.2, 1.6, (atoms, 1)) / np.linalg.norm(steps, axis=1, keepdims=True)
    decoded = decoding.decode_united_atoms(
        steps.cumsum(0), random.integers(0, len(QM9.classes), atoms).tolist(), QM9
    )
    if decoded.molecule is None:
        assert decoded.reason
        return
    molecule = decoded.molecule
    assert Chem.SanitizeMol(Chem.Mol(molecule), catchErrors=True) == 0
    assert len(Chem.GetMolFrags(molecule)) == 1
    Chem.Kekulize(molecule, clearAromaticFlags=True)
    for atom in molecule.GetAtoms():
        assert atom.GetFormalCharge() == 0
        assert atom.GetNumRadicalElectrons() == 0
        valence = sum(bond.GetBondTypeAsDouble() for bond in atom.GetBonds())
        assert valence == {"H": (1,), **VALENCE}[atom.GetSymbol()][0]
        assert not is_strained_cumulene(atom, molecule)
    assert (decoded.repaired_hydrogens == 0) == decoded.strictly_valid


def is_strained_cumulene(atom: Chem.Atom, molecule: Chem.Mol) -> bool:
    """Whether an sp atom lies in a ring of up to seven atoms."""
    orders = sorted(bond.GetBondTypeAsDouble() for bond in atom.GetBonds())
    linear = orders[-1:] == [3.0] or orders[-2:] == [2.0, 2.0]
    rings = [ring for ring in molecule.GetRingInfo().AtomRings() if atom.GetIdx() in ring and len(ring) <= 7]
    around = {bond.GetOtherAtomIdx(atom.GetIdx()) for bond in atom.GetBonds() if bond.GetBondTypeAsDouble() >= 2}
    inside = [ring for ring in rings if around <= set(ring)]
    return linear and bool(inside)


@settings(deadline=None, max_examples=150)
@given(seed=seeds, repair=st.booleans())
def test_the_bond_order_search_is_exact(seed: int, repair: bool) -> None:
    """Against all assignments, on random trees with chords (rings here are too few atoms to hold a cumulene)."""
    random = np.random.default_rng(seed)
    elements = random.choice(["C", "C", "C", "N", "O"], int(random.integers(2, 6))).tolist()
    hydrogens = [int(random.integers(MOST_HYDROGENS[element] + 1)) for element in elements]
    edges = [
        (int(random.integers(second)), second, float(random.uniform(1.15, 1.55)))
        for second in range(1, len(elements))
    ]
    penalty = bond_perception.HYDROGEN_PENALTY if repair else math.inf
    found = bond_perception.assign_bond_orders(elements, hydrogens, edges, penalty)
    best = brute_force(elements, hydrogens, edges, penalty)
    if found is None:
        assert best == math.inf
        return
    cost = found.chi_squared + (penalty * found.repaired_hydrogens if found.repaired_hydrogens else 0.0)
    assert cost == pytest.approx(best)


def brute_force(
    elements: list[str], hydrogens: list[int], edges: list[tuple[int, int, float]], penalty: float
) -> float:
    """Least cost over every combination of bond orders."""
    best = math.inf
    for orders in itertools.product((1, 2, 3), repeat=len(edges)):
        room = [VALENCE[element][0] for element in elements]
        for (first, second, _), order in zip(edges, orders, strict=True):
            room[first] -= order
            room[second] -= order
        most = [MOST_HYDROGENS[element] for element in elements]
        if not all(0 <= left <= limit for left, limit in zip(room, most, strict=True)):
            continue
        changes = sum(abs(left - sampled) for left, sampled in zip(room, hydrogens, strict=True))
        cost = sum(bond_cost(elements, edges, orders, index) for index in range(len(edges)))
        best = min(best, cost + (penalty * changes if changes else 0.0))
    return best


def bond_cost(
    elements: list[str], edges: list[tuple[int, int, float]], orders: tuple[int, ...], index: int
) -> float:
    first, second, length = edges[index]
    unsaturated = {atom for edge, order in zip(edges, orders, strict=True) if order > 1 for atom in edge[:2]}
    if orders[index] == 1:
        surroundings = (first in unsaturated) + (second in unsaturated)
    else:
        surroundings = 0
        for atom, partner in ((first, second), (second, first)):
            beside = {end for edge in edges if atom in edge[:2] for end in edge[:2]} - {atom, partner}
            surroundings += bool(beside & unsaturated)
    table = bond_perception.BOND_LENGTHS[bond_perception.pair_key(elements[first], elements[second])]
    if orders[index] not in table:
        return math.inf
    mean, spread = table[orders[index]][surroundings]
    return ((length - mean) / spread) ** 2


def test_two_fragments_and_broken_numbers_have_reasons() -> None:
    far = np.array([[0.0, 0, 0], [9.0, 0, 0]])
    assert "fragment" in decoding.decode_united_atoms(far, [3, 3], QM9).reason
    latent = np.full((QM9.slots, QM9.channels), np.nan)
    assert "finite" in decoding.decode_latent(latent, 5, 1.2, QM9).reason


@pytest.mark.parametrize("smiles", ["C", "CCCCCCCCCC", "CS", "C[N+](C)(C)C", "[CH3]", "C[N+](=O)[O-]"])
def test_what_does_not_fit_is_refused(smiles: str) -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    molecule.AddConformer(Chem.Conformer(molecule.GetNumAtoms()))
    with pytest.raises(NotRepresentable):
        encode_molecule(molecule, QM9)
