"""What one training step minimises: noisy latents made from molecules, and the loss of a prediction.

May import: torch, the network and the dataset's arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pilotwave.backbones.molecule import preconditioning
from pilotwave.backbones.molecule.dataset import MoleculeDataset
from pilotwave.backbones.molecule.network import NetworkConfig, Prediction, pair_distances

SMALLEST_SIGMA, LARGEST_SIGMA_FACTOR = 0.01, 1.5
CLASS_WEIGHT, DISTANCE_WEIGHT, BOND_WEIGHT = 0.5, 0.2, 0.5


Denoiser = Callable[[Tensor, Tensor, Tensor], Prediction]
"""A molecule network, as it is or compiled: noisy latents, noise levels and numbers of atoms to its prediction."""


@dataclass(frozen=True)
class TrainingBatch:
    """Clean molecules with one noise level and one noise draw each.

    Attributes:
        positions: clean positions in model units after a random rotation or reflection, shape (B, S, 3).
        classes: class index, -1 in padding, shape (B, S).
        bonds: bond labels, shape (B, S, S).
        atoms: shape (B,).
        sigma: shape (B,).
        noisy: noisy latents, shape (B, S, channels).
    """

    positions: Tensor
    classes: Tensor
    bonds: Tensor
    atoms: Tensor
    sigma: Tensor
    noisy: Tensor


def random_orthogonal(count: int, generator: torch.Generator) -> Tensor:
    """Draws uniform rotations and reflections, shape (count, 3, 3)."""
    factor, triangle = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator))
    signs = torch.diagonal(triangle, dim1=1, dim2=2).sign()
    turns: Tensor = factor * signs[:, None, :]
    return turns


@dataclass(frozen=True)
class NoiseDistribution:
    """Log-normal noise levels of training, as in EDM: mean and spread of ln(sigma), and where it is cut."""

    log_mean: float
    log_spread: float
    largest: float

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws stratified noise levels: one per equal slice of probability, in random order, shape (count,)."""
        slices = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        quantiles = slices[torch.randperm(count, generator=generator)].clamp(1e-6, 1 - 1e-6)
        logarithm = self.log_mean + self.log_spread * torch.special.ndtri(quantiles)
        sigma: Tensor = logarithm.exp().clamp(SMALLEST_SIGMA, LARGEST_SIGMA_FACTOR * self.largest)
        return sigma


def make_batch(
    molecules: MoleculeDataset,
    config: NetworkConfig,
    noise: NoiseDistribution,
    generator: torch.Generator,
    device: torch.device,
) -> TrainingBatch:
    """Rotates, noises and stacks molecules; every random number comes from `generator` (on the CPU).

    Slots that no molecule of the batch needs are left out.
    """
    count, slots = len(molecules), int(molecules.atoms.max())
    positions = torch.from_numpy(molecules.positions[:, :slots]) / config.length_unit
    positions = positions @ random_orthogonal(count, generator)
    classes = torch.from_numpy(molecules.classes[:, :slots]).long()
    onehot = functional.one_hot(classes.clamp(min=0), len(config.classes)) * (classes >= 0)[..., None]
    clean = torch.cat([positions, onehot * config.class_scale], dim=-1)
    sigma = noise.draw(count, generator)
    noisy = clean + sigma[:, None, None] * torch.randn(clean.shape, generator=generator)
    batch = TrainingBatch(
        positions,
        classes,
        torch.from_numpy(molecules.bonds[:, :slots, :slots]).long(),
        torch.from_numpy(molecules.atoms).long(),
        sigma,
        noisy,
    )
    return TrainingBatch(**{name: value.to(device) for name, value in vars(batch).items()})


def loss_of(network: Denoiser, batch: TrainingBatch, config: NetworkConfig) -> Tensor:
    """Position + 0.5 class + 0.2 distance + 0.5 bond loss, averaged over the batch."""
    with torch.autocast(batch.noisy.device.type, torch.bfloat16):
        prediction: Prediction = network(batch.noisy, batch.sigma, batch.atoms)
    present = (torch.arange(batch.noisy.shape[1], device=batch.noisy.device) < batch.atoms[:, None]).float()
    pairs = torch.triu(present[:, :, None] * present[:, None], diagonal=1)
    weight = preconditioning.loss_weight(batch.sigma, config.position_spread)
    centred = preconditioning.centre_and_mask(batch.positions, present)
    error = (prediction.positions - centred).square().mean(-1) * present
    position = (weight * error.sum(1)).sum() / present.sum()
    gap = pair_distances(prediction.positions) - pair_distances(centred)
    distance = (weight * (gap.square() * pairs).sum((1, 2))).sum() / pairs.sum()
    classes = functional.cross_entropy(prediction.class_logits.transpose(1, 2), batch.classes, ignore_index=-1)
    bonds = functional.cross_entropy(prediction.bond_logits.permute(0, 3, 1, 2), batch.bonds, reduction="none")
    bond = (bonds * pairs).sum() / pairs.sum()
    return position + CLASS_WEIGHT * classes + DISTANCE_WEIGHT * distance + BOND_WEIGHT * bond
