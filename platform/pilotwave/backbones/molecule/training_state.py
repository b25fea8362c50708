"""What a training run finds and leaves on the disk: the weights it begins from, its checkpoint, its weights.

May import torch, the modules beside it, :mod:`pilotwave.training` and :mod:`pilotwave.storage`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pilotwave.backbones.molecule.backbone import build_network, builtin_weights
from pilotwave.backbones.molecule.training_config import MoleculeTrainingConfig
from pilotwave.backbones.molecule.training_data import identity_of
from pilotwave.errors import CheckpointError
from pilotwave.storage import load_checkpoint
from pilotwave.training.weights import read_weights

CHECKPOINT_NAME = "checkpoint.pt"
_ADDED_LATER = {"real_share": 0.0}
"""Settings that older checkpoints do not name, and what they were then."""


def read_checkpoint(config: MoleculeTrainingConfig) -> dict[str, Any] | None:
    """Loads the checkpoint of this run, or None if there is none.

    Raises:
        CheckpointError: It is damaged, or of another run; the message names what differs.
        InputError: The user's own data cannot be read.
    """
    ours = identity_of(config)
    path = config.output / CHECKPOINT_NAME
    if not path.exists():
        return None
    state = load_checkpoint(path)
    theirs = _ADDED_LATER | dict(state.get("identity", {}))
    different = [f"{key} = {theirs.get(key)} (now {ours[key]})" for key in ours if theirs.get(key) != ours[key]]
    if different:
        raise CheckpointError(
            f"the checkpoint in {config.output} is of another run: {', '.join(different)}; "
            "choose another output folder or the settings it was started with"
        )
    return state


def starting_weights(config: MoleculeTrainingConfig) -> dict[str, torch.Tensor]:
    """Reads the weights a run begins from.

    Raises:
        CheckpointError: They are missing, of another model, or of a network of another shape.
    """
    path = builtin_weights(config.model) if config.start == "builtin" else Path(str(config.start)).expanduser()
    network, _ = build_network(read_weights(path, model=config.model))
    if network.config != config.network:
        theirs, ours = network.config.model_dump(), config.network.model_dump()
        different = ", ".join(
            f"{key} = {theirs[key]} (now {ours[key]})" for key in ours if theirs[key] != ours[key]
        )
        raise CheckpointError(f"the weights at {path} are of another network: {different}")
    return network.state_dict()


def weights_path(config: MoleculeTrainingConfig) -> Path:
    """Returns where a run's weights go."""
    return config.output / f"{config.model}.safetensors"


__all__ = ["CHECKPOINT_NAME", "read_checkpoint", "starting_weights", "weights_path"]
