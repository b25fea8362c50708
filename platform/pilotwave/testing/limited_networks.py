"""Real networks that are slow or short of memory on purpose, for tests of whatever runs models.

May import torch.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import torch
from torch import nn


def with_little_memory(network: nn.Module, most: int) -> nn.Module:
    """Makes a network run out of memory when it is given more samples than so many at once; returns it."""
    network.register_forward_pre_hook(functools.partial(_refuse, most=most))
    return network


def slowed_down(network: nn.Module, seconds: float) -> nn.Module:
    """Makes a network pause at every pass; returns it."""
    network.register_forward_pre_hook(functools.partial(_pause, seconds=seconds))
    return network


def _refuse(network: nn.Module, inputs: tuple[Any, ...], most: int) -> None:
    if len(inputs[0]) > most:
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(inputs[0])} samples.\nDetails.")


def _pause(network: nn.Module, inputs: tuple[Any, ...], seconds: float) -> None:
    time.sleep(seconds)


__all__ = ["slowed_down", "with_little_memory"]
