"""Averaged weights: an exponential moving average of parameters, the ones that are shipped.

May import torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """Keeps a slow copy of a network's parameters.

    The effective decay grows as (1 + n) / (10 + n) up to ``decay``, so that the random start is soon forgotten.

    Args:
        network: Its present parameters are the start.
        decay: In [0, 1); 0.999 averages over about a thousand updates.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.updates = 0
        self.average = {name: value.detach().clone().float() for name, value in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Moves the average towards the network's present parameters, once per optimizer step."""
        self.updates += 1
        weight = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages, values = [], []
        for name, value in network.named_parameters():
            averages.append(self.average[name])
            values.append(value.detach().float())
        torch._foreach_lerp_(averages, values, weight)

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Overwrites a network's parameters with the average."""
        for name, value in network.named_parameters():
            value.copy_(self.average[name])

    def state_dict(self) -> dict[str, object]:
        """Returns the whole state, for a checkpoint."""
        return {"updates": self.updates, "average": {name: value.clone() for name, value in self.average.items()}}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restores what :meth:`state_dict` returned.

        Raises:
            ValueError: It is of another network.
        """
        average = state["average"]
        if not isinstance(average, dict) or average.keys() != self.average.keys():
            raise ValueError("the averaged weights are of another network")
        self.updates = int(state["updates"])  # type: ignore[call-overload]
        self.average = {name: Tensor.clone(value) for name, value in average.items()}


__all__ = ["ExponentialMovingAverage"]
