"""Where a network runs. May import torch and :mod:`pilotwave.errors`."""

from __future__ import annotations

import torch

from pilotwave.errors import InputError


def choose_device(name: str) -> torch.device:
    """Turns ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` into a device that is there.

    Raises:
        InputError: The name is none of these, or this machine has no such GPU.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"expected device auto, cpu, cuda or cuda:1, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise InputError(f"device {name!r} was asked for, but torch sees {gpus} GPU(s) here; choose auto or cpu")
    return device


__all__ = ["choose_device"]
