"""Random search: contract, and samples that are the backbone's own."""

import torch

from pilotwave.algorithms.random_search import RandomSearchConfig
from pilotwave.testing.algorithm_contract import AlgorithmContract, generated, setting_of, small_backbone


class TestRandomSearch(AlgorithmContract):
    learns_from_earlier_answers = False

    def make_algorithm(self, setting):
        return RandomSearchConfig(kind="random").build(setting)


def test_samples_are_unguided():
    backbone = small_backbone()
    algorithm = RandomSearchConfig(kind="random").build(setting_of(backbone))
    draws, batch = generated(backbone, algorithm.ask(6))
    noise = backbone.draw_noise(draws)
    assert batch.passes == 1
    assert torch.equal(batch.noise_sequence, noise)
    assert torch.equal(batch.latents, backbone.sample(noise, batch.conditions))
