"""The shipped form of a trained model: one safetensors file whose header says what it is.

The header names the model, the version of this format, the network's configuration and how far training
came, so that a wrong file is refused in one line before anything is built from it. May import torch,
safetensors, :mod:`pilotwave.storage` and :mod:`pilotwave.errors`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pilotwave.errors import CheckpointError
from pilotwave.storage import write_atomically

FORMAT_VERSION = 1
"""Raised when older readers could not use a new file."""

_KIND = "pilotwave."


@dataclass(frozen=True)
class Weights:
    """A weight file that was read and checked.

    Attributes:
        tensors: By parameter name, float32 on the CPU.
        config: What the network is built from, as it was written.
        progress: How far training came, e.g. ``{"seen": 480000, "held_out_loss": 0.17}``.
        fingerprint: 16 hexadecimal digits; equal exactly if tensors and config are.
    """

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    progress: Mapping[str, Any]
    fingerprint: str


def write_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    model: str,
    config: Mapping[str, Any],
    progress: Mapping[str, Any],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Writes a weight file, atomically.

    Args:
        path: Ends in ``.safetensors`` by custom.
        tensors: The parameters by name; floating ones are stored as ``dtype``.
        model: The kind of model, e.g. ``"image"``; :func:`read_weights` insists on it.
        config: JSON-compatible; what the network is built from.
        progress: JSON-compatible; how far training came.
        dtype: Of the stored floating tensors.

    Raises:
        CheckpointError: A parameter is not finite in ``dtype``: the training diverged.
        StorageError: The file could not be written.
    """
    stored = {name: _narrow(name, tensor, dtype) for name, tensor in tensors.items()}
    header = {
        "kind": _KIND + model,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(dict(config), sort_keys=True),
        "training": json.dumps(dict(progress), sort_keys=True),
    }
    write_atomically(path, save(stored, metadata=header))


def read_weights(path: Path, *, model: str) -> Weights:
    """Reads a weight file and makes sure that it is of the model asked for.

    Raises:
        CheckpointError: The file is missing, truncated, not safetensors, of another model or version.
    """
    if not path.is_file():
        raise CheckpointError(f"expected the weights of model {model!r} at {path}, but there is no such file")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            config, progress = _check_header(header, path, model)
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"expected a safetensors file at {path}, but it is truncated or of another kind ({error}); "
            "copy or train it again"
        ) from error
    fingerprint = _fingerprint(tensors, header["config"])
    widened = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return Weights(widened, config, progress, fingerprint)


def _narrow(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.to(dtype)
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"parameter {name!r} is not finite as {dtype}: the training diverged, nothing written"
            )
    return tensor.contiguous()


def _check_header(header: Mapping[str, str], path: Path, model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns config and progress, or says in one line why this is not the file asked for."""
    found = header.get("kind", "")
    if not found.startswith(_KIND):
        raise CheckpointError(
            f"expected weights of model {model!r} at {path}, but its header names no pilotwave model"
        )
    if found != _KIND + model:
        raise CheckpointError(
            f"expected weights of model {model!r} at {path}, but they are of model {found.removeprefix(_KIND)!r}"
        )
    version = header.get("format_version")
    if version != str(FORMAT_VERSION):
        raise CheckpointError(
            f"expected format {FORMAT_VERSION} of the weights at {path}, got {version}; "
            "train them again or install the pilotwave version that wrote them"
        )
    try:
        config, progress = json.loads(header["config"]), json.loads(header["training"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"the header of {path} is damaged ({error}); copy or train it again") from error
    if not (isinstance(config, dict) and isinstance(progress, dict)):
        raise CheckpointError(f"the header of {path} is damaged (config is not an object); copy or train it again")
    return config, progress


def _fingerprint(tensors: Mapping[str, Tensor], config: str) -> str:
    digest = hashlib.sha256(config.encode())
    for name, tensor in tensors.items():
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


__all__ = ["FORMAT_VERSION", "Weights", "read_weights", "write_weights"]
