"""Where a network runs, and what that is called. May import torch and :mod:`pilotwave.errors`."""

from __future__ import annotations

import platform
from pathlib import Path

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


def describe_device(device: torch.device, threads: int, processes: int = 1) -> str:
    """Returns in words what a run computes on, e.g. ``"2 processes of 1 thread, AMD EPYC 7B13"``."""
    if device.type == "cuda":
        return f"one GPU, {torch.cuda.get_device_name(device)}"
    many = "one process" if processes == 1 else f"{processes} processes"
    return f"{many} of {threads} thread{'s' if threads > 1 else ''}, {processor_name()}"


def processor_name(listing: Path = Path("/proc/cpuinfo")) -> str:
    """Returns the processor's name as the kernel lists it, or else its architecture."""
    try:
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join(names[0].split()) if names and names[0] else platform.machine()


__all__ = ["choose_device", "describe_device", "processor_name"]
