"""Fresh noise by seed, mixing into a parent's, back onto the shell, and who may be a parent."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pilotwave.algorithms.variation import (
    child_conditions,
    draw_fresh_noise,
    eligible_parents,
    generator_for,
    mixed_noise,
    onto_shell,
)
from pilotwave.types import Draw

SHAPES = st.sampled_from([(1, 1, 1), (3, 2, 4), (4, 3, 2, 5), (2, 1, 3, 2, 2)])


@st.composite
def noises(draw, scale=1.0):
    """A noise sequence (steps + 1, batch, *latent_shape) with the last entry and some components exactly zero."""
    shape, seed = draw(SHAPES), draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    noise = scale * torch.randn(shape, generator=generator)
    noise[torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3]))] = 0.0
    if shape[0] > 1:
        noise[-1] = 0.0
    return noise


@given(noises(), st.integers(0, 100), st.floats(0, 1))
def test_mixed_noise_is_the_formula_and_keeps_zeros(parent, seed, share):
    fresh = torch.randn(parent.shape, generator=torch.Generator().manual_seed(seed))
    mixed = mixed_noise(parent, fresh, share)
    assert mixed.dtype == torch.float32
    assert mixed.shape == parent.shape
    assert (mixed[parent == 0] == 0).all()
    for place in (parent != 0).nonzero().tolist():
        expected = (1 - share**2) ** 0.5 * float(parent[tuple(place)]) + share * float(fresh[tuple(place)])
        assert float(mixed[tuple(place)]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(noises())
def test_a_share_of_nothing_is_the_parent_and_of_one_is_fresh(parent):
    fresh = torch.ones_like(parent)
    assert torch.equal(mixed_noise(parent, fresh, 0.0), parent)
    assert torch.equal(mixed_noise(parent, fresh, 1.0), (parent != 0).float())


def test_mixed_noise_is_standard_normal_again():
    generator = torch.Generator().manual_seed(0)
    parent, fresh = (torch.randn(2, 10, 5_000, generator=generator) for _ in range(2))
    mixed = mixed_noise(parent, fresh, 0.6)
    assert abs(float(mixed.mean())) < 0.01
    assert abs(float(mixed.std()) - 1) < 0.01
    assert abs(float((mixed * parent).mean()) - 0.8) < 0.01


def test_shares_may_differ_by_step():
    parent, fresh = torch.full((3, 2, 4), 2.0), torch.full((3, 2, 4), 5.0)
    mixed = mixed_noise(parent, fresh, torch.tensor([0.0, 1.0, 0.6]).reshape(3, 1, 1))
    torch.testing.assert_close(mixed[:, 0, 0], torch.tensor([2.0, 5.0, 0.8 * 2 + 0.6 * 5]))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), torch.tensor([0.5, 2.0])])
def test_impossible_shares_are_refused(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        mixed_noise(torch.ones(2, 2, 2), torch.ones(2, 2, 2), share)


@given(noises(), st.integers(0, 100), st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e30]))
def test_on_the_shell_norms_are_those_of_the_origin_and_directions_are_kept(like, seed, scale):
    noise = scale * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    placed = onto_shell(noise, like)
    assert placed.dtype == torch.float32
    assert placed.shape == like.shape
    norms = torch.linalg.vector_norm(like.flatten(2), dim=2)
    torch.testing.assert_close(torch.linalg.vector_norm(placed.flatten(2), dim=2), norms, rtol=1e-5, atol=1e-6)
    unit = torch.nn.functional.normalize(noise.flatten(2).double() / scale, dim=2)
    torch.testing.assert_close(placed.flatten(2).double(), unit * norms[..., None], rtol=1e-4, atol=1e-5)


@given(noises(), st.sampled_from([0.0, float("nan"), float("inf"), -float("inf")]))
def test_noise_without_a_direction_becomes_the_origin(like, value):
    torch.testing.assert_close(onto_shell(torch.full_like(like, value), like), like, rtol=1e-6, atol=0.0)


@given(noises())
def test_on_the_shell_zeros_stay_zero(like):
    moved = mixed_noise(like, torch.ones_like(like), 0.5)
    assert (onto_shell(moved, like)[like == 0] == 0).all()


@given(noises(), st.integers(0, 2**63 - 2))
def test_fresh_noise_depends_on_the_own_seed_only_and_fills_what_the_parent_uses(like, seed):
    draws = [Draw(f"q{place}", seed + place % 2) for place in range(like.shape[1])]
    noise = draw_fresh_noise(draws, like, "test")
    assert ((noise == 0) == (like == 0)).all()
    for place, draw in enumerate(draws):
        alone = draw_fresh_noise([Draw("other", draw.seed)], torch.ones_like(like[:, :1]), "test")[:, 0]
        used = like[:, place] != 0
        assert torch.equal(noise[:, place][used], alone[used])


def test_fresh_noise_of_nobody_is_empty():
    assert draw_fresh_noise([], torch.zeros(3, 0, 4), "test").shape == (3, 0, 4)


def test_seeds_and_purposes_are_independent():
    numbers = [
        generator_for(seed, purpose).standard_normal(2000) for seed in (1, 1 + 2**40) for purpose in ("a", "b")
    ]
    correlations = np.corrcoef(np.stack(numbers)) - np.eye(4)
    assert np.abs(correlations).max() < 0.1


def test_parents_of_the_own_condition_are_preferred_unless_conditions_are_free():
    parents = torch.tensor([[1, 0], [2, 0], [1, 0]])
    assert eligible_parents(torch.tensor([1, 0]), parents, free=False) == [0, 2]
    assert eligible_parents(torch.tensor([1, 1]), parents, free=False) == [0, 1, 2]
    assert eligible_parents(torch.tensor([1, 0]), parents, free=True) == [0, 1, 2]
    assert eligible_parents(torch.zeros(0), torch.zeros(3, 0), free=False) == [0, 1, 2]


def test_a_child_s_condition_is_its_parent_s_only_if_free():
    own, parents = torch.tensor([[1], [2]]), torch.tensor([[3], [4]])
    assert torch.equal(child_conditions(own, parents, free=True), parents)
    assert torch.equal(child_conditions(own, parents, free=False), own)
