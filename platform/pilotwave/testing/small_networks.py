"""Small backbones with networks of random weights, for tests of algorithms that train one.

May import: torch, the image and molecule backbones and :mod:`pilotwave.training.weights`.
"""

from __future__ import annotations

import torch
from torch import nn

from pilotwave.backbones.image.backbone import ImageBackbone, ImageBackboneConfig
from pilotwave.backbones.image.network import ImageNetwork, ImageNetworkConfig, PictureFormat
from pilotwave.backbones.image.stored import header_of
from pilotwave.backbones.molecule.backbone import MoleculeBackbone, Precision
from pilotwave.backbones.molecule.network import MoleculeNetwork, NetworkConfig
from pilotwave.training.weights import Weights


def small_image_backbone(
    steps: int = 3, classes: int = 2, device: str = "cpu", *, compiled: bool = False, guidance_scale: float = 1.0
) -> ImageBackbone:
    """Returns an image model of grey 16x16 pictures with random weights, always the same."""
    picture = PictureFormat(channels=1, side=16, class_names=tuple(f"class {number}" for number in range(classes)))
    shape = ImageNetworkConfig(widths=(8, 16), blocks=(1, 2), head_width=8, embedding=8)
    network = ImageNetwork(shape, picture)
    _randomise(network)
    weights = Weights(network.state_dict(), header_of(network), {}, "small")
    config = ImageBackboneConfig(kind="image", steps=steps, compiled=compiled, guidance_scale=guidance_scale)
    return ImageBackbone(config, weights, device)


def small_molecule_backbone(
    steps: int = 3, precision: Precision = "float32", *, compiled: bool = False
) -> MoleculeBackbone:
    """Returns a molecule model of three to five atoms with random weights, always the same."""
    shape = NetworkConfig(slots=5, width=16, layers=2, heads=2, pair_width=8, pair_blocks=1, radial_functions=4)
    network = MoleculeNetwork(shape)
    _randomise(network)
    network.requires_grad_(False)
    counts = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
    return MoleculeBackbone(network, counts, steps=steps, precision=precision, compiled=compiled, device="cpu")


@torch.no_grad()
def _randomise(network: nn.Module) -> None:
    """Fills in weights, also those that training begins with at zero."""
    random = torch.Generator().manual_seed(5)
    for _, weight in sorted(network.named_parameters()):
        weight.normal_(0.0, weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.1, generator=random)


__all__ = ["small_image_backbone", "small_molecule_backbone"]
