"""DDPO (Black et al., "Training diffusion models with reinforcement learning", 2023, arXiv 2305.13301).

The sampler is a Markov decision process of K steps whose only reward comes at the end; the estimator is the one
with importance sampling, DDPO_IS, with the clipping of PPO (Schulman et al., 2017, arXiv 1707.06347).

| symbol in the paper | here |
|---|---|
| p_theta(x_{t-1} given x_t, c) | density of a step, :class:`pilotwave.algorithms.policy.StepDensities` |
| p_theta / p_theta_old | ``tempered(log_ratio)`` |
| r(x_0, c), normalised per prompt | ``advantages``, of the negative loss |
| clip range, 1e-4 | ``clip_range`` |

The loss of a step is max(-A r, -A clip(r, 1 - e, 1 + e)), averaged over samples and steps. What differs: LoRA on
every linear layer of our small networks, with a learning rate chosen for them; the last, noiseless step stays the
base model's; and what :mod:`pilotwave.algorithms.policy_training` says.

May import: torch, pydantic, config.components and the modules on policies.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pilotwave.algorithms.policy import StepDensities
from pilotwave.algorithms.policy_training import RATIO_SCALE, PolicyConfig, PolicyGradient, tempered
from pilotwave.config.components import AlgorithmSetting


class DDPO(PolicyGradient):
    """DDPO by ask and tell; see :class:`PolicyGradient`."""

    name = "ddpo"
    config: DDPOConfig

    def step_loss(self, densities: StepDensities, advantages: Tensor) -> Tensor:
        ratio = tempered(densities.log_ratio)
        clipped = ratio.clamp(1.0 - self.config.clip_range, 1.0 + self.config.clip_range)
        return RATIO_SCALE * torch.maximum(-advantages * ratio, -advantages * clipped).mean()


class DDPOConfig(PolicyConfig):
    """Choice ``ddpo``."""

    summary: ClassVar[str] = "DDPO: clipped policy gradient on a LoRA adapter of the model (2023)."

    kind: Literal["ddpo"]
    learning_rate: float = Field(0.03, gt=0, le=1, description="Of AdamW.")
    clip_range: float = Field(1e-4, gt=0, lt=1, description="Of the ratio of densities; 1e-4 is 1.6 nats a step.")

    def build(self, setting: AlgorithmSetting) -> DDPO:
        return DDPO(setting, self)


__all__ = ["DDPO", "DDPOConfig"]
