"""CMA-ES over the noise, by pycma (Hansen, Akimoto, Baudis, "CMA-ES/pycma on Github", doi 10.5281/zenodo.2559634).

The separable form (Ros and Hansen, "A simple modification in CMA-ES achieving linear time and space complexity",
PPSN 2008) searches the noise of all steps as one vector; what the sampler gets is rescaled, step by step, to the
norm of the standard noise it came from.

| symbol in the papers | here |
|---|---|
| m, sigma D | ``NoiseGaussians.mean``, ``NoiseGaussians.scale`` |
| lambda | answers of a generation |
| z_i of N(0, I) | standard noise from a draw's seed |
| x_i = m + sigma D z_i | what is told to pycma |

pycma makes the update (weights, paths, step size, scaling); it does not draw, so that a draw's randomness is its
own. A generation is a proposal with the answers that have arrived, in the order of their numbers: the state of
pycma is a function of the set of answers, and is made again by telling it the generations once more, so nothing of
pycma is ever saved. Answers that were drawn from another distribution than the present one (asynchronous) are what
pycma calls injected solutions: where a generation has any, it clips what lies too far out.

What deviates from pycma's own loop: lambda changes with the number of answers, for which pycma's parameters are set
again before each generation; losses are told as ranks (the update uses no more of them, and ranks do not
overflow); generations whose losses are all equal are left out; small proposals wait for the next, because pycma
refuses two answers and warns below five; components that a sample does not use (padding) are told as the mean.

May import: numpy, torch, pydantic, pilotwave's types, config.components and the shared Gaussians; cma inside
functions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from pilotwave.algorithms.answers import Answers
from pilotwave.algorithms.gaussian_noise import (
    AskedGaussians,
    GaussianNoisePlan,
    NoiseGaussians,
    UsedComponents,
    rounds_of,
)
from pilotwave.config.components import AlgorithmConfig, AlgorithmSetting
from pilotwave.types import Observation, Proposal, ok_observations

LEAST_POPULATION = 4


class SeparableCma:
    """pycma's separable update without its sampling.

    Args:
        dim: Numbers to search.
        sigma: The first standard deviation of each; the first mean is zero.
        population: Answers of a usual generation.
    """

    def __init__(self, dim: int, sigma: float, population: int) -> None:
        import cma
        from cma.sigma_adaptation import CMAAdaptSigmaCSA

        options = {
            "CMA_diagonal": True,
            # Two-point adaptation, pycma's choice in high dimension, needs samples of pycma's own.
            "AdaptSigma": CMAAdaptSigmaCSA,
            "popsize": max(population, LEAST_POPULATION),
            "randn": _no_noise,
            "seed": math.nan,  # leaves numpy's global generator alone
            "verbose": -9,
            "verb_log": 0,
        }
        self._strategy = cma.CMAEvolutionStrategy(np.zeros(dim), sigma, options)

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """The mean, shape (dim,)."""
        return np.array(self._strategy.mean, dtype=np.float64)

    @property
    def deviations(self) -> npt.NDArray[np.float64]:
        """The standard deviations, shape (dim,)."""
        scaling = np.broadcast_to(np.asarray(self._strategy.sigma_vec.scaling, dtype=np.float64), self.mean.shape)
        return np.array(self._strategy.sigma * scaling)

    def tell(self, solutions: npt.NDArray[np.float64], losses: npt.NDArray[np.float64], own: bool = True) -> None:
        """Makes one generation's update.

        Args:
            solutions: (population, dim), at least four.
            losses: (population,).
            own: Whether all were drawn from the present distribution; if not, pycma clips far ones.
        """
        strategy = self._strategy
        if len(solutions) != strategy.sp.popsize:
            parameters = strategy.sp
            parameters.set(strategy.opts, popsize=len(solutions), verbose=False)
            parameters.weights.finalize_negative_weights(
                strategy.N, parameters.c1_sep, parameters.cmu_sep, pos_def=False
            )
            if strategy.adapt_sigma.is_initialized:
                strategy.adapt_sigma.initialize_settings(strategy, reset=True)
        strategy.ask(len(solutions))  # of no noise: only so that pycma may be told
        ranks = np.argsort(np.argsort(losses, kind="stable"), kind="stable")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that all solutions are injected is how it is meant
            strategy.tell(list(solutions), ranks.astype(float).tolist(), check_points=False if own else None)


def _no_noise(*shape: int) -> npt.NDArray[np.float64]:
    return np.zeros(shape)


class CmaEs:
    """Separable CMA-ES by ask and tell; answers in any order, in part, and more than once.

    Args:
        latent_shape: Of the backbone.
        steps: K of the backbone.
        population: Answers of a usual generation.
        sigma: The first standard deviation of the noise.
    """

    name = "cma-es"
    _answers: Answers
    _asked: AskedGaussians
    _used: UsedComponents
    _told: list[tuple[str, ...]]
    _cma: SeparableCma

    def __init__(self, latent_shape: tuple[int, ...], steps: int, population: int, sigma: float = 1.0) -> None:
        self._latent_shape, self._steps = tuple(latent_shape), steps
        self._population, self._sigma = population, sigma
        self._reset()

    def ask(self, count: int) -> Proposal:
        if count < 1:
            raise ValueError(f"expected to be asked for at least one sample, got {count}")
        gaussians = self.gaussians().float()
        return Proposal(self._asked.add(gaussians), count, GaussianNoisePlan(gaussians, self.name))

    def tell(self, observations: Sequence[Observation]) -> None:
        candidates = {item.query_id: item for item, _ in ok_observations(observations)}
        for name in self._answers.add([item for item in observations if item.candidate.proposal in self._asked]):
            self._used.keep(name, candidates[name].noise_sequence)

    def gaussians(self) -> NoiseGaussians:
        """Returns the search distribution after all answers so far, float64."""
        names = self._answers.ids
        rounds = rounds_of(self._answers.proposals.tolist(), LEAST_POPULATION)
        keys = [tuple(names[place] for place in places) for places in rounds]
        if keys[: len(self._told)] != self._told:
            self._cma, self._told = self._fresh(), []
        for places in rounds[len(self._told) :]:
            self._learn(places)
        self._told = keys
        return self._present()

    def state_dict(self) -> dict[str, Any]:
        return {
            "algorithm": self.name,
            "population": self._population,
            "sigma": self._sigma,
            **self._answers.state_dict(),
            **self._asked.state_dict(),
            "used": self._used.packed(self._answers.ids),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("algorithm") != self.name:
            raise ValueError(f"expected a state of algorithm {self.name!r}, got {state.get('algorithm')!r}")
        self._population, self._sigma = int(state["population"]), float(state["sigma"])
        self._reset()
        self._answers.load_state_dict(state)
        self._asked.load_state_dict(state)
        self._used.restore(self._answers.ids, state["used"])

    def _reset(self) -> None:
        self._answers = Answers(self._latent_shape)
        self._asked = AskedGaussians(self._steps, math.prod(self._latent_shape))
        self._used = UsedComponents(self._steps, self._latent_shape)
        self._cma, self._told = self._fresh(), []

    def _fresh(self) -> SeparableCma:
        return SeparableCma(self._steps * math.prod(self._latent_shape), self._sigma, self._population)

    def _present(self) -> NoiseGaussians:
        rows = (self._cma.mean, self._cma.deviations)
        return NoiseGaussians(*(torch.from_numpy(row).reshape(self._steps, -1) for row in rows))

    def _learn(self, places: list[int]) -> None:
        losses = self._answers.losses[places]
        if bool((losses == losses[0]).all()):
            return
        names, seeds = self._answers.ids, self._answers.seeds.tolist()
        used = self._used.of([names[place] for place in places])
        proposals = self._answers.proposals[places].tolist()
        present = self._present().float()
        own = all(self._asked.equals(number, present) for number in set(proposals))
        z = self._asked.draws_of([seeds[place] for place in places], proposals, used, self.name)
        rows = z.transpose(0, 1).flatten(1).double()
        rows = rows.where(used.transpose(0, 1).flatten(1), torch.from_numpy(self._cma.mean))
        self._cma.tell(rows.numpy(), losses.numpy(), own)


class CmaEsConfig(AlgorithmConfig):
    """Choice ``cma-es``."""

    summary: ClassVar[str] = "Separable CMA-ES (pycma) over the noise of all steps."
    packages: ClassVar[tuple[str, ...]] = ("cma",)
    extra: ClassVar[str | None] = "algorithms"

    kind: Literal["cma-es"]
    sigma: float = Field(1.0, gt=0, le=10, description="First standard deviation; the noise's own is 1.")

    def build(self, setting: AlgorithmSetting) -> CmaEs:
        return CmaEs(setting.latent_shape, setting.steps, setting.batch_size, self.sigma)


__all__ = ["CmaEs", "CmaEsConfig", "SeparableCma"]
