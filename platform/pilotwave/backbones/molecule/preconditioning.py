"""EDM preconditioning for united-atom latents (Karras et al., "Elucidating the design space", 2022).

The data's sigma is the spread of the positions, in the model's length unit. Class channels carry a scaled
one-hot under the same noise: the Gaussian likelihood of a noisy class vector is known exactly, so the network
only supplies logits to add to it, and the denoised class vector is a probability vector times the scale.

May import: torch and the representation beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pilotwave.backbones.molecule.representation import POSITION_CHANNELS


def position_scales(sigma: Tensor, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (skip, output, input) scales for noise levels and a spread of the data, each shaped as `sigma`."""
    total = sigma**2 + spread**2
    return spread**2 / total, sigma * spread / total.sqrt(), 1.0 / total.sqrt()


def class_input_scale(sigma: Tensor, class_scale: float) -> Tensor:
    """Scale that brings noisy class vectors to unit size at either end of the noise range."""
    return 1.0 / (sigma**2 + class_scale**2).sqrt()


def class_log_likelihood(noisy_classes: Tensor, sigma: Tensor, class_scale: float) -> Tensor:
    """Log-likelihood of each class given the noisy class vector, up to a constant.

    For x = scale * onehot(k) + sigma * noise, log p(x | k) = scale * x_k / sigma² + const.

    Args:
        noisy_classes: shape (batch, slots, classes).
        sigma: shape (batch, 1, 1).
        class_scale: length of a clean class vector.
    """
    return noisy_classes * class_scale / sigma**2


def loss_weight(sigma: Tensor, spread: float) -> Tensor:
    """EDM's weight for squared position errors: one over the squared output scale."""
    return (sigma**2 + spread**2) / (sigma * spread) ** 2


def centre_and_mask(latents: Tensor, present: Tensor) -> Tensor:
    """Zeroes padding slots and moves each molecule's centre to the origin.

    Args:
        latents: shape (batch, slots, channels).
        present: 1 where a slot holds an atom, shape (batch, slots).
    """
    weights = present[..., None].to(latents.dtype)
    positions = latents[..., :POSITION_CHANNELS] * weights
    centre = positions.sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp(min=1.0)
    centred = (positions - centre) * weights
    return torch.cat([centred, latents[..., POSITION_CHANNELS:] * weights], dim=-1)
