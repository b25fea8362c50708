"""What algorithms with a surrogate expect of samples: in the oracle's unit, near the truth, nothing too early."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pilotwave.algorithms.answers import standardise, unstandardise
from pilotwave.algorithms.fast_direct import FastDirectConfig
from pilotwave.algorithms.random_search import RandomSearch
from pilotwave.algorithms.tfg import TrainingFreeGuidanceConfig
from pilotwave.algorithms.trust_direct import TrustDirectConfig
from pilotwave.protocols import Algorithm, PredictingAlgorithm
from pilotwave.testing.algorithm_contract import generated, observed, setting_of, small_backbone

CONFIGS: list[Any] = [
    TrustDirectConfig(kind="trust-direct"),
    FastDirectConfig(kind="fast-direct"),
    FastDirectConfig(kind="fast-direct", scores="standardised"),
    TrainingFreeGuidanceConfig(kind="tfg"),
]


def shifted(latents: Tensor) -> Tensor:
    """A smooth loss far from zero, so that a prediction on the wrong scale cannot be near it."""
    return 1000.0 + 50.0 * (latents.flatten(1).double() - 0.5).square().mean(dim=1)


def told(config: Any, answers: int) -> Algorithm:
    backbone = small_backbone()
    algorithm: Algorithm = config.build(setting_of(backbone))
    algorithm.tell(observed(backbone, RandomSearch().ask(answers), shifted))
    return algorithm


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_it_expects_more_of_what_is_better(config: Any) -> None:
    backbone = small_backbone()
    algorithm = told(config, 60)
    assert isinstance(algorithm, PredictingAlgorithm)
    proposal = algorithm.ask(30)
    _, batch = generated(backbone, proposal)
    truth = shifted(batch.latents)
    expected = algorithm.predict(backbone, batch.latents, batch.conditions)
    assert expected is not None
    assert (expected.dtype, expected.shape) == (torch.float64, (30,))
    assert float(torch.corrcoef(torch.stack([expected, truth]))[0, 1]) > 0.5
    if getattr(config, "scores", "") != "raw":  # a process of mean zero is far off where it knows little
        assert float((expected - truth).abs().max()) < 60.0
    again = config.build(setting_of(backbone))
    again.load_state_dict(algorithm.state_dict())
    same = again.predict(backbone, batch.latents, batch.conditions)
    assert torch.equal(expected, same)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_it_expects_nothing_before_it_was_told_anything(config: Any) -> None:
    backbone = small_backbone()
    algorithm: Any = config.build(setting_of(backbone))
    _, batch = generated(backbone, algorithm.ask(3))
    assert algorithm.predict(backbone, batch.latents, batch.conditions) is None


def test_the_best_sample_as_a_target_expects_nothing() -> None:
    backbone = small_backbone()
    algorithm = told(FastDirectConfig(kind="fast-direct", surrogate="best"), 10)
    assert isinstance(algorithm, PredictingAlgorithm)
    _, batch = generated(backbone, algorithm.ask(3))
    assert algorithm.predict(backbone, batch.latents, batch.conditions) is None
    assert not isinstance(RandomSearch(), PredictingAlgorithm)


def test_molecules_are_compared_by_what_no_turn_changes() -> None:
    from pilotwave.backbones.molecule.backbone import MoleculeBackboneConfig

    backbone = MoleculeBackboneConfig(kind="molecule", steps=3).build("cpu")
    for config in (FastDirectConfig(kind="fast-direct", surrogate="gaussian-process"), CONFIGS[0], CONFIGS[3]):
        algorithm: Any = config.build(setting_of(backbone))
        algorithm.tell(observed(backbone, RandomSearch().ask(12), shifted))
        _, batch = generated(backbone, RandomSearch().ask(12))
        expected = algorithm.predict(backbone, batch.latents, batch.conditions)
        turned = batch.latents.clone()
        turned[..., :3] = turned[..., :3] @ torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        again = algorithm.predict(backbone, turned, batch.conditions)
        assert torch.allclose(expected, again, rtol=1e-3, atol=0.5, equal_nan=True)
        assert expected.isfinite().any()


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=8),
    st.integers(-900, 900),
)
def test_unstandardise_inverts_standardise(losses: list[float], exponent: int) -> None:
    wanted = torch.tensor(losses, dtype=torch.float64) * 2.0 ** min(exponent, 0)
    back = unstandardise(standardise(wanted), wanted)
    assert torch.allclose(back, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
