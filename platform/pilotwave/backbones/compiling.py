"""torch.compile for a network's forward pass, by choice.

It takes a minute or two to begin (less where an earlier process left its cache) and then makes passes of the
built-in networks about twice as fast in float32 on a CPU; in bfloat16, whose products are no longer most of the
work, it brought nothing. What is compiled rounds otherwise, so it is part of a model's fingerprint. Shapes have to
stay the same from pass to pass, so batches are cut and padded to one size, and a sample is the same in whatever
batch it is drawn. May import torch and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pilotwave.errors import InputError

CHUNKS = {"cpu": 16, "cuda": 64}
"""How many samples go through a compiled network together, padded to exactly this many."""


class Compiled:
    """A function of tensors that is compiled at its first call, in the process that calls it.

    Args:
        function: What to compile; its arguments have the same shapes at every call.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._compiled: Callable[..., Tensor] | None = None

    def __call__(self, *arguments: Tensor) -> Tensor:
        if self._compiled is None:
            self._compiled = torch.compile(self._function, dynamic=False)
        return self._compiled(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        return {"_function": self._function, "_compiled": None}  # what is compiled does not travel


def check_compiler(device: str) -> None:
    """Makes sure that there is what torch.compile needs on a device.

    Raises:
        InputError: There is none.
    """
    if device.startswith("cuda"):
        found, needed = importlib.util.find_spec("triton") is not None, "triton, which PyTorch for CUDA brings"
    else:
        names = (os.environ.get("CXX", ""), "g++", "clang++", "cl")
        found, needed = any(name and shutil.which(name) for name in names), "a C++ compiler (g++)"
    if not found:
        raise InputError(f"backbone.compiled: torch.compile needs {needed} here; install it, or leave compiled out")


def padded(tensor: Tensor, size: int) -> Tensor:
    """Repeats the last of at least one row until there are so many."""
    missing = size - len(tensor)
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing else tensor


__all__ = ["CHUNKS", "Compiled", "check_compiler", "padded"]
