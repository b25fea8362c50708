"""CMA-ES by pycma: contract, that the update is pycma's own, and that it optimises."""

import numpy as np
import pytest
import torch

from pilotwave.algorithms.cma_es import CmaEsConfig, SeparableCma
from pilotwave.algorithms.random_search import RandomSearchConfig
from pilotwave.backbones.analytic import AnalyticBackboneConfig
from pilotwave.testing.algorithm_contract import (
    AlgorithmContract,
    distance_to_corner,
    generated,
    observed,
    setting_of,
    small_backbone,
)
from pilotwave.testing.hidden_target import batch_means, distance_to_hidden_sample

pytest.importorskip("cma")


def cma_es(setting, **options):
    return CmaEsConfig(kind="cma-es", **options).build(setting)


class TestCmaEs(AlgorithmContract):
    learns_from_earlier_answers = False

    def make_algorithm(self, setting):
        return cma_es(setting)


def test_the_update_is_the_one_of_pycma_s_own_loop():
    import cma
    from cma.sigma_adaptation import CMAAdaptSigmaCSA

    random = np.random.default_rng(0)
    options = {
        "CMA_diagonal": True,
        "AdaptSigma": CMAAdaptSigmaCSA,
        "popsize": 9,
        "verbose": -9,
        "randn": lambda *shape: random.standard_normal(shape),
        "seed": float("nan"),
    }
    loop = cma.CMAEvolutionStrategy(np.zeros(12), 1.3, options)
    ours = SeparableCma(12, 1.3, 9)
    for _ in range(30):
        solutions = loop.ask()
        losses = [float(np.sum((x - 0.3) ** 2 * np.arange(1, 13))) for x in solutions]
        ours.tell(np.array(solutions), np.array(losses))
        loop.tell(solutions, losses)
        np.testing.assert_allclose(ours.mean, loop.mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ours.deviations, loop.stds, rtol=1e-9)


def test_it_finds_a_hidden_target_that_random_search_does_not():
    backbone = AnalyticBackboneConfig(kind="analytic", dim=32, components=6).build()
    for seed in range(3):
        score = distance_to_hidden_sample(backbone, seed)
        setting = setting_of(backbone, batch_size=16)
        guided = batch_means(cma_es(setting), backbone, score)
        unguided = batch_means(RandomSearchConfig(kind="random").build(setting), backbone, score)
        assert min(guided[5:]) < min(unguided) - 1.0
        assert guided[-1] < -1.5


def test_generations_are_a_function_of_the_set_of_answers():
    backbone = small_backbone()
    late, on_time = (cma_es(setting_of(backbone)) for _ in range(2))
    told = []
    for _ in range(3):
        proposals = [algorithm.ask(7) for algorithm in (late, on_time)]
        told.append(observed(backbone, proposals[0], distance_to_corner))
    for answers in (told[2], told[0][3:], told[1][:5], told[0][:3][::-1], told[1][5:]):
        late.tell(answers)
        late.gaussians()
    on_time.tell([item for answers in told for item in answers])
    assert torch.equal(late.gaussians().mean, on_time.gaussians().mean)
    assert torch.equal(late.gaussians().scale, on_time.gaussians().scale)
    assert (on_time.gaussians().mean != 0).any()


def test_proposals_of_one_learn_together():
    backbone = small_backbone()
    algorithm = cma_es(setting_of(backbone, batch_size=1))
    for number in range(8):
        mean = algorithm.gaussians().mean
        assert bool((mean == 0).all()) == (number < 4)
        algorithm.tell(observed(backbone, algorithm.ask(1), distance_to_corner))


def test_equal_losses_change_nothing_and_numpy_s_global_generator_is_left_alone():
    backbone = small_backbone()
    before = np.random.get_state()[1].copy()
    algorithm = cma_es(setting_of(backbone), sigma=0.5)
    algorithm.tell(observed(backbone, algorithm.ask(6), lambda latents: torch.ones(len(latents))))
    gaussians = algorithm.gaussians()
    assert (gaussians.mean == 0).all()
    assert (gaussians.scale == 0.5).all()
    algorithm.tell(observed(backbone, algorithm.ask(6), distance_to_corner))
    assert (algorithm.gaussians().mean != 0).any()
    assert (np.random.get_state()[1] == before).all()


def test_padding_of_molecules_stays_zero():
    from pilotwave.backbones.molecule.backbone import MoleculeBackboneConfig

    backbone = MoleculeBackboneConfig.model_validate({"kind": "molecule", "steps": 4}).build("cpu")
    algorithm = cma_es(setting_of(backbone, batch_size=12))
    for _ in range(3):
        proposal = algorithm.ask(12)
        draws, batch = generated(backbone, proposal)
        assert (batch.noise_sequence[backbone.draw_noise(draws) == 0] == 0).all()
        assert batch.latents.isfinite().all()
        algorithm.tell(observed(backbone, proposal, lambda x: x[..., :3].square().sum(dim=(1, 2))))
    assert (algorithm.gaussians().mean != 0).any()
