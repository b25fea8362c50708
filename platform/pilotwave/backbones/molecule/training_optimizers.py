"""The optimizers of the molecule model, and gradients that several processes share.

May import torch and the modules beside it.
"""

from __future__ import annotations

import torch
from torch import distributed, nn

from pilotwave.backbones.molecule.network import MoleculeNetwork
from pilotwave.backbones.molecule.training_config import MoleculeTrainingConfig


def make_optimizers(network: MoleculeNetwork, config: MoleculeTrainingConfig) -> list[torch.optim.Optimizer]:
    """Makes Muon for the matrices of the transformer layers and AdamW for all other parameters."""
    named = list(network.named_parameters())
    trunk = [value for name, value in named if name.startswith("layers.") and name.endswith("weight")]
    chosen = {id(parameter) for parameter in trunk}
    others = [value for _, value in named if id(value) not in chosen]
    muon = torch.optim.Muon(trunk, lr=config.trunk_learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["highest_lr"] = group["lr"]
    return [muon, adam]


def average_gradients(network: nn.Module, world: int) -> None:
    """Averages gradients over the processes, in one message."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    joined = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(joined)
    joined /= world
    for gradient, part in zip(gradients, torch.split(joined, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


__all__ = ["average_gradients", "make_optimizers"]
