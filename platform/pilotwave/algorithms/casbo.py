"""Covariance-adaptive sequential black-box optimisation (Lyu, Tan, Ong, Tsang, 2024, arXiv 2406.00812).

The noise of every sampler step k has a Gaussian N(mu_k, Sigma_k) of its own, at first (0, I). A round draws
z_k = mu_k + Sigma_k^{1/2} xi_k per sample and gives it to the sampler rescaled to the norm of xi_k; each step is
then charged with the cumulative score of the steps that it still influences, and moved
(:mod:`pilotwave.algorithms.casbo_update` has the formulas).

| symbol in the paper | here |
|---|---|
| mu_k, Sigma_k | ``NoiseGaussians`` |
| xi_k | standard noise from the draw's seed |
| f(x^(j)) | loss of the sample as far as step j decides it, three forms below |
| s_k, mean of f(x^(j)) over j >= k | ``scores[k]`` |

The three forms of f(x^(j)), field ``cumulative``, with what they cost:

- ``final``: the oracle's answer, charged to all steps alike. One query and one generator pass a sample.
- ``value-model``: a Gaussian process on the clean latent that the sampler predicts at step j
  (:mod:`pilotwave.algorithms.casbo_values`). One query, two passes a sample.
- ``completion``: the oracle's answer to the deterministic completion from step j, with mean noise after it. The
  paper asks all K completions of a sample, which is K queries. Here each draw is *one* completion, of a step that
  its seed deals out, and step k learns from the draws with j >= k: the same cumulative score in expectation from
  independent noise, at one query a draw, so that a budget of queries means what it says. (Draws that share their
  noise could neither have conditions of their own nor be redrawn one by one.) Completions of early steps are
  smoother than samples and differ from them in loss; the mean difference per step, over all answers so far and
  shrunk by one pseudo-answer, is subtracted.

What else deviates: variances have a floor; where losses do not differ nothing is changed; a proposal with fewer
than two answers waits and is counted with the next. An update is made per proposal, in the order of their numbers,
from the answers that have arrived, so that the Gaussians are a function of the set of answers; an answer that comes
late is counted where it belongs and everything after it is made again.

May import: torch, pydantic, pilotwave's types, errors, config.components, and the other parts of the method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pilotwave.algorithms.answers import Answers, standardise
from pilotwave.algorithms.casbo_update import CasboSteps, StepSizes, cumulative, updated
from pilotwave.algorithms.casbo_values import PredictedValues
from pilotwave.algorithms.gaussian_noise import (
    AskedGaussians,
    GaussianNoisePlan,
    NoiseGaussians,
    UsedComponents,
    completion_steps,
    rounds_of,
)
from pilotwave.config.components import AlgorithmConfig, AlgorithmSetting
from pilotwave.errors import InputError
from pilotwave.types import Observation, Proposal, ok_observations

CumulativeForm = Literal["final", "value-model", "completion"]
LEAST_ANSWERS = 2
FULL_DIM = 64
LARGEST_FULL_DIM = 1024
SNAPSHOTS = 8
"""So many states between rounds are kept, for answers that come late; before them all rounds are made again."""


class Casbo:
    """CASBO by ask and tell; answers in any order, in part, and more than once.

    It keeps the latents of all answers, and the Gaussians that each proposal was drawn from.

    Args:
        latent_shape: Of the backbone.
        steps: K of the backbone.
        step_sizes: Of the update.
        full: Whether covariances are whole matrices.
        form: Where the scores of steps come from.
        values: The value model, for that form only.
    """

    name = "casbo"
    _answers: Answers
    _asked: AskedGaussians
    _used: UsedComponents
    _made: list[tuple[str, ...]]
    _snapshots: dict[int, NoiseGaussians]

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        steps: int,
        step_sizes: CasboSteps,
        full: bool = False,
        form: CumulativeForm = "final",
        values: PredictedValues | None = None,
    ) -> None:
        if (values is not None) != (form == "value-model"):
            raise ValueError(f"expected a value model for that form exactly, got {values!r} with form {form!r}")
        self.step_sizes = step_sizes
        self.full = full
        self.form: CumulativeForm = form
        self._values = values
        self._latent_shape, self._steps = tuple(latent_shape), steps
        self._reset()

    def ask(self, count: int) -> Proposal:
        if count < 1:
            raise ValueError(f"expected to be asked for at least one sample, got {count}")
        gaussians = self.gaussians().float()
        number = self._asked.add(gaussians)
        passes = 2 if self.form == "value-model" else 1
        return Proposal(
            number, count, GaussianNoisePlan(gaussians, self.name, self.form == "completion", passes=passes)
        )

    def tell(self, observations: Sequence[Observation]) -> None:
        candidates = {item.query_id: item for item, _ in ok_observations(observations)}
        fresh = self._answers.add([item for item in observations if item.candidate.proposal in self._asked])
        for name in fresh:
            self._used.keep(name, candidates[name].noise_sequence)
        if self._values is not None:
            self._values.keep([candidates[name] for name in fresh])

    def gaussians(self) -> NoiseGaussians:
        """Returns the Gaussians after all answers so far, float64."""
        names = self._answers.ids
        rounds = rounds_of(self._answers.proposals.tolist(), LEAST_ANSWERS)
        keys = [tuple(names[place] for place in places) for places in rounds]
        same = 0
        while same < min(len(keys), len(self._made)) and keys[same] == self._made[same]:
            same += 1
        self._snapshots = {made: state for made, state in self._snapshots.items() if made <= same}
        start = max(self._snapshots)
        gaussians = self._snapshots[start]
        for place in range(start, len(rounds)):
            gaussians = self._after(gaussians, rounds[: place + 1])
            self._snapshots[place + 1] = gaussians
        kept = sorted(self._snapshots)
        self._snapshots = {made: self._snapshots[made] for made in {kept[0], *kept[-SNAPSHOTS:]}}
        self._made = keys
        return gaussians

    def state_dict(self) -> dict[str, Any]:
        names = self._answers.ids
        state = {
            "algorithm": self.name,
            "full": self.full,
            "form": self.form,
            **self._answers.state_dict(),
            **self._asked.state_dict(),
            "used": self._used.packed(names),
        }
        return state if self._values is None else {**state, "predictions": self._values.packed(names)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        mine = {"algorithm": self.name, "full": self.full, "form": self.form}
        for key, expected in mine.items():
            if state.get(key) != expected:
                raise ValueError(f"expected a state of {key} {expected!r}, got {state.get(key)!r}")
        self._reset()
        self._answers.load_state_dict(state)
        self._asked.load_state_dict(state)
        self._used.restore(self._answers.ids, state["used"])
        if self._values is not None:
            self._values.restore(self._answers.ids, state["predictions"])

    def _reset(self) -> None:
        dim = math.prod(self._latent_shape)
        self._answers = Answers(self._latent_shape)
        self._asked = AskedGaussians(self._steps, dim, self.full)
        self._used = UsedComponents(self._steps, self._latent_shape)
        self._made = []
        self._snapshots = {0: NoiseGaussians.standard(self._steps, dim, self.full)}

    def _after(self, gaussians: NoiseGaussians, rounds: list[list[int]]) -> NoiseGaussians:
        """The Gaussians after the last of the rounds, from those before it."""
        names, seeds = self._answers.ids, self._answers.seeds.tolist()
        places = rounds[-1]
        used = self._used.of([names[place] for place in places])
        proposals = self._answers.proposals[places].tolist()
        z = self._asked.draws_of([seeds[place] for place in places], proposals, used, self.name)
        if self.form == "final":
            scores, counted = self._answers.losses[places].expand(self._steps, -1), None
        elif self.form == "value-model":
            scores, counted = self._predicted(rounds), None
        else:
            scores, counted = self._completed(rounds)
        return updated(gaussians, z.flatten(2), scores, self.step_sizes, used.flatten(2), counted)

    def _predicted(self, rounds: list[list[int]]) -> Tensor:
        """Cumulative scores by a value model that knows the rounds up to this one."""
        assert self._values is not None
        known = sorted(place for places in rounds for place in places)
        names, latents, losses = self._answers.ids, self._answers.latents[known], self._answers.losses[known]
        asked = [known.index(place) for place in rounds[-1]]
        return cumulative(self._values.costs([names[place] for place in known], latents, losses, asked))

    def _completed(self, rounds: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Scores of completions without what their step alone explains, and which step learns from which."""
        losses, seeds = self._answers.losses, self._answers.seeds
        scores = torch.cat([standardise(losses[places]) for places in rounds])
        ends = torch.cat([torch.tensor(completion_steps(seeds[places].tolist(), self._steps)) for places in rounds])
        sums = torch.zeros(self._steps, dtype=torch.float64).index_add(0, ends, scores)
        counts = torch.bincount(ends, minlength=self._steps)
        residuals = (scores - (sums / (counts + 1))[ends])[-len(rounds[-1]) :]
        counted = torch.arange(self._steps)[:, None] <= ends[-len(rounds[-1]) :]
        return residuals.expand(self._steps, -1), counted


class CasboConfig(AlgorithmConfig):
    """Choice ``casbo``."""

    summary: ClassVar[str] = "CASBO: one adaptive Gaussian over the noise of each sampler step (2024)."

    kind: Literal["casbo"]
    covariance: Literal["auto", "diagonal", "full"] = Field(
        "auto",
        description=f"Whether covariances are whole matrices. Default: up to {FULL_DIM} numbers a latent.",
    )
    cumulative: CumulativeForm = Field(
        "final",
        description="Where the score of a step comes from: the final answer alone, a Gaussian process on the clean "
        "samples predicted on the way (a second generator pass), or answers to deterministic completions.",
    )
    step_sizes: StepSizes = Field(
        "constant", description="constant: beta 1, gamma 1/128; dimension: both 1/sqrt(numbers a latent)."
    )
    beta: float | None = Field(None, gt=0, le=10, description="Step size of the means. Default: by step_sizes.")
    gamma: float | None = Field(
        None, ge=0, le=10, description="Step size of the inverse covariances. Default: by step_sizes."
    )
    least_variance: float = Field(1e-4, gt=0, lt=1, description="No variance of the noise shrinks below.")
    value_noise: float = Field(
        0.1, ge=1e-6, le=10, description="Noise variance of the value model, in standardised losses squared."
    )

    def build(self, setting: AlgorithmSetting) -> Casbo:
        dim = math.prod(setting.latent_shape)
        if self.covariance == "full" and dim > LARGEST_FULL_DIM:
            raise InputError(
                f"algorithm.covariance: expected at most {LARGEST_FULL_DIM} numbers a latent for full matrices, "
                f"got {dim}; use covariance: diagonal"
            )
        values = None
        if self.cumulative == "value-model":
            if setting.build_backbone is None:
                raise InputError(
                    "algorithm.cumulative: value-model needs a copy of the model; use cumulative: final"
                )
            values = PredictedValues(setting.build_backbone, self.value_noise)
        return Casbo(
            setting.latent_shape,
            setting.steps,
            CasboSteps.by_convention(self.step_sizes, dim, self.beta, self.gamma, self.least_variance),
            full=self.covariance == "full" or (self.covariance == "auto" and dim <= FULL_DIM),
            form=self.cumulative,
            values=values,
        )


__all__ = ["Casbo", "CasboConfig"]
