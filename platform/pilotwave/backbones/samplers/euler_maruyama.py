"""Euler-Maruyama for flow models in their SDE form; x_t = t x_1 + (1 - t) epsilon, t from 0 (noise) to 1 (data).

The SDE with the same marginals as the flow dx = v dt is, for any diffusion w_t >= 0 (Albergo, Boffi and
Vanden-Eijnden, "Stochastic interpolants", 2023, https://arxiv.org/abs/2303.08797)::

    dx = [v(x, t) + w_t / 2 * score(x, t)] dt + sqrt(w_t) dW

Here v = (x_1 - x) / (1 - t) and score = -(x - t x_1) / (1 - t)^2 at the predicted x_1, and
w_t = diffusion * (1 - t), one of the choices of SiT (Ma et al., 2024, https://arxiv.org/abs/2401.08740): it
vanishes with the noise, so that nothing is singular at either end. The last step takes the predicted x_1, the
limit of the drift alone. Diffusion 0 is the deterministic flow.

May import: torch, :mod:`pilotwave.protocols` and the shared schedule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor

from pilotwave.backbones.samplers.schedule import Denoiser, SamplerStep, Schedule, run_sampler
from pilotwave.protocols import StepHook


def euler_maruyama_schedule(times: Sequence[float] | Tensor, diffusion: float = 2.0) -> Schedule:
    """Builds the table of Euler-Maruyama steps.

    Args:
        times: steps + 1 times, strictly rising from 0 to 1.
        diffusion: w_t / (1 - t), at least 0. Two equally spaced steps before the end the step is stable up to 6.

    Raises:
        ValueError: The times do not rise strictly from 0 to 1, or the diffusion is negative.
    """
    moments = [float(time) for time in times]
    rising = all(before < after for before, after in itertools.pairwise(moments))
    if len(moments) < 2 or not rising or moments[0] != 0 or moments[-1] != 1 or not diffusion >= 0:
        raise ValueError(
            f"expected times that rise strictly from 0 to 1 and diffusion >= 0, got {moments} and {diffusion}"
        )
    rows = []
    for index, (time, time_next) in enumerate(itertools.pairwise(moments)):
        relative = (time_next - time) / (1 - time)
        last = index == len(moments) - 2
        rows.append(
            SamplerStep(
                index=index,
                timestep=time,
                signal_level=time,
                noise_level=1 - time,
                clean_weight=1.0 if last else relative * (1 + diffusion / 2 * time),
                noisy_weight=0.0 if last else 1 - relative * (1 + diffusion / 2),
                noise_weight=0.0 if last else math.sqrt(diffusion * (1 - time) * (time_next - time)),
            )
        )
    return Schedule(1.0, tuple(rows))


def euler_maruyama(
    denoise: Denoiser,
    noise_sequence: Tensor,
    times: Sequence[float] | Tensor,
    hook: StepHook | None = None,
    diffusion: float = 2.0,
) -> Tensor:
    """Samples a flow model.

    Args:
        denoise: Predicts the clean sample x_1; for a model of the velocity see :func:`clean_from_velocity`.
        noise_sequence: (steps + 1, batch, *latent_shape).
        times: steps + 1 times rising from 0 to 1.
        hook: May shift the predicted clean sample.
        diffusion: See :func:`euler_maruyama_schedule`.

    Returns:
        The finished latents, shape (batch, *latent_shape).
    """
    return run_sampler(denoise, noise_sequence, euler_maruyama_schedule(times, diffusion), hook)


def clean_from_velocity(velocity: Tensor, sample: Tensor, step: SamplerStep) -> Tensor:
    """Turns a predicted velocity dx/dt = x_1 - epsilon into the predicted clean sample x_1."""
    return sample + step.noise_level * velocity


__all__ = ["clean_from_velocity", "euler_maruyama", "euler_maruyama_schedule"]
