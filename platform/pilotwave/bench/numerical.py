"""Cumulative numerical problems with unknown transitions, and the regret of methods on them.

A problem has K steps. The noise z_k of a step moves a hidden state, x_{k+1} = A_k x_k + z_k, and step k costs
f(x_{k+1} - o_k): its own transitions A_k (orthogonal, seeded), start x_0 and optimum o_k are not known to a method.
Every state can be reached, so the least cost is 0 at every step and cost is regret; for convex f the cost is
convex in (z_0 ... z_{K-1}) together. The paper that sets such problems is Lyu et al., arXiv 2406.00812;
transitions, sizes and conditioning are ours.

Average regret after T rounds: the mean over the first T batches of the mean cost of a sample, itself the mean over
its K steps.

May import: numpy, torch, cma inside a function, and CASBO's update.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pilotwave.algorithms.casbo_update import CasboSteps, cumulative, updated
from pilotwave.algorithms.gaussian_noise import NoiseGaussians

Floats = npt.NDArray[np.float64]
Covariance = Literal["adaptive", "fixed"]
CONDITION = 1e4
"""Of the ellipsoid: the ratio of its largest curvature to its smallest."""

GAMMA = 1.0 / 128.0
"""The constant convention. Precision grows by 1 + gamma a round, so 1 / sqrt(dim) stops the mean too early here."""


def absolute_sum(points: Tensor) -> Tensor:
    """Returns the mean of |x_i|; non-smooth and convex. From (..., dim) to (...)."""
    return points.abs().mean(dim=-1)


def largest_absolute(points: Tensor) -> Tensor:
    """Returns the largest |x_i|; non-smooth and convex. From (..., dim) to (...)."""
    return points.abs().amax(dim=-1)


def ellipsoid(points: Tensor) -> Tensor:
    """Returns the mean of c_i x_i^2 with c_i from 1 / condition to 1 in equal ratios. From (..., dim) to (...)."""
    curvatures = CONDITION ** torch.linspace(-1.0, 0.0, points.shape[-1], dtype=points.dtype)
    return (curvatures * points.square()).mean(dim=-1)


def rosenbrock(points: Tensor) -> Tensor:
    """Returns the mean of 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2 with its minimum moved to 0; not convex."""
    x = points + 1.0
    return (100.0 * (x[..., 1:] - x[..., :-1].square()).square() + (1.0 - x[..., :-1]).square()).mean(dim=-1)


@dataclass(frozen=True)
class CumulativeProblem:
    """A cost, cumulated over steps with hidden transitions.

    Attributes:
        name: Short, for tables.
        convex: Whether the cumulated cost is convex in all noise together.
        cost: f, from (..., dim) to (...), at least 0 and 0 at the origin.
        start: x_0, (dim,).
        transitions: A_k, (steps, dim, dim).
        optima: o_k, (steps, dim).
    """

    name: str
    convex: bool
    cost: Callable[[Tensor], Tensor]
    start: Tensor
    transitions: Tensor
    optima: Tensor

    @property
    def steps(self) -> int:
        """K."""
        return len(self.transitions)

    @property
    def dim(self) -> int:
        """Numbers a step."""
        return len(self.start)

    def evaluate(self, noise: Tensor) -> Tensor:
        """Returns the cost of every step, (steps, batch), for noise (steps, batch, dim), float64."""
        state = self.start.expand(noise.shape[1], -1)
        costs = []
        for transition, z, optimum in zip(self.transitions, noise.double(), self.optima, strict=True):
            state = state @ transition.T + z
            costs.append(self.cost(state - optimum))
        return torch.stack(costs)


COSTS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "l1": (absolute_sum, True),
    "max-norm": (largest_absolute, True),
    "ellipsoid": (ellipsoid, True),
    "rosenbrock": (rosenbrock, False),
}
"""The costs by name, and whether they are convex."""


def numerical_problem(name: str, seed: int, steps: int = 5, dim: int = 8) -> CumulativeProblem:
    """Makes a problem.

    Args:
        name: One of :data:`COSTS`.
        seed: Of transitions, start and optima.
        steps: K.
        dim: Numbers a step.

    Raises:
        ValueError: There is no such problem.
    """
    if name not in COSTS:
        raise ValueError(f"expected one of {', '.join(COSTS)}, got {name!r}")
    random = np.random.default_rng(seed)
    turns = np.stack([np.linalg.qr(random.standard_normal((dim, dim)))[0] for _ in range(steps)])
    start, optima = random.standard_normal(dim), random.standard_normal((steps, dim))
    cost, convex = COSTS[name]
    return CumulativeProblem(name, convex, cost, *(torch.from_numpy(part) for part in (start, turns, optima)))


def regret_curve(
    problem: CumulativeProblem,
    covariance: Covariance = "adaptive",
    rounds: int = 1000,
    batch: int = 32,
    seed: int = 0,
    beta: float = 1.0,
    gamma: float = GAMMA,
) -> Floats:
    """Runs CASBO's update, full matrices, on the costs of the steps; the oracle is asked for every step's cost.

    Args:
        problem: What is minimised.
        covariance: Whether covariances are learned or stay the identity.
        rounds: T.
        batch: Samples a round.
        seed: Of the samples.
        beta: Step size of the means.
        gamma: Step size of the inverse covariances, where they are learned.

    Returns:
        The average regret after 1 ... T rounds, shape (rounds,).
    """
    adaptive = covariance == "adaptive"
    steps = CasboSteps(beta, gamma if adaptive else 0.0, least_variance=1e-16)
    gaussians = NoiseGaussians.standard(problem.steps, problem.dim, full=adaptive)
    random = torch.Generator().manual_seed(seed)
    regrets = []
    for _ in range(rounds):
        xi = torch.randn(problem.steps, batch, problem.dim, generator=random, dtype=torch.float64)
        z = gaussians.of_standard(xi)
        costs = problem.evaluate(z)
        regrets.append(float(costs.mean()))
        gaussians = updated(gaussians, z, cumulative(costs), steps)
    return running_mean(regrets)


def cma_regret_curve(problem: CumulativeProblem, rounds: int = 1000, batch: int = 32, seed: int = 0) -> Floats:
    """Runs pycma's CMA-ES (full matrix, its own defaults) on all steps as one vector and the mean cost.

    The arguments and the result are those of :func:`regret_curve`.
    """
    import cma

    random = np.random.default_rng(seed)

    def normal(*shape: int) -> Floats:
        return random.standard_normal(shape)

    options = {"popsize": batch, "verbose": -9, "verb_log": 0, "seed": math.nan, "randn": normal}
    strategy = cma.CMAEvolutionStrategy(np.zeros(problem.steps * problem.dim), 1.0, options)
    regrets: list[float] = []
    while len(regrets) < rounds:
        solutions = strategy.ask()
        noise = torch.from_numpy(np.stack(solutions)).reshape(batch, problem.steps, problem.dim).transpose(0, 1)
        costs = problem.evaluate(noise).mean(dim=0)
        regrets.append(float(costs.mean()))
        strategy.tell(solutions, costs.tolist())
    return running_mean(regrets)


def running_mean(values: list[float]) -> Floats:
    """Returns the mean of the first 1, 2, ... values."""
    return np.asarray(np.cumsum(values) / np.arange(1, len(values) + 1), dtype=np.float64)


def slope(curve: Floats, first: int) -> float:
    """Returns the slope of log average regret on log rounds, from round ``first`` on, by least squares."""
    rounds = np.arange(first, len(curve) + 1)
    return float(np.polyfit(np.log(rounds), np.log(curve[first - 1 :]), 1)[0])


__all__ = [
    "COSTS",
    "CumulativeProblem",
    "cma_regret_curve",
    "numerical_problem",
    "regret_curve",
    "running_mean",
    "slope",
]
