from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pilotwave.surrogates.fitted_process import LENGTHSCALES, NOISES, fit_process


def random_points(count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def smooth(points: Tensor) -> Tensor:
    return (points[:, 0] + 0.3 * points[:, 1].square()).double()


def transcribed(points: Tensor, scores: Tensor) -> tuple[float, float, float, float, np.ndarray]:
    """Likelihood, lengthscale, noise, constant and weights by plain linear algebra, cell by cell of the grid."""
    x, y, n = points.double().numpy(), scores.double().numpy(), len(points)
    squares = ((x[:, None] - x[None]) ** 2).sum(-1)
    typical = np.sqrt(squares.sum() / (n * (n - 1)))
    cells = []
    for factor in LENGTHSCALES:
        for noise in NOISES:
            covariance = np.exp(-squares / (2 * (factor * typical) ** 2)) + noise * np.eye(n)
            inverse = np.linalg.inv(covariance)
            mean = inverse.sum(0) @ y / inverse.sum()
            residual = y - mean
            variance = residual @ inverse @ residual / n
            likelihood = -0.5 * (n * np.log(variance) + np.linalg.slogdet(covariance)[1])
            cells.append((likelihood, factor * typical, noise, mean, inverse @ residual))
    return max(cells, key=lambda cell: cell[0])


@pytest.mark.parametrize(("count", "dim"), [(12, 3), (25, 2), (6, 40)])
def test_it_is_the_likeliest_of_the_grid_value_by_value(count: int, dim: int) -> None:
    points = random_points(count, dim)
    scores = smooth(points) + 0.1 * random_points(count, 1, 1)[:, 0]
    found = fit_process(points, scores)
    assert found is not None
    likelihood, lengthscale, noise, constant, weights = transcribed(points, scores)
    assert np.isfinite(likelihood)
    assert found.lengthscale == pytest.approx(lengthscale)
    assert found.noise == noise
    assert found.constant == pytest.approx(constant, rel=1e-5, abs=1e-7)
    np.testing.assert_allclose(found.posterior.weights.numpy(), weights, rtol=1e-4, atol=1e-6)
    queries = random_points(5, dim, 2)
    squares = ((queries[:, None] - points[None]).double() ** 2).sum(-1)
    expected = constant + torch.exp(-squares / (2 * lengthscale**2)).numpy() @ weights
    np.testing.assert_allclose(found.mean(queries).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_mean() -> None:
    points = random_points(20, 4)
    found = fit_process(points, smooth(points))
    assert found is not None
    queries = random_points(3, 4, 5).double().requires_grad_(True)
    squares = (queries[:, None] - points.double()).square().sum(-1)
    mean = torch.exp(-squares / (2 * found.lengthscale**2)) @ found.posterior.weights + found.constant
    (expected,) = torch.autograd.grad(mean.sum(), queries)
    told, gradient = found.mean_and_gradient(queries.detach())
    torch.testing.assert_close(told, mean.detach())
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(found.mean_gradient(queries.detach()), expected)


def test_noisy_answers_are_recognised_as_noisy() -> None:
    points = random_points(80, 2)
    clean = (smooth(points) - smooth(points).mean()) / smooth(points).std()
    exact, noisy = fit_process(points, clean), fit_process(points, clean + random_points(80, 1, 3)[:, 0])
    assert exact is not None
    assert noisy is not None
    assert exact.noise <= 1e-2
    assert noisy.noise >= 0.1
    far = torch.full((1, 2), 1e3)
    assert float(noisy.mean(far)) == pytest.approx(noisy.constant)
    assert noisy.scale > 0


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_scale_and_shift_of_the_scores_move_the_mean_and_nothing_else(
    seed: int, scale: float, shift: float
) -> None:
    points = random_points(15, 3, seed)
    scores = smooth(points)
    plain, moved = fit_process(points, scores), fit_process(points, scale * scores + shift)
    assert plain is not None
    assert moved is not None
    assert (plain.lengthscale, plain.noise) == (moved.lengthscale, moved.noise)
    expected = scale * plain.mean(points).double() + shift
    torch.testing.assert_close(
        moved.mean(points).double(), expected, rtol=1e-4, atol=1e-4 * scale + 1e-6 * abs(shift)
    )


@pytest.mark.parametrize(
    ("points", "scores"),
    [
        (torch.zeros(0, 3), torch.zeros(0)),
        (torch.randn(2, 3), torch.tensor([0.0, 1.0])),
        (torch.randn(6, 3), torch.ones(6)),
        (torch.ones(6, 3), torch.arange(6.0)),
        (torch.full((6, 3), 1e30), torch.arange(6.0)),
    ],
)
def test_where_there_is_nothing_to_learn_there_is_no_process(points: Tensor, scores: Tensor) -> None:
    assert fit_process(points, scores) is None


def test_points_that_are_there_twice_are_no_trouble() -> None:
    points = random_points(10, 3).repeat(3, 1)
    found = fit_process(points, torch.arange(30.0) % 7)
    assert found is not None
    assert found.mean(points).isfinite().all()
    assert found.noise > 0
