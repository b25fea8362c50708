"""The contract suites notice what they are there to notice: each broken part fails the test named for it."""

import numpy as np
import pytest
import torch

from pilotwave.algorithms.fast_direct import FastDirectConfig
from pilotwave.backbones.analytic import AnalyticBackbone, synthetic_clusters
from pilotwave.surrogates.gaussian_process import GaussianProcess
from pilotwave.testing.algorithm_contract import AlgorithmContract, setting_of, small_backbone
from pilotwave.testing.backbone_contract import BackboneContract
from pilotwave.testing.surrogate_contract import SurrogateContract


def suite_for(contract, factory, make):
    suite = contract()
    setattr(suite, factory, make)
    return suite


class NoiseOfTheBatch(AnalyticBackbone):
    def draw_noise(self, draws):
        shape = (self.steps + 1, len(draws), *self.latent_shape)
        return torch.randn(shape, generator=torch.Generator().manual_seed(draws[0].seed % 2**32))


class ForgetfulOfTheHook(AnalyticBackbone):
    def sample(self, noise_sequence, conditions, hook=None):
        return super().sample(noise_sequence, conditions)


class MixesTheBatch(AnalyticBackbone):
    def sample(self, noise_sequence, conditions, hook=None):
        latents = super().sample(noise_sequence, conditions, hook)
        return latents - latents.mean(dim=0)


class ScribblesOnItsInput(AnalyticBackbone):
    def sample(self, noise_sequence, conditions, hook=None):
        latents = super().sample(noise_sequence, conditions, hook)
        noise_sequence.mul_(0.9)
        return latents


class DropsSamples(AnalyticBackbone):
    def decode(self, latents, conditions):
        return super().decode(latents, conditions)[1:]


class ShrinksWhenAligning(AnalyticBackbone):
    def align(self, moving, fixed, conditions=None):
        return fixed.clone()


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (NoiseOfTheBatch, "test_noise_has_the_contract_s_shape_and_is_each_draw_s_own"),
        (ForgetfulOfTheHook, "test_the_hook_is_called_at_every_step"),
        (ForgetfulOfTheHook, "test_the_hook_can_steer"),
        (MixesTheBatch, "test_a_sample_does_not_depend_on_its_batch"),
        (ScribblesOnItsInput, "test_sampling_is_deterministic_and_leaves_its_inputs_alone"),
        (DropsSamples, "test_every_latent_decodes_to_a_sample_or_a_reason"),
        (ShrinksWhenAligning, "test_alignment_moves_rigidly_and_never_farther"),
    ],
)
def test_a_broken_backbone_is_noticed(broken, test):
    data = synthetic_clusters(6, 3, 2, seed=0, count=100)
    suite = suite_for(BackboneContract, "make_backbone", lambda: broken.fit(data, components=3, rank=2))
    with pytest.raises(AssertionError):
        getattr(suite, test)()
    sound = suite_for(BackboneContract, "make_backbone", lambda: AnalyticBackbone.fit(data, components=3, rank=2))
    getattr(sound, test)()


class CountsTwice:
    """Fast Direct that forgets which answers it was told."""

    def __init__(self, setting):
        self.inner = FastDirectConfig(kind="fast-direct", step_size=0.5).build(setting)
        self.name = self.inner.name

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def tell(self, observations):
        self.inner._told.clear()
        self.inner.tell(observations)


class LosesItsRounds(CountsTwice):
    def tell(self, observations):
        self.inner.tell(observations)

    def state_dict(self):
        return {**self.inner.state_dict(), "rounds": 0}


class TakesAnyState(LosesItsRounds):
    def load_state_dict(self, state):
        self.inner.load_state_dict({**state, "algorithm": self.name})


@pytest.mark.parametrize(
    ("broken", "test", "arguments"),
    [
        (CountsTwice, "test_telling_twice_changes_nothing", ()),
        (LosesItsRounds, "test_a_restored_algorithm_goes_on_bit_for_bit", (False, 3)),
        (TakesAnyState, "test_another_algorithm_s_state_is_refused", ()),
    ],
)
def test_a_broken_algorithm_is_noticed(broken, test, arguments):
    suite = suite_for(AlgorithmContract, "make_algorithm", broken)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(suite, test)(*arguments)


class GradientUphill(GaussianProcess):
    def mean_gradient(self, points):
        return -super().mean_gradient(points)


class KeepsTheLastAnswersOnly(GaussianProcess):
    def append(self, points, values):
        if len(points):
            self._reset()
        super().append(points, values)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (GradientUphill, "test_the_gradient_is_the_mean_s"),
        (KeepsTheLastAnswersOnly, "test_answers_in_pieces_are_answers_at_once"),
    ],
)
def test_a_broken_surrogate_is_noticed(broken, test):
    suite = suite_for(SurrogateContract, "make_surrogate", broken)
    with pytest.raises(AssertionError):
        getattr(suite, test)()


def test_the_contract_s_backbone_is_what_it_says():
    backbone = small_backbone(conditional=True)
    setting = setting_of(backbone, 7)
    assert (setting.latent_shape, setting.steps, setting.batch_size) == ((3, 4), 4, 7)
    assert backbone.condition_size == 1
    assert np.prod(backbone.latent_shape) == 12
