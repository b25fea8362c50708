"""The molecule model as a backbone: the contract, padding, sizes, refusals in one line, and the shipped quality."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from rdkit import Chem

from pilotwave.backbones.molecule import quality
from pilotwave.backbones.molecule.backbone import (
    MODEL,
    MoleculeBackbone,
    MoleculeBackboneConfig,
    build_network,
    builtin_weights,
)
from pilotwave.backbones.molecule.preconditioning import centre_and_mask
from pilotwave.backbones.molecule.representation import QM9
from pilotwave.errors import CheckpointError
from pilotwave.protocols import Backbone
from pilotwave.samples import MoleculeSample
from pilotwave.testing.backbone_contract import BackboneContract
from pilotwave.training.weights import Weights, read_weights, write_weights
from pilotwave.types import Draw

DRAWS = [Draw.of(3, 0, slot) for slot in range(20)]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return read_weights(builtin_weights(MODEL), model=MODEL)


@functools.cache
def build(**options: object) -> MoleculeBackbone:
    config = MoleculeBackboneConfig.model_validate({"kind": "molecule", **options})
    backbone = config.build("cpu")
    assert isinstance(backbone, MoleculeBackbone)
    return backbone


@pytest.fixture(scope="module")
def backbone() -> MoleculeBackbone:
    return build(steps=12)


class TestMoleculeBackbone(BackboneContract):
    tolerance = 0.0

    def make_backbone(self) -> Backbone:
        return build(steps=6)


def test_the_shipped_weights_are_small_and_say_how_far_they_came(weights: Weights) -> None:
    assert builtin_weights(MODEL).stat().st_size < 15_000_000
    assert weights.progress["seen"] >= 2_500_000
    assert weights.progress["strict_validity"] > 0.7
    assert weights.progress["decoded_validity"] > 0.95


def test_the_shipped_weights_keep_the_quality_they_are_shipped_for() -> None:
    """192 draws at 50 steps; the bounds are three standard errors below the figures of RESULTS.md."""
    sampled = quality.sample_molecules(build(), range(192))
    assert sampled.decoded / sampled.count >= 0.975, Counter(sampled.reasons)
    assert sampled.strict / sampled.count >= 0.82
    smiles = [molecule.smiles for molecule in sampled.molecules]
    assert quality.uniqueness(smiles) > 0.9
    for molecule in sampled.molecules:
        assert_is_chemistry(molecule)


def assert_is_chemistry(sample: MoleculeSample) -> None:
    molecule = Chem.MolFromMolBlock(sample.mol_block, removeHs=False)
    assert molecule is not None
    assert len(Chem.GetMolFrags(molecule)) == 1
    assert molecule.GetConformer().Is3D()
    assert all(not atom.GetFormalCharge() and not atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
    assert all(not atom.GetTotalNumHs() for atom in molecule.GetAtoms()), "every hydrogen is an atom of its own"
    assert Chem.CanonSmiles(sample.smiles) == sample.smiles
    assert Chem.MolToSmiles(Chem.RemoveHs(molecule), isomericSmiles=False) == sample.smiles
    assert sample.strictly_valid == (sample.repaired_hydrogens == 0)


def test_a_sample_is_the_same_bit_for_bit_in_any_batch(backbone: MoleculeBackbone) -> None:
    noise, conditions = backbone.draw_noise(DRAWS), backbone.draw_conditions(DRAWS)
    latents = backbone.sample(noise, conditions)
    order = torch.randperm(len(DRAWS), generator=torch.Generator().manual_seed(0))
    assert torch.equal(backbone.sample(noise[:, order], conditions[order]), latents[order])
    assert torch.equal(backbone.sample(noise[:, 7:8], conditions[7:8])[0], latents[7])


def test_nothing_in_padding_or_centre_of_mass_matters(backbone: MoleculeBackbone) -> None:
    noise, conditions = backbone.draw_noise(DRAWS), backbone.draw_conditions(DRAWS)
    present = torch.arange(QM9.slots) < conditions
    assert not noise[:, ~present].any()
    disturbed = noise + 5.0 * ~present[None, :, :, None]
    disturbed[..., :3] += 3.0
    latents = backbone.sample(noise, conditions)
    assert not latents[~present].any()
    torch.testing.assert_close(backbone.sample(disturbed, conditions), latents, atol=2e-3, rtol=0)
    torch.testing.assert_close(centre_and_mask(latents, present), latents, atol=1e-5, rtol=0)


def test_sizes_are_those_asked_for(backbone: MoleculeBackbone) -> None:
    counts = backbone.draw_conditions([Draw("size", seed) for seed in range(400)]).flatten().tolist()
    assert 0.75 < counts.count(9) / 400 < 0.92  # 83% of QM9 has nine heavy atoms
    fixed = build(steps=12, atoms=6)
    assert set(fixed.draw_conditions(DRAWS).flatten().tolist()) == {6}
    assert fixed.fingerprint != backbone.fingerprint
    conditions = fixed.draw_conditions(DRAWS)
    decoded = fixed.decode(fixed.sample(fixed.draw_noise(DRAWS), conditions), conditions)
    molecules = [item for item in decoded if isinstance(item, MoleculeSample)]
    assert molecules
    assert all(Chem.MolFromSmiles(item.smiles).GetNumAtoms() == 6 for item in molecules)


def test_wrong_shapes_and_conditions_are_named(backbone: MoleculeBackbone) -> None:
    noise, conditions = backbone.draw_noise(DRAWS), backbone.draw_conditions(DRAWS)
    with pytest.raises(ValueError, match="noise sequence of shape"):
        backbone.sample(noise[1:], conditions)
    with pytest.raises(ValueError, match="2 to 9 heavy atoms"):
        backbone.sample(noise, torch.full_like(conditions, 10))
    with pytest.raises(ValueError, match="conditions of shape"):
        backbone.sample(noise, conditions[:2])
    assert backbone.sample(noise[:, :0], conditions[:0]).shape == (0, QM9.slots, 13)


@pytest.mark.parametrize("fields", [{"steps": 0}, {"atoms": 1}, {"atoms": 10}, {"stepz": 5}, {"precision": "int8"}])
def test_wrong_settings_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MoleculeBackboneConfig.model_validate({"kind": "molecule", **fields})


def test_unusable_checkpoints_are_refused_in_one_line(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "molecule.safetensors"

    def refusal() -> str:
        with pytest.raises(CheckpointError) as error:
            build.__wrapped__(checkpoint=str(path))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no such file" in refusal()
    path.write_bytes(builtin_weights(MODEL).read_bytes()[:100_000])
    assert "truncated" in refusal()
    write_weights(path, weights.tensors, model="image", config=weights.config, progress={})
    assert "image" in refusal()
    smaller = {"network": {**weights.config["network"], "layers": 5}, "atom_counts": weights.config["atom_counts"]}
    for config in (
        {},
        {**weights.config, "network": {"width": 7}},
        {**weights.config, "atom_counts": [1]},
        smaller,
    ):
        write_weights(path, weights.tensors, model=MODEL, config=config, progress={})
        assert refusal()


def test_a_checkpoint_elsewhere_is_the_same_model(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "copy.safetensors"
    path.write_bytes(builtin_weights(MODEL).read_bytes())
    assert build(checkpoint=str(path)).fingerprint == build().fingerprint
    assert build_network(weights)[0].config.width == weights.config["network"]["width"]


def test_the_configuration_is_importable_without_rdkit() -> None:
    """The schema of a campaign is made from it, and `import pilotwave` must not need chemistry."""
    code = """
import sys
sys.modules["rdkit"] = None
from pilotwave.backbones.molecule.backbone import MoleculeBackboneConfig
MoleculeBackboneConfig(kind="molecule")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
