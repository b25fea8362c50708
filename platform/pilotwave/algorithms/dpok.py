"""DPOK (Fan et al., "DPOK: reinforcement learning for fine-tuning text-to-image diffusion models", NeurIPS 2023).

arXiv 2305.16381. The policy gradient of algorithm 1 there, with the KL divergence from the pre-trained model as a
penalty on every step.

| symbol in the paper | here |
|---|---|
| p_theta, p_pre | policy and base model, :class:`pilotwave.algorithms.policy.StepDensities` |
| r(x_0, z) minus a baseline | ``advantages``, of the negative loss |
| alpha, beta | ``kl_weight`` = beta / alpha |
| KL(p_theta(x_{t-1} given x_t, z), p_pre(...)) | ``divergence``, in nats |
| clip range of the ratio, 1e-4 in the reference program | ``clip_range`` |
| policy steps per round, 5 in the reference program | ``updates`` |

The loss of a step is -A clip(r, 1 - e, 1 + e) + kl_weight KL, averaged over samples and steps: an answer whose
ratio is clipped teaches nothing more, whichever side it is on, as in the reference program. The paper's alpha =
10 and beta = 0.01 are the default; its rewards have a spread of about one, as standardised losses have. What
differs: the baseline is the mean of the losses (and their scale the standard deviation) instead of a learnt
value function; the five steps share the batch out instead of drawing pairs of a sample and a step from it; and
what :mod:`pilotwave.algorithms.policy_training` says.

May import: torch, pydantic, config.components and the modules on policies.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from pilotwave.algorithms.policy import StepDensities
from pilotwave.algorithms.policy_training import RATIO_SCALE, PolicyConfig, PolicyGradient, tempered
from pilotwave.config.components import AlgorithmSetting


class DPOK(PolicyGradient):
    """DPOK by ask and tell; see :class:`PolicyGradient`."""

    name = "dpok"
    config: DPOKConfig

    def step_loss(self, densities: StepDensities, advantages: Tensor) -> Tensor:
        ratio = tempered(densities.log_ratio)
        clipped = ratio.clamp(1.0 - self.config.clip_range, 1.0 + self.config.clip_range)
        return (self.config.kl_weight * densities.divergence - RATIO_SCALE * advantages * clipped).mean()


class DPOKConfig(PolicyConfig):
    """Choice ``dpok``."""

    summary: ClassVar[str] = "DPOK: policy gradient with a KL penalty on a LoRA adapter of the model (2023)."

    kind: Literal["dpok"]
    updates: int = Field(5, ge=1, le=1000, description="Steps of AdamW in one pass over a batch of answers.")
    clip_range: float = Field(1e-4, gt=0, lt=1, description="Of the ratio of densities; 1e-4 is 1.6 nats a step.")
    kl_weight: float = Field(1e-3, ge=0, description="Standardised loss per nat of divergence from the base model.")

    def build(self, setting: AlgorithmSetting) -> DPOK:
        return DPOK(setting, self)


__all__ = ["DPOK", "DPOKConfig"]
