"""Euler ancestral steps with eta = 1 for EDM-style models, x_sigma = x_0 + sigma * epsilon.

| symbol | here |
|---|---|
| sigma_i, equation 5 of Karras et al., 2022 (https://arxiv.org/abs/2206.00364) | :func:`karras_sigmas` |
| D(x; sigma), the denoiser | ``denoise(sample, step)``, with sigma as ``step.timestep`` |
| sigma_up, sigma_down (diffusers' ``EulerAncestralDiscreteScheduler``) | :func:`ancestral_split` |

With eta = 1 the step is the exact posterior q(x_{i+1} | x_i, x_0) of the variance-exploding chain at the
predicted x_0.

May import: torch, :mod:`pilotwave.protocols` and the shared schedule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pilotwave.backbones.samplers.schedule import Denoiser, SamplerStep, Schedule, run_sampler
from pilotwave.protocols import StepHook


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Returns the noise levels of a run: from sigma_max to sigma_min, then 0; float64 of shape (steps + 1,).

    Raises:
        ValueError: ``steps`` is below 1 or not 0 < sigma_min <= sigma_max.
    """
    if steps < 1 or not 0 < sigma_min <= sigma_max:
        raise ValueError(
            f"expected steps >= 1 and 0 < sigma_min <= sigma_max, got {steps}, {sigma_min} and {sigma_max}"
        )
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(first + ramp * (last - first)) ** rho, torch.zeros(1, dtype=torch.float64)])


def ancestral_split(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Splits a step into (sigma_down, sigma_up): down without noise, then up by adding noise (eta = 1)."""
    sigma_up = sigma_next * math.sqrt(sigma**2 - sigma_next**2) / sigma
    return sigma_next**2 / sigma, sigma_up


def euler_ancestral_schedule(sigmas: Sequence[float] | Tensor) -> Schedule:
    """Builds the table of Euler ancestral steps with eta = 1.

    Args:
        sigmas: steps + 1 noise levels, strictly falling to 0, e.g. from :func:`karras_sigmas`.

    Raises:
        ValueError: The noise levels do not fall strictly, or do not end at 0.
    """
    levels = [float(sigma) for sigma in sigmas]
    falling = all(before > after for before, after in itertools.pairwise(levels))
    if len(levels) < 2 or not falling or levels[-1] != 0:
        raise ValueError(f"expected steps + 1 noise levels that fall strictly to 0, got {levels}")
    rows = []
    for index, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        sigma_down, sigma_up = ancestral_split(sigma, sigma_next)
        rows.append(
            SamplerStep(
                index=index,
                timestep=sigma,
                signal_level=1.0,
                noise_level=sigma,
                clean_weight=1.0 - sigma_down / sigma,
                noisy_weight=sigma_down / sigma,
                noise_weight=sigma_up,
            )
        )
    return Schedule(levels[0], tuple(rows))


def euler_ancestral(
    denoise: Denoiser, noise_sequence: Tensor, sigmas: Sequence[float] | Tensor, hook: StepHook | None = None
) -> Tensor:
    """Samples an EDM-style model.

    Args:
        denoise: Predicts the clean sample; ``step.noise_level`` is sigma.
        noise_sequence: (steps + 1, batch, *latent_shape), unit Gaussian; index 0 is multiplied by the first sigma.
        sigmas: steps + 1 noise levels falling to 0.
        hook: May shift the predicted clean sample.

    Returns:
        The finished latents, shape (batch, *latent_shape).
    """
    return run_sampler(denoise, noise_sequence, euler_ancestral_schedule(sigmas), hook)


__all__ = ["ancestral_split", "euler_ancestral", "euler_ancestral_schedule", "karras_sigmas"]
