"""The Gaussian process: contract, gpytorch's means and gradients, growth, precision, restoring."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.surrogates.gaussian_process import GaussianProcess
from pilotwave.surrogates.posterior_mean import PointBlock, inner_products, rbf_kernel, squared_norms
from pilotwave.testing.surrogate_contract import SurrogateContract


class TestRaw(SurrogateContract):
    def make_surrogate(self, dim):
        return GaussianProcess(dim)


class TestStandardised(SurrogateContract):
    def make_surrogate(self, dim):
        return GaussianProcess(dim, scaling="standardised")

    def test_it_learns(self):
        """In its own units: the score minus its mean, over its standard deviation."""
        surrogate, (points, values) = self.make_surrogate(self.dim), self.data(200)
        surrogate.append(points, 1000 * values + 7)
        queries, truth = self.data(100, seed=2)
        expected = (truth - values.mean()) / values.std(correction=0)
        assert (surrogate.mean(queries) - expected).square().mean() < 0.3


class TestWithoutNoise(SurrogateContract):
    def make_surrogate(self, dim):
        return GaussianProcess(dim, noise=0.0)


def gpytorch_mean_and_gradient(points, values, queries, lengthscale, outputscale, noise):
    import gpytorch

    class Model(gpytorch.models.ExactGP):
        def __init__(self, likelihood):
            super().__init__(points, values, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=gpytorch.constraints.Positive())
    model = Model(likelihood).double()
    model.covar_module.base_kernel.lengthscale = lengthscale
    model.covar_module.outputscale = outputscale
    likelihood.noise = noise
    model.eval()
    means, gradients = [], []
    with gpytorch.settings.fast_computations(False, False, False):
        for query in queries:
            query = query[None].clone().requires_grad_()
            mean = model(query).mean
            (gradient,) = torch.autograd.grad(mean.sum(), query)
            means.append(mean.detach()[0])
            gradients.append(gradient[0])
    return torch.stack(means), torch.stack(gradients)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 60),
    dim=st.integers(1, 40),
    stretch=st.floats(0.3, 3.0),
    outputscale=st.floats(0.1, 5.0),
    noise=st.sampled_from([1e-4, 1e-2, 1.0]),
)
def test_means_and_gradients_are_gpytorch_s(seed, count, dim, stretch, outputscale, noise):
    """To 1e-4 of the largest value: a jitter of 1e-10 weighs 1e-6 against a noise of 1e-4, times N."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, dim, generator=generator)
    values = torch.randn(count, generator=generator, dtype=torch.float64)
    queries = torch.randn(4, dim, generator=generator).double()
    lengthscale = stretch * math.sqrt(dim)
    process = GaussianProcess(dim, lengthscale=lengthscale, outputscale=outputscale, noise=noise)
    process.append(points, values)
    means, gradients = gpytorch_mean_and_gradient(points.double(), values, queries, lengthscale, outputscale, noise)
    scale = process.mean(points.double()).abs().max().clamp(min=1.0)
    torch.testing.assert_close(process.mean(queries), means, rtol=1e-4, atol=1e-4 * float(scale))
    torch.testing.assert_close(process.mean_gradient(queries), gradients, rtol=1e-4, atol=1e-4 * float(scale))


def test_the_defaults_are_the_reference_s():
    process = GaussianProcess(65_536)
    assert (process.lengthscale, process.noise, process.scaling) == (256.0, 1e-4, "raw")
    assert process.outputscale == pytest.approx(0.6931, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 1000), st.sampled_from([1e-4, 0.0]))
def test_a_grown_factor_is_the_whole_factor(sizes, seed, noise):
    points = torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(seed))
    process = GaussianProcess(3, noise=noise)
    for part in points.split(sizes):
        process.append(part, part[:, 0])
    factor = process._factor
    covariance = rbf_kernel(PointBlock.of(points), PointBlock.of(points), process.lengthscale, process.outputscale)
    covariance.diagonal().add_(noise + process._jitter * process.outputscale)
    torch.testing.assert_close(factor @ factor.T, covariance, rtol=1e-12, atol=1e-12)
    assert torch.equal(factor, factor.tril())


def test_a_factor_that_fails_gets_more_jitter():
    process = GaussianProcess(2, noise=0.0, jitter=1e-18)
    points = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    for shift in (0.0, 0.0, 1e-7, 0.0):
        process.append(points + shift, torch.arange(6.0))
    assert process._jitter > 1e-18
    assert process.mean(points).isfinite().all()
    assert process.mean_gradient(points).isfinite().all()


@pytest.mark.parametrize("dim", [7, 5000])
def test_points_far_beyond_one_block_and_wide_latents(dim):
    """Wide latents are multiplied in float32; their means still have five digits."""
    generator = torch.Generator().manual_seed(1)
    count = 2500 if dim == 7 else 60
    points = torch.randn(count, dim, generator=generator)
    values = torch.randn(count, generator=generator)
    process = GaussianProcess(dim, noise=0.1)
    for part in zip(points.split(450), values.split(450), strict=True):
        process.append(*part)
    queries = torch.randn(3, dim, generator=generator).double()
    lines = points.double()
    covariance = 0.69314718 * torch.exp(-torch.cdist(lines, lines).square() / (2 * dim))
    weights = torch.linalg.solve(covariance + 0.1 * torch.eye(count), values.double())
    shares = 0.69314718 * torch.exp(-torch.cdist(queries, lines).square() / (2 * dim)) * weights
    gradient = -(shares[:, :, None] * (queries[:, None] - lines)).sum(dim=1) / dim
    torch.testing.assert_close(process.mean(queries), shares.sum(dim=1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(process.mean_gradient(queries), gradient, rtol=1e-4, atol=1e-5 / dim**0.5)


def test_wide_products_are_those_of_float64():
    left = torch.randn(3, 9000, generator=torch.Generator().manual_seed(0))
    right = torch.randn(4, 9000, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        inner_products(left, right), left.double() @ right.double().T, rtol=0, atol=1e-7 * 9000
    )
    torch.testing.assert_close(squared_norms(left), left.double().square().sum(dim=1), rtol=1e-12, atol=0)


def test_a_snapshot_is_immutable_travels_and_knows_its_size():
    points = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    process = GaussianProcess(4)
    process.append(points[:10], points[:10, 0])
    snapshot = process.snapshot()
    before = snapshot.mean_gradient(points)
    process.append(points[10:], points[10:, 0])
    assert len(snapshot) == 10
    assert len(process.snapshot()) == len(process) == 20
    assert torch.equal(snapshot.mean_gradient(points), before)
    assert torch.equal(pickle.loads(pickle.dumps(snapshot)).mean_gradient(points), before)
    mean, gradient = snapshot.mean_and_gradient(points)
    assert torch.equal(gradient, before)
    assert torch.equal(mean, snapshot.mean(points))
    assert not torch.equal(process.mean_gradient(points), before)


def test_scores_are_standardised_whatever_their_unit():
    points = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    gradients = []
    for scale, shift in ((1.0, 0.0), (1e6, -40.0), (1e-3, 5.0)):
        process = GaussianProcess(4, scaling="standardised")
        process.append(points, scale * points[:, 0].double() + shift)
        gradients.append(process.mean_gradient(points))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients[0], gradients[2], rtol=1e-4, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 20), max_size=5), st.sampled_from(["raw", "standardised"]), st.sampled_from([3, 5001])
)
def test_a_restored_process_is_the_same_bit_for_bit(sizes, scaling, dim):
    points = torch.randn(sum(sizes), dim, generator=torch.Generator().manual_seed(5))
    process, restored = (GaussianProcess(dim, scaling=scaling) for _ in range(2))
    for part in points.split(sizes) if sizes else ():
        process.append(part.clone(), part[:, 0])
    restored.append(torch.ones(2, dim), torch.ones(2))
    restored.load_state_dict(process.state_dict())
    for one in (process, restored):
        one.append(torch.full((1, dim), 0.3), torch.ones(1))
    queries = torch.randn(4, dim, generator=torch.Generator().manual_seed(6))
    assert torch.equal(process.mean(queries), restored.mean(queries))
    assert torch.equal(process.mean_gradient(queries), restored.mean_gradient(queries))


def test_a_state_of_other_hyper_parameters_is_refused():
    state = GaussianProcess(3).state_dict()
    for other in (GaussianProcess(4), GaussianProcess(3, noise=1.0), GaussianProcess(3, scaling="standardised")):
        with pytest.raises(ValueError, match="expected a state with"):
            other.load_state_dict(state)


@pytest.mark.parametrize("bad", [{"lengthscale": 0.0}, {"noise": -1.0}, {"outputscale": 0.0}, {"jitter": 0.0}])
def test_impossible_hyper_parameters_are_refused(bad):
    with pytest.raises(ValueError, match="expected dim"):
        GaussianProcess(3, **bad)
