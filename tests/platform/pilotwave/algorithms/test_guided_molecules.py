"""Guidance while the sampler runs, on molecules: no frame, sizes that differ, slots that stay empty."""

import dataclasses

import pytest
import torch

pytest.importorskip("rdkit", reason="the molecule model needs rdkit")

from pilotwave.algorithms.flow_direct import FlowDirectConfig
from pilotwave.algorithms.lidar import LidarConfig
from pilotwave.algorithms.tfg import TrainingFreeGuidanceConfig
from pilotwave.backbones.molecule.backbone import MoleculeBackboneConfig
from pilotwave.samples import Invalid
from pilotwave.testing.algorithm_contract import generated, setting_of
from pilotwave.testing.small_networks import small_molecule_backbone
from pilotwave.types import Candidate, Draw, Observation, Status

CONFIGS = {
    "flow-direct": FlowDirectConfig(kind="flow-direct"),
    "flow-direct with path noise": FlowDirectConfig(kind="flow-direct", path_noise="drawn", field_size=4),
    "lidar": LidarConfig(kind="lidar", lookahead_samples=5),
    "tfg": TrainingFreeGuidanceConfig(kind="tfg"),
}


@pytest.fixture
def backbone():
    return small_molecule_backbone(steps=6)


def length(latents):
    """A loss that no rotation changes: the distance between the first two atoms, wanted small."""
    return (latents[:, 0, :3] - latents[:, 1, :3]).norm(dim=1).double()


def gyration(latents):
    """The radius of gyration in latent units; empty slots are zero."""
    present = latents[:, :, :3].abs().sum(dim=2) > 0
    return (latents[:, :, :3].square().sum(dim=(1, 2)) / present.sum(dim=1)).sqrt().double()


def told_by(backbone, proposal, score=length):
    draws, batch = generated(backbone, proposal)
    return [
        Observation(
            Candidate(
                draw.query_id,
                draw.seed,
                proposal.number,
                batch.noise_sequence[:, i],
                batch.latents[i],
                batch.conditions[i],
                None,
            ),
            Status.OK,
            float(score(batch.latents[i : i + 1])),
        )
        for i, draw in enumerate(draws)
    ]


def turned(observation, seed):
    """The same molecule in another frame."""
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed))).Q
    latent = observation.candidate.latent.clone()
    latent[:, :3] = latent[:, :3] @ rotation
    return dataclasses.replace(observation, candidate=dataclasses.replace(observation.candidate, latent=latent))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_plain_sampler_gives_the_latents_again_and_empty_slots_stay_empty(name, backbone):
    algorithm = CONFIGS[name].build(setting_of(backbone))
    algorithm.tell(told_by(backbone, algorithm.ask(20)))
    draws, batch = generated(backbone, algorithm.ask(12))
    start = backbone.draw_noise(draws)
    assert batch.latents.isfinite().all()
    assert batch.passes == 1
    assert (batch.noise_sequence[start == 0] == 0).all()
    assert not torch.allclose(batch.noise_sequence, start, atol=1e-2)
    again = backbone.sample(batch.noise_sequence, batch.conditions)
    torch.testing.assert_close(again, batch.latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in CONFIGS if "noise" not in name])
def test_the_frame_of_an_answer_does_not_matter(name, backbone):
    """Path noise has a frame of its own, so only its distribution is free of the answers' frame."""
    latents = []
    for turn in (False, True):
        algorithm = CONFIGS[name].build(setting_of(backbone))
        told = told_by(backbone, algorithm.ask(15))
        algorithm.tell([turned(item, i) for i, item in enumerate(told)] if turn else told)
        latents.append(generated(backbone, algorithm.ask(8))[1].latents)
    torch.testing.assert_close(latents[0], latents[1], rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes_of_which_nothing_is_known_are_not_guided(name, backbone):
    algorithm = CONFIGS[name].build(setting_of(backbone))
    told = told_by(backbone, algorithm.ask(30))
    algorithm.tell([item for item in told if int(item.candidate.condition) != 4])
    draws, batch = generated(backbone, algorithm.ask(20))
    start, unknown = backbone.draw_noise(draws), batch.conditions[:, 0] == 4
    assert unknown.any()
    assert torch.equal(batch.noise_sequence[:, unknown], start[:, unknown])
    for place in torch.nonzero(~unknown)[:, 0]:
        assert not torch.equal(batch.noise_sequence[:, place], start[:, place])


@pytest.fixture(scope="module")
def molecules():
    """The built-in model, and what it makes of some draws without guidance."""
    backbone = MoleculeBackboneConfig(kind="molecule", steps=20, atoms=7).build("cpu")
    draws = [Draw.of(8, 8, slot) for slot in range(12)]
    told = told_by(backbone, CONFIGS["tfg"].build(setting_of(backbone)).ask(30), gyration)
    return backbone, told, draws, backbone.sample(backbone.draw_noise(draws), backbone.draw_conditions(draws))


@pytest.mark.parametrize("name", [name for name in CONFIGS if "noise" not in name])
def test_real_molecules_become_more_compact_and_stay_molecules(name, molecules):
    backbone, told, draws, unguided = molecules
    algorithm = CONFIGS[name].build(setting_of(backbone))
    algorithm.ask(30)
    algorithm.tell(told)
    batch = algorithm.ask(12).plan.generate(backbone, draws)
    assert gyration(batch.latents).mean() < gyration(unguided).mean() - 0.5 * gyration(unguided).std()
    decoded = backbone.decode(batch.latents, batch.conditions)
    assert sum(not isinstance(sample, Invalid) for sample in decoded) >= 10
