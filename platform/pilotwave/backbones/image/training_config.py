"""What a training run of an image model is made of, and what makes two runs the same run.

May import pydantic and the modules beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from pilotwave.backbones.image.dataset import IMAGE_SIZE
from pilotwave.backbones.image.emoji import load_emoji
from pilotwave.backbones.image.network import ImageNetworkConfig
from pilotwave.backbones.image.sources import Source, load_source


class ImageTrainingConfig(BaseModel):
    """What a training run is made of. A run is the same run if only the fields of :data:`FREE` differ."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: ClassVar[str] = "image"

    output: Path = Field(description="Folder of the checkpoint and of the finished weights.")
    data: Path | None = Field(
        default=None,
        description="Folder of pictures (PNG, JPEG, WebP; a sub-folder per class) or of the four idx files; "
        "the Debian package dataset-fashion-mnist if none.",
    )
    start: str | None = Field(
        default=None,
        description="Weights to begin from, with a fresh optimizer: builtin, or the path of a .safetensors file of "
        "pictures of the same size, whose classes include the data's; from nothing if none.",
    )
    real: Path | None = Field(
        default=None,
        description="Folder of real pictures for fine-tuning; the package's own data set if none and if it fits.",
    )
    real_share: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="Fine-tuning (start with data of your own): the least share of real pictures in every batch, "
        "so that a model does not feed on its own samples alone.",
    )
    collapse_below: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Fine-tuning stops when the samples' diversity falls below this share of the data's.",
    )
    images: int = Field(
        default=600_000,
        ge=1,
        description="Budget: training pictures seen, repetitions counted; the schedule is laid out over it. "
        "It may be changed when a run is continued.",
    )
    batch_size: int = Field(default=128, ge=1, le=8192, description="Pictures per optimizer step.")
    learning_rate: float = Field(default=1e-3, gt=0, le=1, description="Of AdamW at its height.")
    matrix_learning_rate: float = Field(
        default=5e-3, gt=0, le=1, description="Of Muon at its height, which trains the matrices of the blocks."
    )
    warm_up: float = Field(default=0.03, ge=0, le=0.5, description="Share of the budget in which the rates rise.")
    decay: float = Field(
        default=0.5, ge=0, le=0.5, description="Share of the budget, at its end, in which the rates fall to zero."
    )
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="Of the averaged weights, which are kept.")
    class_dropout: float = Field(
        default=0.1, ge=0, le=1, description="Share of pictures whose class is hidden, for guidance."
    )
    precision: Literal["bfloat16", "float32"] = Field(
        default="bfloat16", description="Of the network's products; parameters are float32."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of everything random.")
    network: ImageNetworkConfig | None = Field(
        default=None, description="The denoiser's shape; that of the start if none, or else 64 and 128 wide."
    )
    device: str = Field(default="auto", description="auto (a GPU if there is one), cpu or cuda.")
    threads: int = Field(default=1, ge=1, le=256, description="CPU threads.")
    checkpoint_seconds: float = Field(
        default=30.0, ge=0, le=60, description="A killed run loses at most this and the step in flight."
    )
    report_every: int = Field(default=6_400, ge=1, description="Pictures between two reports.")
    evaluate_every: int = Field(
        default=64_000, ge=1, description="Pictures between two measurements on held-out pictures."
    )
    samples: int = Field(
        default=100, ge=2, le=10_000, description="Samples drawn at each measurement, in classes' turns."
    )

    mirror: bool = Field(default=False, description="Mirror every other training picture, left to right.")

    @property
    def fine_tunes(self) -> bool:
        """Whether given weights go on learning from the user's own pictures."""
        return self.start is not None and self.data is not None

    @property
    def package_shape(self) -> tuple[int, int, int]:
        """Of the pictures of :meth:`package_source`."""
        return (1, IMAGE_SIZE, IMAGE_SIZE)

    def package_source(self) -> Source:
        """Loads the package's own data set of this kind of model; see :func:`load_source`."""
        return load_source(None)

    def own_source(self) -> Source:
        """Loads what ``data`` names."""
        return self.package_source() if self.data is None else load_source(self.data)

    @property
    def steps(self) -> int:
        """How many optimizer steps the budget allows."""
        return -(-self.images // self.batch_size)


class EmojiTrainingConfig(ImageTrainingConfig):
    """The same for emoji in colour; the weights serve ``kind: image``.

    None are shipped: the one run so far at 64 pixels was stopped after 24,768 pictures (8 epochs, loss 0.303,
    held-out loss 0.340 at 20,032), when its samples were coloured shapes in noise. The budget is a guess.
    """

    model: ClassVar[str] = "emoji"

    data: Path | None = Field(
        default=None, description="Folder of pictures (PNG, JPEG, WebP; a sub-folder per class); the emoji if none."
    )
    side: Literal[32, 64] = Field(default=64, description="Pixels per side of the package's emoji.")
    cache: Path | None = Field(default=None, description="Folder of the fetched emoji; the user's cache if none.")
    images: int = Field(
        default=300_000, ge=1, description="Budget: training pictures seen, repetitions counted; it may be changed."
    )
    batch_size: int = Field(default=64, ge=1, le=8192, description="Pictures per optimizer step.")
    evaluate_every: int = Field(
        default=20_000, ge=1, description="Pictures between two measurements on held-out pictures."
    )
    mirror: bool = Field(default=True, description="Mirror every other training picture, left to right.")

    @property
    def package_shape(self) -> tuple[int, int, int]:
        """Of the emoji."""
        return (3, self.side, self.side)

    def package_source(self) -> Source:
        """Loads the emoji, fetching them the first time."""
        return load_emoji(self.cache, self.side)


FREE = frozenset(
    {
        "output",
        "data",
        "real",
        "cache",
        "images",
        "device",
        "threads",
        "checkpoint_seconds",
        "report_every",
        "evaluate_every",
        "samples",
    }
)
"""Fields that may change when a run is continued: where and how long, not what. The data is known by digest."""


def rate_factor(config: ImageTrainingConfig, step: int) -> float:
    """Returns the share of the full rate at a step, 0 <= step < steps: linear up, constant, linear down to zero."""
    done = step / config.steps
    up = (done + 1 / config.steps) / config.warm_up if config.warm_up else 1.0
    down = (1.0 - done) / config.decay if config.decay else 1.0
    return min(1.0, up, down)


__all__ = ["FREE", "EmojiTrainingConfig", "ImageTrainingConfig", "rate_factor"]
