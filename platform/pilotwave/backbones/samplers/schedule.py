"""What all samplers share: a table of steps, and the loop that walks it with explicit noise.

Every sampler here takes steps of one form, linear in the predicted clean sample, the one of the step before, the
noisy sample and the noise; a sampler is the table of its coefficients (one file each, after its paper)::

    prev_sample = clean_weight * predicted_clean + previous_clean_weight * previous_clean
                  + noisy_weight * sample + noise_weight * noise_sequence[k + 1]

| symbol in the papers | here |
|---|---|
| x_T, the initial sample | ``init_noise_sigma * noise_sequence[0]`` |
| x_t = signal_t x_0 + sigma_t eps | ``sample``, ``SamplerStep.signal_level``, ``SamplerStep.noise_level`` |
| x_0 predicted at t | ``predicted_clean`` (diffusers: ``pred_original_sample``) |
| x_{t-1} | ``prev_sample`` |

May import: torch, :mod:`pilotwave.protocols`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pilotwave.protocols import NoiseHook, StepHook, StepState


@dataclass(frozen=True)
class SamplerStep:
    """One step of a sampler, from a noisier sample to the next.

    Attributes:
        index: 0 <= index < steps, the noisiest first.
        timestep: What the model is told: the training timestep (DDIM), sigma (Euler ancestral), t (flow).
        signal_level: signal_t of x_t = signal_t * x_0 + sigma_t * noise before the step.
        noise_level: sigma_t before the step.
        clean_weight: Of the predicted clean sample.
        noisy_weight: Of the sample before the step.
        noise_weight: Of the injected noise.
        previous_clean_weight: Of the clean sample predicted one step before (multistep samplers).
    """

    index: int
    timestep: float
    signal_level: float
    noise_level: float
    clean_weight: float
    noisy_weight: float
    noise_weight: float
    previous_clean_weight: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """A sampler: its initial noise level and its steps.

    Attributes:
        init_noise_sigma: Scale of ``noise_sequence[0]`` in the initial sample.
        steps: K steps, the last of them noiseless.
    """

    init_noise_sigma: float
    steps: tuple[SamplerStep, ...]


Denoiser = Callable[[Tensor, SamplerStep], Tensor]
"""``denoise(sample, step) -> predicted_clean``, both float32 of shape (batch, *latent_shape)."""

PredictionType = Literal["sample", "epsilon", "v_prediction"]
"""What a model was trained to predict, in diffusers' words; ``sample`` is the clean sample itself."""


def run_sampler(
    denoise: Denoiser,
    noise_sequence: Tensor,
    schedule: Schedule,
    hook: StepHook | None = None,
    noise_hook: NoiseHook | None = None,
) -> Tensor:
    """Walks a schedule from noise to a finished sample.

    Args:
        denoise: Predicts the clean sample.
        noise_sequence: (steps + 1, batch, *latent_shape); not changed.
        schedule: The sampler.
        hook: May shift the predicted clean sample at each step.
        noise_hook: May replace the noise that a step injects, knowing the predicted clean sample.

    Returns:
        The finished latents, shape (batch, *latent_shape), on the device of the noise.

    Raises:
        ValueError: The noise sequence is not one longer than the schedule.
    """
    if len(noise_sequence) != len(schedule.steps) + 1:
        raise ValueError(
            f"expected a noise sequence of steps + 1 = {len(schedule.steps) + 1} entries, got {len(noise_sequence)}"
        )
    sample = schedule.init_noise_sigma * noise_sequence[0]
    previous_clean: Tensor | None = None
    for step in schedule.steps:
        predicted_clean = denoise(sample, step)
        state = StepState(
            step.index,
            len(schedule.steps),
            sample,
            step.noise_level,
            step.signal_level,
            step.clean_weight,
            step.noise_weight,
        )
        if hook is not None:
            predicted_clean = hook(state, predicted_clean)
        sample = step.clean_weight * predicted_clean + step.noisy_weight * sample
        if step.previous_clean_weight and previous_clean is not None:
            sample = sample + step.previous_clean_weight * previous_clean
        previous_clean = predicted_clean
        if step.noise_weight:
            noise = noise_sequence[step.index + 1]
            if noise_hook is not None:
                noise = noise_hook(state, predicted_clean, noise)
            sample = sample + step.noise_weight * noise
    return sample


def predicted_clean_from(
    model_output: Tensor, sample: Tensor, step: SamplerStep, prediction_type: PredictionType
) -> Tensor:
    """Turns what a model predicts into the clean sample, for x_t = signal * x_0 + sigma * epsilon.

    ``v_prediction`` is for variance-preserving models (signal^2 + sigma^2 = 1), where
    v = signal * epsilon - sigma * x_0 (Salimans and Ho, 2022).

    Raises:
        ValueError: The prediction type is unknown, or epsilon is predicted where there is no signal at all.
    """
    if prediction_type == "sample":
        return model_output
    if prediction_type == "v_prediction":
        return step.signal_level * sample - step.noise_level * model_output
    if prediction_type != "epsilon":
        raise ValueError(f"expected prediction_type sample, epsilon or v_prediction, got {prediction_type!r}")
    if step.signal_level <= 0:
        raise ValueError(
            f"expected signal at timestep {step.timestep:g} for a model that predicts epsilon, got none (zero "
            "terminal SNR); use prediction_type v_prediction or sample"
        )
    return (sample - step.noise_level * model_output) / step.signal_level


__all__ = ["Denoiser", "PredictionType", "SamplerStep", "Schedule", "predicted_clean_from", "run_sampler"]
