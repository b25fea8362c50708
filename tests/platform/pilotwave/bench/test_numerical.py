"""Numerical problems: what they are, that regret falls as promised, and that learning the covariance helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pilotwave.bench.numerical import (
    COSTS,
    cma_regret_curve,
    numerical_problem,
    regret_curve,
    running_mean,
    slope,
)


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_those_of_the_hidden_path_and_zero_on_it(name: str) -> None:
    problem = numerical_problem(name, seed=3, steps=4, dim=5)
    noise = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0)).double()
    costs = problem.evaluate(noise)
    assert costs.shape == (4, 6)
    assert (costs > 0).all()
    state = problem.start.numpy()
    for k in range(4):
        np.testing.assert_allclose(problem.transitions[k] @ problem.transitions[k].T, np.eye(5), atol=1e-12)
        state = problem.transitions[k].numpy() @ state + noise[k, 2].numpy()
        expected = problem.cost(torch.from_numpy(state - problem.optima[k].numpy()))
        assert float(costs[k, 2]) == pytest.approx(float(expected))
    before = torch.cat([problem.start[None], problem.optima[:-1]])
    best = problem.optima - torch.einsum("kij,kj->ki", problem.transitions, before)
    assert float(problem.evaluate(best[:, None]).abs().max()) < 1e-12


def test_costs_by_hand() -> None:
    point = torch.tensor([2.0, -3.0, 1.0]).double()
    values = {name: float(cost(point)) for name, (cost, _) in COSTS.items()}
    assert values["l1"] == pytest.approx(2.0)
    assert values["max-norm"] == pytest.approx(3.0)
    assert values["ellipsoid"] == pytest.approx((4.0 / 1e4 + 9.0 / 1e2 + 1.0) / 3)
    # The classical function at (3, -2, 2), a mean over its two terms.
    assert values["rosenbrock"] == pytest.approx((100 * 11.0**2 + 4.0 + 100 * 2.0**2 + 9.0) / 2)


@pytest.mark.parametrize("name", [name for name, (_, convex) in COSTS.items() if convex])
def test_cumulated_costs_are_convex_in_the_noise(name: str) -> None:
    problem = numerical_problem(name, seed=1)
    random = torch.Generator().manual_seed(0)
    left, right = (torch.randn(5, 200, 8, generator=random).double() for _ in range(2))
    ends = (problem.evaluate(left) + problem.evaluate(right)).sum(dim=0) / 2
    assert (problem.evaluate((left + right) / 2).sum(dim=0) <= ends + 1e-9).all()


@pytest.mark.parametrize("name", ["l1", "max-norm"])
def test_average_regret_falls_at_least_as_one_over_the_root_of_the_rounds(name: str) -> None:
    slopes = []
    for seed in range(2):
        curve = regret_curve(numerical_problem(name, seed, steps=3, dim=5), rounds=700, gamma=0.02, seed=seed)
        slopes.append(slope(curve, 70))
    assert np.mean(slopes) <= -0.5
    assert max(slopes) <= -0.45


def test_a_learned_covariance_beats_a_fixed_one_on_the_ellipsoid() -> None:
    for seed in range(2):
        problem = numerical_problem("ellipsoid", seed, steps=3, dim=5)
        learned, fixed = (
            regret_curve(problem, covariance, rounds=300, gamma=0.03, seed=seed)
            for covariance in ("adaptive", "fixed")
        )
        assert learned[0] == pytest.approx(fixed[0])
        assert learned[-1] < 0.5 * fixed[-1]


def test_curves_are_the_seed_s_and_start_alike() -> None:
    problem = numerical_problem("l1", 0, steps=2, dim=3)
    for run in (regret_curve, cma_regret_curve):
        first, second, other = (run(problem, rounds=20, batch=8, seed=seed) for seed in (4, 4, 5))
        assert (first == second).all()
        assert not (first == other).any()
    long = cma_regret_curve(problem, rounds=80, batch=16)
    assert long[-1] < 0.6 * long[0]


def test_slope_and_running_mean_are_what_they_say() -> None:
    rounds = np.arange(1, 501)
    assert slope(3.0 / np.sqrt(rounds), 10) == pytest.approx(-0.5)
    assert running_mean([4.0, 2.0, 3.0]).tolist() == [4.0, 3.0, 3.0]


def test_an_unknown_problem_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of l1, max-norm, ellipsoid, rosenbrock, got 'sphere'"):
        numerical_problem("sphere", 0)
