"""All randomness of a sample, from the seed of its draw alone: noise sequences and conditions.

The batch a sample runs in must not matter, so every sample has generators of its own. They are numpy's PCG64
rather than torch's Mersenne Twister, because ``torch.Generator.manual_seed`` keeps only the low 32 bits of a
seed: among 65,536 draws two would be twins with a probability of 39%.

May import: numpy, torch, :mod:`pilotwave.types`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pilotwave.types import Draw


def generator_of(draw: Draw, purpose: str) -> np.random.Generator:
    """Returns the generator of one sample for one purpose; purposes are independent of each other.

    Args:
        draw: Only its seed is used, all 63 bits of it.
        purpose: What the numbers are for, e.g. ``"noise"`` or ``"atom count"``.
    """
    key = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "big")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(draw.seed, spawn_key=(key,))))


def draw_noise_sequence(draws: Sequence[Draw], steps: int, latent_shape: Sequence[int]) -> Tensor:
    """Draws standard normal noise sequences, each from its own seed.

    The last entry is zero: all samplers here end with a noiseless step, and a component that the sampler
    does not use is zero by contract.

    Args:
        draws: One per sample.
        steps: K.
        latent_shape: The shape of one latent.

    Returns:
        float32 of shape (steps + 1, batch, *latent_shape), in the plain Gaussian scale: index 0 still has to
        be multiplied by the sampler's initial noise level.
    """
    noise_sequence = torch.zeros(steps + 1, len(draws), *latent_shape)
    for place, draw in enumerate(draws):
        noise = generator_of(draw, "noise").standard_normal((steps, *latent_shape), dtype=np.float32)
        noise_sequence[:steps, place] = torch.from_numpy(noise)
    return noise_sequence


def draw_categories(draws: Sequence[Draw], probabilities: Sequence[float], purpose: str = "condition") -> Tensor:
    """Draws one category per sample, e.g. a class or a number of atoms, each from its own seed.

    Args:
        draws: One per sample.
        probabilities: Of the categories 0, 1, ...; they need not sum to one.
        purpose: Categories of different purposes are independent.

    Returns:
        int64 of shape (batch,), indices into ``probabilities``.

    Raises:
        ValueError: The probabilities are empty, negative, not finite or all zero.
    """
    weights = np.asarray(probabilities, dtype=np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise ValueError(f"expected probabilities of which one at least is positive, got {list(probabilities)}")
    bounds = np.cumsum(weights) / weights.sum()
    bounds[np.flatnonzero(weights)[-1] :] = 1.0
    uniforms = [generator_of(draw, purpose).random() for draw in draws]
    return torch.from_numpy(np.searchsorted(bounds, uniforms, side="right").astype(np.int64))


__all__ = ["draw_categories", "draw_noise_sequence", "generator_of"]
