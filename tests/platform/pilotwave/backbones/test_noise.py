"""Noise and conditions depend on a draw's own seed and on nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.backbones.noise import draw_categories, draw_noise_sequence, generator_of
from pilotwave.types import Draw

seeds = st.integers(min_value=0, max_value=2**63 - 1)


def draws_of(values):
    return [Draw(f"q{place}", seed) for place, seed in enumerate(values)]


@settings(max_examples=30, deadline=None)
@given(st.lists(seeds, min_size=1, max_size=6), st.data())
def test_noise_does_not_depend_on_the_batch(values, data):
    draws = draws_of(values)
    together = draw_noise_sequence(draws, 3, (2, 5))
    order = data.draw(st.permutations(range(len(draws))))
    assert together.shape == (4, len(draws), 2, 5)
    assert together.dtype == torch.float32
    torch.testing.assert_close(
        draw_noise_sequence([draws[i] for i in order], 3, (2, 5)), together[:, list(order)], rtol=0, atol=0
    )
    for place, draw in enumerate(draws):
        assert torch.equal(draw_noise_sequence([draw], 3, (2, 5))[:, 0], together[:, place])


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(0, 62))
def test_every_bit_of_the_seed_counts(seed, bit):
    first, second = draws_of([seed, seed ^ (1 << bit)])
    noise = draw_noise_sequence([first, second], 2, (8,))
    assert not torch.equal(noise[:, 0], noise[:, 1])


def test_noise_is_standard_normal_and_the_last_step_is_silent():
    noise = draw_noise_sequence(draws_of(range(400)), 4, (50,))
    used = noise[:4]
    assert abs(used.mean()) < 5 / used.numel() ** 0.5
    assert abs(used.std() - 1) < 5 / (2 * used.numel()) ** 0.5
    steps = used.permute(0, 2, 1).reshape(4, -1)
    assert (torch.corrcoef(steps) - torch.eye(4)).abs().max() < 0.04
    assert (noise[4] == 0).all()


def test_purposes_are_independent():
    draw = Draw("q", 7)
    noise, atoms = (generator_of(draw, purpose).random(2000) for purpose in ("noise", "atom count"))
    assert abs(np.corrcoef(noise, atoms)[0, 1]) < 0.1


def test_categories_follow_their_probabilities_and_never_an_impossible_one():
    categories = draw_categories(draws_of(range(4000)), [0.0, 3.0, 1.0, 0.0])
    counts = torch.bincount(categories, minlength=4)
    assert counts[0] == 0
    assert counts[3] == 0
    assert abs(counts[1] / 4000 - 0.75) < 0.03
    assert categories.dtype == torch.int64


@pytest.mark.parametrize("bad", [[], [0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0]])
def test_impossible_probabilities_are_refused(bad):
    with pytest.raises(ValueError, match="expected probabilities"):
        draw_categories(draws_of([1]), bad)
