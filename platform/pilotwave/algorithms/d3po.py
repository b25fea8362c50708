"""D3PO (Yang et al., "Using human feedback to fine-tune diffusion models without any reward model", 2023).

arXiv 2311.13231: the preference loss of DPO (Rafailov et al., 2023, arXiv 2305.18290) on every step of the
sampler, seen as a decision of its own.

| symbol in the paper | here |
|---|---|
| pi_theta, pi_ref | policy and base model, :class:`pilotwave.algorithms.policy.StepDensities` |
| sigma_w preferred to sigma_l | pairs of a mini-batch in which the advantage of the first is higher |
| beta, 0.1 | ``beta`` |
| clip of pi_theta / pi_ref, 0.1 in the reference program | ``clip_range`` |

The loss of a step is the mean over pairs of -log sigmoid(beta (rho_w - rho_l)), where rho is the logarithm of
pi_theta / pi_ref at the step, in nats as in the paper's equation (the reference program averages it over
components), with the ratio clipped as :mod:`pilotwave.algorithms.policy_training` says. What differs: people,
or a reward, compare two samples of one prompt that share the first latent; here an oracle scored a batch, so
all pairs of a mini-batch are used, and across conditions they are compared by advantage, which is relative to
the condition once enough is known.

May import: torch, pydantic, config.components and the modules on policies.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from pilotwave.algorithms.policy import StepDensities
from pilotwave.algorithms.policy_training import RATIO_SCALE, PolicyConfig, PolicyGradient, tempered
from pilotwave.config.components import AlgorithmSetting


class D3PO(PolicyGradient):
    """D3PO by ask and tell; see :class:`PolicyGradient`."""

    name = "d3po"
    config: D3POConfig

    def step_loss(self, densities: StepDensities, advantages: Tensor) -> Tensor:
        ratio = tempered(densities.log_ratio_to_base)
        clipped = ratio.clamp(1.0 - self.config.clip_range, 1.0 + self.config.clip_range)
        evidence = self.config.beta * RATIO_SCALE * clipped.log()
        better, worse = (advantages[:, None] > advantages[None, :]).nonzero(as_tuple=True)
        # The sum and not the mean, so that a mini-batch without pairs is 0 and not undefined.
        return -functional.logsigmoid(evidence[better] - evidence[worse]).sum() / max(1, len(better))


class D3POConfig(PolicyConfig):
    """Choice ``d3po``."""

    summary: ClassVar[str] = "D3PO: direct preference optimisation of a LoRA adapter, on pairs of a batch (2023)."

    kind: Literal["d3po"]
    beta: float = Field(0.1, gt=0, description="How firmly the policy is held to the base model.")
    clip_range: float = Field(0.1, gt=0, lt=1, description="Of the ratio of densities; 0.1 is 1,600 nats.")

    def build(self, setting: AlgorithmSetting) -> D3PO:
        return D3PO(setting, self)


__all__ = ["D3PO", "D3POConfig"]
