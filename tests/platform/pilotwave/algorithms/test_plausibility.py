"""The implausibility of noise: its formula written out, its gradient by automatic differentiation, what it sees."""

import math

import numpy as np
import pytest
import torch

from pilotwave.algorithms.plausibility import SUB_DIM, implausibility, implausibility_gradient


def draw(dim, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(dim))


def transcription(noise, permutations, random):
    """Minus log p1 p2 by the definition, with norms that torch can differentiate."""
    orders = [np.arange(len(noise)), *(random.permutation(len(noise)) for _ in range(permutations))]
    total = 0.0
    for place, order in enumerate(orders):
        count = len(noise) // SUB_DIM
        vectors = [noise[order[SUB_DIM * j : SUB_DIM * (j + 1)]] for j in range(count)]
        mean = sum(vectors) / count
        covariance = sum(torch.outer(vector, vector) for vector in vectors) / count
        first = torch.linalg.vector_norm(mean)
        second = torch.linalg.matrix_norm(covariance - torch.eye(SUB_DIM, dtype=torch.float64), ord=2)
        beyond = (torch.sqrt(1 + second) - 1 - math.sqrt(SUB_DIM / count)).clamp(min=0)
        log_first = (math.log(2) - count * first**2 / (2 * SUB_DIM)).clamp(max=0)
        log_second = (math.log(2) - count * beyond**2 / 2).clamp(max=0)
        total = total - (log_first + log_second) / (permutations if place else 1)
    return total


@pytest.mark.parametrize("change", ["none", "shifted", "stretched", "shrunk", "periodic"])
@pytest.mark.parametrize(("dim", "permutations"), [(8, 3), (43, 5), (160, 0), (160, 4)])
def test_value_and_gradient_are_those_of_the_formula(dim, permutations, change):
    noise = draw(dim, seed=dim)
    if change == "shifted":
        noise = noise + 0.8
    elif change == "stretched":
        noise = 1.7 * noise
    elif change == "shrunk":
        noise = 0.2 * noise
    elif change == "periodic":
        noise[::SUB_DIM] += 1.5
    noise.requires_grad_(True)
    expected = transcription(noise, permutations, np.random.default_rng(9))
    assert implausibility(noise.detach(), permutations, np.random.default_rng(9)) == pytest.approx(
        float(expected.detach())
    )
    (gradient,) = torch.autograd.grad(expected, noise)
    computed = implausibility_gradient(noise.detach(), permutations, np.random.default_rng(9))
    torch.testing.assert_close(computed, gradient, rtol=1e-8, atol=1e-10)
    if change == "shifted" and dim > 8:
        assert computed.norm() > 0.1


def test_draws_are_plausible_and_manipulated_noise_is_not():
    random = np.random.default_rng(1)
    costs = [implausibility(draw(400, seed), 10, random) for seed in range(100)]
    assert np.mean(costs) < 0.3
    for manipulated in (draw(400) + 0.5, 1.5 * draw(400), draw(400).abs()):
        assert implausibility(manipulated, 10, random) > 5
    # Noise that is too short is seen less: its covariance cannot be further below I than by 1.
    assert implausibility(0.2 * draw(400), 10, random) > 2


def test_a_pattern_along_the_order_is_seen_in_that_order():
    lopsided = draw(400)
    lopsided[::SUB_DIM] += 0.9
    lopsided[1::SUB_DIM] -= 0.9
    in_order = implausibility(lopsided, 0, np.random.default_rng(0))
    shuffled = lopsided[torch.from_numpy(np.random.default_rng(2).permutation(400))]
    assert in_order > 3
    assert implausibility(shuffled, 0, np.random.default_rng(0)) < 0.5 * in_order


def test_following_the_gradient_makes_noise_plausible():
    noise, random = draw(200) + 0.6, np.random.default_rng(0)
    before = implausibility(noise, 10, np.random.default_rng(7))
    for _ in range(100):
        noise = noise - 0.1 * implausibility_gradient(noise, 10, random)
    assert implausibility(noise, 10, np.random.default_rng(7)) < 0.2 * before


@pytest.mark.parametrize("dim", [0, 1, SUB_DIM, 2 * SUB_DIM - 1])
def test_too_few_components_are_never_implausible(dim):
    noise = torch.full((dim,), 50.0)
    assert implausibility(noise, 3, np.random.default_rng(0)) == 0.0
    assert torch.equal(implausibility_gradient(noise, 3, np.random.default_rng(0)), torch.zeros(dim).double())


@pytest.mark.parametrize("value", [0.0, 1e6, -1e6])
def test_degenerate_noise_has_a_finite_gradient(value):
    gradient = implausibility_gradient(torch.full((40,), value), 3, np.random.default_rng(0))
    assert gradient.isfinite().all()
