"""The mixture against dense linear algebra, autograd and data it was fitted to."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.backbones.mixture import LowRankMixture, kmeans


def random_mixture(seed, components=3, dim=5, rank=2):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return LowRankMixture(
        weights=torch.softmax(normal(components), dim=0),
        means=normal(components, dim),
        axes=torch.linalg.qr(normal(components, dim, rank))[0],
        excess=normal(components, rank).exp(),
        remainder=0.3 * normal(components).exp(),
    )


def dense_covariances(mixture):
    dim = mixture.means.shape[1]
    scaled = mixture.axes * mixture.excess[:, None, :]
    return scaled @ mixture.axes.mT + mixture.remainder[:, None, None] * torch.eye(dim, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0), st.floats(0.05, 3.0))
def test_density_and_posterior_mean_are_the_dense_formulas(seed, signal, noise):
    mixture = random_mixture(seed)
    points = 2 * torch.randn(4, 5, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    eye = torch.eye(5, dtype=torch.float64)
    logs, means = [], []
    for weight, mean, covariance in zip(mixture.weights, mixture.means, dense_covariances(mixture), strict=True):
        seen = torch.distributions.MultivariateNormal(signal * mean, signal**2 * covariance + noise**2 * eye)
        logs.append(weight.log() + seen.log_prob(points))
        gain = signal * covariance @ torch.linalg.inv(seen.covariance_matrix)
        means.append(mean + (points - signal * mean) @ gain.T)
    logs, means = torch.stack(logs, dim=1), torch.stack(means, dim=1)
    torch.testing.assert_close(mixture.log_density(points, signal, noise), logs.logsumexp(dim=1))
    expected = torch.einsum("bj,bjd->bd", logs.softmax(dim=1), means)
    torch.testing.assert_close(mixture.posterior_mean(points, signal, noise), expected)
    known = torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(mixture.posterior_mean(points, signal, noise, known), means[range(4), known])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 1.0), st.floats(0.1, 2.0))
def test_the_posterior_mean_is_tweedie_s(seed, signal, noise):
    mixture = random_mixture(seed)
    points = torch.randn(
        3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True
    )
    (score,) = torch.autograd.grad(mixture.log_density(points, signal, noise).sum(), points)
    tweedie = (points.detach() + noise**2 * score) / signal
    torch.testing.assert_close(mixture.posterior_mean(points.detach(), signal, noise), tweedie)


def test_a_fit_finds_the_clusters_it_came_from():
    random = np.random.default_rng(0)
    centres = np.array([[6.0, 0, 0, 0], [-6.0, 0, 0, 0], [0, 9.0, 0, 0]])
    labels = np.repeat([0, 1, 2], [300, 200, 100])
    data = centres[labels] + random.standard_normal((600, 4)) * [0.5, 1.5, 0.2, 0.2]
    mixture = LowRankMixture.fit(data, 3, 2, seed=1)
    order = mixture.weights.argsort(descending=True)
    assert mixture.weights[order].tolist() == pytest.approx([0.5, 1 / 3, 1 / 6])
    np.testing.assert_allclose(mixture.means[order], centres, atol=0.4)
    for component in range(3):
        expected = np.diag([0.25, 2.25, 0.04, 0.04])
        np.testing.assert_allclose(dense_covariances(mixture)[component], expected, atol=0.6)
    better = mixture.log_density(torch.from_numpy(data)).mean()
    single = LowRankMixture.fit(data, 1, 2, seed=1).log_density(torch.from_numpy(data)).mean()
    assert better > single + 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 8), st.integers(0, 1000), st.booleans())
def test_any_data_can_be_fitted(count, dim, rank, seed, repeated):
    random = np.random.default_rng(seed)
    data = random.standard_normal((count, dim))
    if repeated:
        data[:] = data[0]
    components = int(random.integers(1, count + 1))
    labels = kmeans(data, components, seed)
    assert set(labels) == set(range(components))
    mixture = LowRankMixture.fit(data, components, rank, seed)
    gram = mixture.axes.mT @ mixture.axes
    assert ((gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2))).abs() < 1e-9).all()
    assert mixture.weights.sum() == pytest.approx(1.0)
    for signal, noise in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0)):
        assert mixture.posterior_mean(torch.from_numpy(data), signal, noise).isfinite().all()
        assert mixture.log_density(torch.from_numpy(data), signal, noise).isfinite().all()


def test_fitting_is_deterministic():
    data = np.random.default_rng(0).standard_normal((50, 4))
    first, second = (LowRankMixture.fit(data, 4, 2, seed=9) for _ in range(2))
    assert torch.equal(first.means, second.means)
    assert math.isclose(first.log_density(torch.zeros(1, 4)), second.log_density(torch.zeros(1, 4)))
