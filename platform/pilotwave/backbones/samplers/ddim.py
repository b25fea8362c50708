"""DDIM with eta = 1 for variance-preserving models (Song, Meng, Ermon, "Denoising diffusion implicit models").

| symbol in the paper (https://arxiv.org/abs/2010.02502) | here |
|---|---|
| alpha_t (cumulative) | ``alphas_cumprod[t]`` |
| sigma_t(eta), equation 16, eta = 1 | ``noise_weight`` |
| equation 12 | :func:`ddim_schedule`, with epsilon written through the predicted clean sample |

Timesteps, ``alphas_cumprod`` and prediction types are diffusers' (``DDIMScheduler``). The epsilon of equation
12 always follows the predicted clean sample, also after a hook or clipping changed it, which is diffusers'
``use_clipped_model_output=True``. Every step ends where the next one starts; diffusers always steps by T // K,
which is the same unless ``trailing`` meets a K that does not divide T (it then leaves noise in the result).

May import: torch, :mod:`pilotwave.protocols` and the shared schedule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pilotwave.backbones.samplers.schedule import (
    PredictionType,
    SamplerStep,
    Schedule,
    predicted_clean_from,
    run_sampler,
)
from pilotwave.protocols import NoiseHook, StepHook

TimestepSpacing = Literal["leading", "trailing"]


def linear_alphas_cumprod(train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Returns alphas_cumprod of betas that grow linearly (Ho et al., 2020), float64 of shape (T,)."""
    return (1.0 - torch.linspace(beta_start, beta_end, train_timesteps, dtype=torch.float64)).cumprod(0)


def cosine_alphas_cumprod(train_timesteps: int = 1000) -> Tensor:
    """Returns alphas_cumprod of the cosine schedule (Nichol and Dhariwal, 2021), float64 of shape (T,).

    The same as diffusers' ``squaredcos_cap_v2``: s = 0.008, each beta at most 0.999.
    """
    places = torch.arange(train_timesteps + 1, dtype=torch.float64) / train_timesteps
    signal = torch.cos((places + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = (1.0 - signal[1:] / signal[:-1]).clamp(max=0.999)
    return (1.0 - betas).cumprod(0)


def ddim_timesteps(
    steps: int, train_timesteps: int = 1000, spacing: TimestepSpacing = "trailing", steps_offset: int = 0
) -> list[int]:
    """Returns the training timesteps of a run with ``steps`` steps, the noisiest first.

    Args:
        steps: K, at most ``train_timesteps``.
        train_timesteps: T.
        spacing: See table 2 of Lin et al., 2023 (https://arxiv.org/abs/2305.08891); ``trailing`` starts at the
            last timestep, as a schedule with zero terminal SNR needs it.
        steps_offset: Added to every timestep; ``leading`` only.
    """
    if not 1 <= steps <= train_timesteps:
        raise ValueError(f"expected 1 <= steps <= {train_timesteps} training timesteps, got {steps}")
    whole = torch.arange(steps, dtype=torch.float64)
    if spacing == "leading":
        places = whole.flip(0) * (train_timesteps // steps) + steps_offset
    else:
        places = (train_timesteps - whole * (train_timesteps / steps)).round() - 1
    return [int(place) for place in places]


def ddim_schedule(
    alphas_cumprod: Tensor,
    steps: int,
    spacing: TimestepSpacing = "trailing",
    steps_offset: int = 0,
) -> Schedule:
    """Builds the table of DDIM with eta = 1; the last step ends on the predicted clean sample.

    Args:
        alphas_cumprod: Shape (T,), decreasing, in [0, 1]; the last may be 0 (zero terminal SNR).
        steps: K.
        spacing: See :func:`ddim_timesteps`.
        steps_offset: See :func:`ddim_timesteps`.
    """
    table = [float(value) for value in alphas_cumprod]
    timesteps = ddim_timesteps(steps, len(table), spacing, steps_offset)
    signal_powers = [*(table[timestep] for timestep in timesteps), 1.0]
    rows = []
    for index, (before, after) in enumerate(itertools.pairwise(signal_powers)):
        variance = (1 - after) / (1 - before) * (1 - before / after)
        towards_noise = math.sqrt(max(0.0, 1 - after - variance)) / math.sqrt(1 - before)
        rows.append(
            SamplerStep(
                index=index,
                timestep=timesteps[index],
                signal_level=math.sqrt(before),
                noise_level=math.sqrt(1 - before),
                clean_weight=math.sqrt(after) - towards_noise * math.sqrt(before),
                noisy_weight=towards_noise,
                noise_weight=math.sqrt(max(0.0, variance)),
            )
        )
    return Schedule(1.0, tuple(rows))


def ddim(
    model: Callable[[Tensor, SamplerStep], Tensor],
    noise_sequence: Tensor,
    schedule: Schedule,
    prediction_type: PredictionType = "epsilon",
    hook: StepHook | None = None,
    clip_sample: float | None = None,
    noise_hook: NoiseHook | None = None,
) -> Tensor:
    """Samples a variance-preserving model.

    Args:
        model: ``model(sample, step)`` returns what ``prediction_type`` says; ``step.timestep`` is for the network.
        noise_sequence: (steps + 1, batch, *latent_shape).
        schedule: From :func:`ddim_schedule`.
        prediction_type: In diffusers' words.
        hook: May shift the predicted clean sample, after clipping.
        clip_sample: The predicted clean sample is clamped to this range around zero, or not at all.
        noise_hook: May replace the noise that a step injects.

    Returns:
        The finished latents, shape (batch, *latent_shape).
    """

    def denoise(sample: Tensor, step: SamplerStep) -> Tensor:
        clean = predicted_clean_from(model(sample, step), sample, step, prediction_type)
        return clean if clip_sample is None else clean.clamp(-clip_sample, clip_sample)

    return run_sampler(denoise, noise_sequence, schedule, hook, noise_hook)


__all__ = [
    "TimestepSpacing",
    "cosine_alphas_cumprod",
    "ddim",
    "ddim_schedule",
    "ddim_timesteps",
    "linear_alphas_cumprod",
]
