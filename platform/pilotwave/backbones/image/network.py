"""The denoiser: a small class-conditional U-Net over pixel-unshuffled pictures.

A latent is a picture of shape (channels, side, side) with pixels from -1 to 1. Inside, ``fold`` by ``fold`` pixels
become the channels of one cell (28x28x1 to 14x14x4, 64x64x3 to 16x16x48: an orthogonal rearrangement), because a
network of two resolutions then sees the whole picture and trains several times faster than at full size.

The activations lie with their channels last and are normalised over the channels of each cell: on processors
with bfloat16 matrix units convolutions are then nearly free, and group normalisation in that layout costs more
than they do. Convolutions keep their weights as matrices (out, 9 x in), which is what Muon optimises.

The forward process is the cosine schedule (Nichol and Dhariwal, "Improved denoising diffusion probabilistic
models", 2021) in angles: x_t = cos(φ) x_0 + sin(φ) noise with φ = t π/2 and 0 <= t <= 1. The network predicts the
velocity v = cos(φ) noise - sin(φ) x_0 (Salimans and Ho, "Progressive distillation", 2022), which stays well
defined at t = 1, where x_t is noise alone. May import torch and pydantic.
"""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

FOLDS = (8, 4, 2)
SMALLEST_GRID = 12
"""Pictures are folded as far as this many cells per side allow."""


class PictureFormat(BaseModel):
    """What a model's pictures are; stored in the header of the weights.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        side: Pixels per side; a multiple of 4.
        class_names: What the classes are called, by number; never empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int = Field(ge=1, le=3)
    side: int = Field(ge=16, le=128, multiple_of=4)
    class_names: tuple[str, ...] = Field(min_length=1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, side, side)."""
        return (self.channels, self.side, self.side)

    @property
    def fold(self) -> int:
        """Pixels per side of one cell: the most that leaves an even grid of at least 12 cells, or else 2."""
        fitting = [f for f in FOLDS if self.side % (2 * f) == 0 and self.side // f >= SMALLEST_GRID]
        return fitting[0] if fitting else FOLDS[-1]


class ImageNetworkConfig(BaseModel):
    """The shape of the denoiser; stored in the header of the weights.

    Attributes:
        widths: Channels at full grid and at half grid.
        blocks: Residual blocks at full grid, before and after the middle each, and in the middle.
        head_width: Channels per attention head; every second block of the middle is followed by attention.
        embedding: Width of what is known of time and class.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: tuple[int, int] = Field(default=(64, 128))
    blocks: tuple[int, int] = Field(default=(2, 4))
    head_width: int = Field(default=32, ge=1)
    embedding: int = Field(default=128, ge=4, multiple_of=2)

    @model_validator(mode="after")
    def _sizes_fit(self) -> ImageNetworkConfig:
        if min(self.widths) < 1 or min(self.blocks) < 1:
            raise ValueError(f"widths and blocks must be positive, got {self.widths} and {self.blocks}")
        if self.widths[1] % self.head_width:
            raise ValueError(
                f"the second of widths must be a multiple of head_width ({self.head_width}), got {self.widths[1]}"
            )
        return self


class ImageNetwork(nn.Module):
    """Predicts the velocity of a noisy picture.

    Args:
        config: Its shape.
        picture: What it draws.
    """

    frequencies: Tensor

    def __init__(self, config: ImageNetworkConfig, picture: PictureFormat) -> None:
        super().__init__()
        self.config, self.picture = config, picture
        outer, inner = config.widths
        cell = picture.channels * picture.fold**2
        width = config.embedding
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(len(picture.class_names) + 1, width)
        self.enter = _Convolution(cell, outer)
        self.before = nn.ModuleList(_ResidualBlock(outer, width) for _ in range(config.blocks[0]))
        self.down = nn.Linear(4 * outer, inner)
        self.middle = nn.ModuleList(_ResidualBlock(inner, width) for _ in range(config.blocks[1]))
        self.attention = nn.ModuleList(_Attention(inner, config.head_width) for _ in range(config.blocks[1] // 2))
        self.up = nn.Linear(inner, 4 * outer)
        self.join = nn.Linear(2 * outer, outer)
        self.after = nn.ModuleList(_ResidualBlock(outer, width) for _ in range(config.blocks[0]))
        self.leave = _Convolution(outer, cell, zero=True)
        frequencies = torch.exp(torch.linspace(0.0, math.log(1000.0), width // 2))
        self.register_buffer("frequencies", frequencies * (math.pi / 2), persistent=False)

    @property
    def no_class(self) -> int:
        """The label that means "any class"."""
        return len(self.picture.class_names)

    def forward(self, noisy: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        """Predicts the velocity.

        Args:
            noisy: (batch, channels, side, side).
            time: (batch,), 0 (clean) to 1 (noise alone).
            labels: int64 (batch,), a class or :attr:`no_class`.

        Returns:
            (batch, channels, side, side).
        """
        angles = time[:, None] * self.frequencies
        known = self.time(torch.cat([angles.sin(), angles.cos()], 1)) + self.label(labels)
        known = functional.silu(known)
        cells = self.enter(fold(noisy.permute(0, 2, 3, 1), self.picture.fold))
        for block in self.before:
            cells = block(cells, known)
        skipped = cells
        cells = self.down(fold(cells, 2))
        for place, block in enumerate(self.middle):
            cells = block(cells, known)
            if place % 2 == 1:
                cells = self.attention[place // 2](cells)
        cells = self.join(torch.cat([unfold(self.up(cells), 2), skipped], -1))
        for block in self.after:
            cells = block(cells, known)
        velocity = self.leave(functional.silu(functional.layer_norm(cells, cells.shape[-1:])))
        return unfold(velocity, self.picture.fold).permute(0, 3, 1, 2)


class _Convolution(nn.Module):
    """Three by three, of (batch, height, width, in) to (batch, height, width, out)."""

    def __init__(self, width_in: int, width_out: int, *, zero: bool = False) -> None:
        super().__init__()
        self.width_in = width_in
        matrix = torch.zeros(width_out, 9 * width_in)
        self.weight = nn.Parameter(matrix if zero else matrix.normal_(0.0, (9 * width_in) ** -0.5))
        self.bias = nn.Parameter(torch.zeros(width_out))

    def forward(self, cells: Tensor) -> Tensor:
        kernel = self.weight.view(-1, 3, 3, self.width_in).permute(0, 3, 1, 2)
        return functional.conv2d(cells.permute(0, 3, 1, 2), kernel, self.bias, padding=1).permute(0, 2, 3, 1)


class _ResidualBlock(nn.Module):
    """Two convolutions; time and class scale and shift what enters the first."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.modulate = nn.Linear(embedding, 2 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        self.first = _Convolution(width, width)
        self.second = _Convolution(width, width, zero=True)

    def forward(self, cells: Tensor, known: Tensor) -> Tensor:
        scale, shift = self.modulate(known)[:, None, None].chunk(2, -1)
        normal = functional.layer_norm(cells, cells.shape[-1:])
        inside = self.first(functional.silu(torch.addcmul(shift, normal, 1 + scale)))
        added: Tensor = cells + self.second(functional.silu(inside))
        return added


class _Attention(nn.Module):
    """Every cell looks at every other. Written out: at so few cells it trains faster than the fused kernel."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        nn.init.zeros_(self.merge.weight)
        nn.init.zeros_(self.merge.bias)

    def forward(self, cells: Tensor) -> Tensor:
        batch, height, wide, width = cells.shape
        normal = functional.layer_norm(cells, (width,)).reshape(batch, height * wide, width)
        heads = self.project(normal).view(batch, height * wide, 3, width // self.head_width, self.head_width)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        weights = torch.softmax((query * self.head_width**-0.5) @ key.transpose(-1, -2), -1)
        seen = (weights.to(value.dtype) @ value).transpose(1, 2).reshape(batch, height, wide, width)
        added: Tensor = cells + self.merge(seen)
        return added


def fold(cells: Tensor, factor: int) -> Tensor:
    """Turns (batch, h, w, c) into (batch, h/factor, w/factor, factor² c)."""
    batch, height, wide, width = cells.shape
    parts = cells.reshape(batch, height // factor, factor, wide // factor, factor, width)
    return parts.permute(0, 1, 3, 2, 4, 5).reshape(batch, height // factor, wide // factor, -1)


def unfold(cells: Tensor, factor: int) -> Tensor:
    """The inverse of :func:`fold`."""
    batch, height, wide, _ = cells.shape
    parts = cells.reshape(batch, height, wide, factor, factor, -1)
    return parts.permute(0, 1, 3, 2, 4, 5).reshape(batch, height * factor, wide * factor, -1)


def levels(time: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the signal and the noise level at a time, each in the shape of ``time``; their squares sum to 1."""
    angle = time * (math.pi / 2)
    return torch.cos(angle), torch.sin(angle)


def velocity_loss(network: nn.Module, clean: Tensor, noise: Tensor, time: Tensor, labels: Tensor) -> Tensor:
    """Returns the squared error of the predicted velocity, one number per picture, shape (batch,)."""
    signal_level, noise_level = (level.view(-1, 1, 1, 1) for level in levels(time))
    predicted: Tensor = network(signal_level * clean + noise_level * noise, time, labels)
    velocity = signal_level * noise - noise_level * clean
    squared_error: Tensor = (predicted.float() - velocity).square()
    return squared_error.flatten(1).mean(1)


__all__ = ["ImageNetwork", "ImageNetworkConfig", "PictureFormat", "fold", "levels", "unfold", "velocity_loss"]
