"""Image networks as weight files: what the header says, and the network rebuilt from it.

May import torch, pydantic, the network beside it and :mod:`pilotwave.training`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pilotwave.backbones.image.network import ImageNetwork, ImageNetworkConfig, PictureFormat
from pilotwave.errors import CheckpointError
from pilotwave.training.weights import Weights, read_weights

MODEL = "image"
BUILTIN_WEIGHTS = Path(__file__).parent / "weights" / "image.safetensors"


def weights_path(checkpoint: str) -> Path:
    """Returns the path of ``"builtin"`` or of a file."""
    return BUILTIN_WEIGHTS if checkpoint == "builtin" else Path(checkpoint).expanduser()


def header_of(network: ImageNetwork) -> dict[str, Any]:
    """Returns what the header has to say, so that :func:`build_network` can rebuild the network."""
    return {"network": network.config.model_dump(mode="json"), "picture": network.picture.model_dump(mode="json")}


def build_network(weights: Weights) -> ImageNetwork:
    """Rebuilds the network that a weight file describes.

    Raises:
        CheckpointError: The tensors do not fit it.
    """
    try:
        config = ImageNetworkConfig.model_validate(weights.config["network"])
        network = ImageNetwork(config, PictureFormat.model_validate(weights.config["picture"]))
        network.load_state_dict(dict(weights.tensors))
    except (KeyError, ValidationError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"the weights do not fit the image network ({reason}); train them again") from error
    return network


def read_start(checkpoint: str, data: PictureFormat, config: ImageNetworkConfig | None) -> tuple[ImageNetwork, str]:
    """Reads the weights that a training begins from.

    Args:
        checkpoint: ``"builtin"`` or the path of a file.
        data: What the training pictures are; their classes may be some of the model's.
        config: The shape that was asked for; any if None.

    Returns:
        The network and the fingerprint of its file.

    Raises:
        CheckpointError: They are of another model, of other pictures or of another shape.
    """
    path = weights_path(checkpoint)
    weights = read_weights(path, model=MODEL)
    network = build_network(weights)
    theirs = network.picture
    if theirs.latent_shape != data.latent_shape or not set(data.class_names) <= set(theirs.class_names):
        raise CheckpointError(
            f"the start {path} draws {_in_words(theirs)}, but the data is {_in_words(data)}; "
            "name the sub-folders like the model's classes, or start from none"
        )
    if config is not None and config != network.config:
        raise CheckpointError(
            f"the start {path} has widths {network.config.widths} and blocks {network.config.blocks}, "
            f"but network asks for {config.widths} and {config.blocks}; leave network out"
        )
    return network, weights.fingerprint


def _in_words(picture: PictureFormat) -> str:
    colours = "grey" if picture.channels == 1 else "RGB"
    names = ", ".join(picture.class_names[:3]) + (", ..." if len(picture.class_names) > 3 else "")
    return f"{colours} {picture.side}x{picture.side} of {len(picture.class_names)} classes ({names})"


__all__ = ["BUILTIN_WEIGHTS", "MODEL", "build_network", "header_of", "read_start", "weights_path"]
