"""Varying known noise: fresh noise from a draw's own seed, mixing it into a parent's, back onto the shell.

Shared by the methods that start from noise sequences whose answers are known. Everything takes and gives noise of
shape (steps + 1, batch, *latent_shape), works in float64 inside and returns float32. Components that are exactly
zero in the parent are not used by the sampler (padding, the last entry) and stay zero; a parent of another
condition may use other components than the draw would have, so fresh noise is drawn for all of them here and cut
to the parent's.

May import: numpy, torch, pilotwave's types.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pilotwave.types import Draw


def generator_for(seed: int, purpose: str) -> np.random.Generator:
    """Returns the generator of one seed for one purpose; purposes are independent of each other.

    Args:
        seed: All 63 bits of it are used.
        purpose: What the numbers are for; other than ``"noise"``, which is the backbone's own.
    """
    key = int.from_bytes(hashlib.sha256(f"variation/{purpose}".encode()).digest()[:4], "big")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(key,))))


def draw_fresh_noise(draws: Sequence[Draw], like: Tensor, purpose: str) -> Tensor:
    """Draws standard normal noise, each sample's from its own seed, where ``like`` is not zero.

    Args:
        draws: One per sample.
        like: (steps + 1, batch, *latent_shape).
        purpose: See :func:`generator_for`.

    Returns:
        float32 of the shape of ``like``.
    """
    shape = (like.shape[0], *like.shape[2:])
    rows = [generator_for(draw.seed, purpose).standard_normal(shape, dtype=np.float32) for draw in draws]
    noise = torch.stack([torch.from_numpy(row) for row in rows], dim=1) if rows else torch.zeros(like.shape)
    return noise.where(like != 0, 0.0)


def mixed_noise(parent_noise: Tensor, fresh_noise: Tensor, share: float | Tensor) -> Tensor:
    """Returns sqrt(1 - share^2) * parent + share * fresh, which is standard normal if both are and independent.

    Args:
        parent_noise: (steps + 1, batch, *latent_shape).
        fresh_noise: Of the same shape; what it has where the parent is exactly zero is not used.
        share: Between 0 (the parent) and 1 (fresh); a tensor must broadcast against the noise, e.g. of shape
            (steps + 1, 1, 1, 1) for one share per step of a latent with two dimensions.

    Raises:
        ValueError: A share is below 0 or above 1.
    """
    weight = torch.as_tensor(share, dtype=torch.float64)
    if not bool(((weight >= 0) & (weight <= 1)).all()):
        raise ValueError(f"expected shares of fresh noise between 0 and 1, got {share}")
    mixed = (1 - weight.square()).sqrt() * parent_noise.double() + weight * fresh_noise.double()
    return mixed.where(parent_noise != 0, 0.0).float()


def onto_shell(noise: Tensor, like: Tensor) -> Tensor:
    """Rescales each step of each sample to the Euclidean norm that it has in ``like``.

    Where the noise has no direction (it vanishes or is not finite) it becomes ``like``.

    Args:
        noise: (steps + 1, batch, *latent_shape).
        like: Finite, of the same shape.
    """
    moved, origin = noise.double().flatten(2), like.double().flatten(2)
    usable = moved.isfinite().all(dim=2, keepdim=True) & (moved != 0).any(dim=2, keepdim=True)
    moved = moved.where(usable, origin)
    # The largest component first, so that squares neither overflow nor vanish.
    largest = moved.abs().amax(dim=2, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    unit = moved / largest
    length, radius = (torch.linalg.vector_norm(part, dim=2, keepdim=True) for part in (unit, origin))
    scaled: Tensor = unit * (radius / length.clamp(min=torch.finfo(torch.float64).tiny))
    return scaled.reshape(noise.shape).float()


def fitted_noise(parent_noise: Tensor, own: Tensor) -> Tensor:
    """Returns a parent's noise for a child of another condition, whose samples may use other components.

    Args:
        parent_noise: (steps + 1, batch, *latent_shape).
        own: The child's own noise, of the same shape; it fills in where the parent has none, and where it is zero
            itself the result is.
    """
    return torch.where(own == 0, own, torch.where(parent_noise == 0, own, parent_noise))


def eligible_parents(condition: Tensor, parent_conditions: Tensor, free: bool) -> list[int]:
    """Returns the places of the parents that a draw may descend from.

    Args:
        condition: The draw's own, of shape (condition_size,).
        parent_conditions: (parents, condition_size).
        free: Whether a child takes its parent's condition, so that every parent will do.

    Returns:
        All places if conditions are free; otherwise those of the draw's own condition, or all if there are none.
    """
    everyone = list(range(len(parent_conditions)))
    if free:
        return everyone
    alike = (parent_conditions == condition).all(dim=1)
    return alike.nonzero().flatten().tolist() or everyone


def child_conditions(own: Tensor, parents: Tensor, free: bool) -> Tensor:
    """Returns the conditions of children: their parents' if conditions are free, else the draws' own.

    Args:
        own: (batch, condition_size), as drawn.
        parents: (batch, condition_size), of each child's parent.
        free: See :class:`pilotwave.protocols.Backbone`.
    """
    return (parents if free else own).clone()


__all__ = [
    "child_conditions",
    "draw_fresh_noise",
    "eligible_parents",
    "fitted_noise",
    "generator_for",
    "mixed_noise",
    "onto_shell",
]
