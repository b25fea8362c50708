"""Laying one latent over another: a molecule has no fixed frame, so targets are turned before they are compared.

The model's symmetry group is O(3): rotations and reflections about the molecule's centre (training shows every
molecule in both hands, so reflections belong to it by default). Latents are centred already, and slots are
ordered, so the best element of the group is the classical Kabsch solution over slots
(https://doi.org/10.1107/S0567739476001873), which is exact.

May import: torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pilotwave.backbones.molecule.representation import POSITION_CHANNELS


def align_latents(
    moving: Tensor, fixed: Tensor, atoms: Tensor | None = None, *, reflections: bool = True
) -> Tensor:
    """Turns each latent so that it lies as near as can be to another one.

    Slots that are empty in either latent do not pull: their positions are zero, or masked by `atoms`. Class
    channels are not changed, and neither is the distance of any atom from any other.

    Args:
        moving: shape (batch, slots, channels), centred.
        fixed: shape (batch, slots, channels); may be noisy.
        atoms: number of atoms of `fixed`, shape (batch,); without it all its slots count.
        reflections: False restricts to proper rotations, and so keeps the handedness of `moving`.

    Returns:
        Turned copies of `moving`, shape (batch, slots, channels).
    """
    targets = fixed[..., :POSITION_CHANNELS].double()
    if atoms is not None:
        present = torch.arange(fixed.shape[1], device=fixed.device) < atoms[:, None]
        targets = targets * present[..., None]
    positions = moving[..., :POSITION_CHANNELS].double()
    turn = best_orthogonal(positions.transpose(1, 2) @ targets, reflections=reflections)
    turned = (positions @ turn).to(moving.dtype)
    return torch.cat([turned, moving[..., POSITION_CHANNELS:]], dim=-1)


def best_orthogonal(covariance: Tensor, *, reflections: bool) -> Tensor:
    """Returns the orthogonal matrices Q that maximise trace(Qᵀ covariance), shape (batch, 3, 3).

    With covariance = Aᵀ B for row vectors A and B, Q minimises |A Q - B|².

    Args:
        covariance: shape (batch, 3, 3); where it is not finite, the answer is the identity.
        reflections: False gives the best matrices of determinant +1.
    """
    usable = covariance.isfinite().all(-1).all(-1)[..., None, None]
    left, _, right = torch.linalg.svd(torch.where(usable, covariance, torch.eye(3).to(covariance)))
    if not reflections:
        # Flipping the axis of the smallest singular value costs least.
        signs = torch.ones(covariance.shape[:-1], dtype=covariance.dtype, device=covariance.device)
        signs[..., -1] = torch.linalg.det(left @ right).sign()
        left = left * signs[..., None, :]
    turn: Tensor = left @ right
    return turn


__all__ = ["align_latents", "best_orthogonal"]
