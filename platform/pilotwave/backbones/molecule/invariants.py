"""Numbers that say everything about a molecule's latent except how it lies in space: what surrogates learn from.

Distances between slots do not change when the molecule is turned, shifted or reflected, and the slots have an order
of their own (canonical SMILES), so neither alignment nor matching of atoms is needed. May import torch and the
network beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pilotwave.backbones.molecule.network import pair_distances


@dataclass(frozen=True)
class MoleculeInvariants:
    """Distances between slots, then the classes; see :data:`pilotwave.protocols.Invariants`.

    Distances are divided by sqrt(slots - 1), so that one atom's weigh about as much as its coordinates would, and
    classes by their scale, so that they are one-hot vectors of length 1. Both kinds then contribute alike to the
    distance between two molecules: 2.6 and 3.7 in root mean square between samples of the small model, 10.3 and 5.9
    between drug-like ones. Missing slots are zero in both.

    Attributes:
        class_scale: Length of a clean class vector.
    """

    class_scale: float

    def __call__(self, latents: Tensor, conditions: Tensor) -> Tensor:
        """Describes latents (batch, slots, 3 + classes) by slots (slots - 1) / 2 + slots * classes numbers each.

        Args:
            latents: As the sampler leaves them.
            conditions: Numbers of atoms, (batch, 1).
        """
        slots = latents.shape[1]
        atoms = conditions.to(latents.device)
        present = (torch.arange(slots, device=latents.device) < atoms).to(latents.dtype)
        rows, columns = torch.triu_indices(slots, slots, offset=1, device=latents.device)
        distances = pair_distances(latents[..., :3])[:, rows, columns] * (present[:, rows] * present[:, columns])
        classes = latents[..., 3:] * present[..., None] / self.class_scale
        return torch.cat([distances / math.sqrt(max(slots - 1, 1)), classes.flatten(1)], dim=1)


__all__ = ["MoleculeInvariants"]
