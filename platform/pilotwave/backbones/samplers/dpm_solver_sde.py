"""SDE-DPM-Solver++(2M) for EDM-style models, x_sigma = x_0 + sigma * epsilon: second order at one pass a step.

| symbol in the paper (https://arxiv.org/abs/2211.01095) | here |
|---|---|
| lambda_t = log(alpha_t / sigma_t), with alpha_t = 1 | ``-log(sigma)`` |
| h_i = lambda_{t_i} - lambda_{t_{i-1}} | ``log(sigma / sigma_next)`` |
| r_i = h_{i-1} / h_i | ``ratio`` |
| D_i = x_theta + (x_theta - x_theta at the step before) / (2 r_i) | ``clean_weight``, ``previous_clean_weight`` |

With alpha = 1 a step is an Euler ancestral step with eta = 1 at the extrapolated prediction D_i; the first step,
which has nothing to extrapolate from, and the last, which is noiseless, are Euler ancestral steps themselves.

May import: torch and the samplers beside it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

from torch import Tensor

from pilotwave.backbones.samplers.euler_ancestral import euler_ancestral_schedule
from pilotwave.backbones.samplers.schedule import SamplerStep, Schedule


def dpm_solver_sde_schedule(sigmas: Sequence[float] | Tensor) -> Schedule:
    """Builds the table of SDE-DPM-Solver++(2M) steps.

    Args:
        sigmas: steps + 1 noise levels, strictly falling to 0, e.g. from :func:`karras_sigmas`.

    Raises:
        ValueError: The noise levels do not fall strictly, or do not end at 0.
    """
    first_order = euler_ancestral_schedule(sigmas)
    levels = [float(sigma) for sigma in sigmas]
    widths = [math.log(before / after) for before, after in itertools.pairwise(levels[:-1])]
    rows: list[SamplerStep] = list(first_order.steps)
    for index in range(1, len(widths)):
        ratio = widths[index - 1] / widths[index]
        extrapolation = rows[index].clean_weight / (2 * ratio)
        rows[index] = dataclasses.replace(
            rows[index],
            clean_weight=rows[index].clean_weight + extrapolation,
            previous_clean_weight=-extrapolation,
        )
    return Schedule(first_order.init_noise_sigma, tuple(rows))


__all__ = ["dpm_solver_sde_schedule"]
