"""An image model as a backbone: class-conditional square pictures, grey or RGB, sampled by DDIM with eta = 1.

The weights say what they draw: the built-in ones clothes, grey 28x28; those of ``pilotwave train image`` on a
folder of pictures whatever was in it. A latent is the picture itself, (channels, side, side), pixels from -1
(black) to 1. May import torch, the modules beside it, the samplers, and :mod:`pilotwave.training`.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from pilotwave.backbones.compiling import CHUNKS, Compiled, check_compiler, padded
from pilotwave.backbones.image.dataset import CLASS_NAMES
from pilotwave.backbones.image.network import levels
from pilotwave.backbones.image.stored import BUILTIN_WEIGHTS, MODEL, build_network, weights_path
from pilotwave.backbones.noise import draw_categories, draw_noise_sequence
from pilotwave.backbones.samplers.ddim import ddim_schedule
from pilotwave.backbones.samplers.schedule import SamplerStep, Schedule, predicted_clean_from, run_sampler
from pilotwave.config.components import BackboneConfig, path_in_campaign
from pilotwave.errors import ConfigError
from pilotwave.protocols import Invariants, NoiseHook, StepHook, flattened
from pilotwave.samples import ImageSample, Invalid, Sample
from pilotwave.training.device import choose_device
from pilotwave.training.weights import Weights, read_weights
from pilotwave.types import Draw

if TYPE_CHECKING:
    from pilotwave.protocols import Backbone

_CHUNK = 256
"""Pictures that go through the network together; keeps the memory of a large batch bounded."""


Precision = Literal["float32", "bfloat16"]


class ImageBackboneConfig(BackboneConfig):
    """``backbone: {kind: image}`` of a campaign file."""

    extra: ClassVar[str | None] = "images"
    summary: ClassVar[str] = "clothes, grey 28x28, class-conditional (Fashion-MNIST); or what you trained it on"
    media: ClassVar[str] = "image"
    condition_fields: ClassVar[frozenset[str]] = frozenset({"classes"})
    later_fields: ClassVar[frozenset[str]] = frozenset({"compiled"})

    kind: Literal["image"]
    checkpoint: str = Field(
        default="builtin",
        description="builtin, or the path of a .safetensors file from `pilotwave train image` or `train emoji`.",
    )
    steps: int = Field(default=20, ge=1, le=1000, description="Sampler steps K; each is a pass of the network.")
    classes: tuple[int | str, ...] | None = Field(
        default=None, min_length=1, description="Names or numbers of the classes to draw from; all if left out."
    )
    guidance_scale: float = Field(
        default=1.0,
        ge=0.0,
        le=20.0,
        description="Classifier-free guidance: 1 is none, more is more typical of the class and twice the work.",
    )
    precision: Precision = Field(
        default="float32", description="Of the network's products; bfloat16 is faster where the CPU or GPU has it."
    )
    compiled: bool = Field(
        default=False,
        description="Use torch.compile: a minute or two to begin, then faster passes, in float32 above all.",
    )

    @field_validator("checkpoint")
    @classmethod
    def _absolute(cls, checkpoint: str, info: ValidationInfo) -> str:
        return checkpoint if checkpoint == "builtin" else str(path_in_campaign(checkpoint, info))

    @field_validator("classes")
    @classmethod
    def _known_classes(
        cls, classes: tuple[int | str, ...] | None, info: ValidationInfo
    ) -> tuple[int | str, ...] | None:
        if info.data.get("checkpoint") == "builtin":  # other weights say only when they are read what they draw
            for name in classes or ():
                class_index(name, CLASS_NAMES)
        return classes

    def build(self, device: str = "auto") -> Backbone:
        """Loads the model; see :meth:`BackboneConfig.build`."""
        self.check_dependencies()
        return ImageBackbone(self, read_weights(weights_path(self.checkpoint), model=MODEL), device)


class ImageBackbone:
    """An image model with its sampler and decoder; implements :class:`pilotwave.protocols.Backbone`.

    Args:
        config: Steps, classes and guidance.
        weights: A trained network.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Raises:
        CheckpointError: The weights do not fit the network that their header describes.
        ConfigError: A class that was asked for is none of this model.
        InputError: There is no such device.
    """

    def __init__(self, config: ImageBackboneConfig, weights: Weights, device: str = "auto") -> None:
        self.name = "image"
        self.steps = config.steps
        self.condition_size = 1
        self.conditions_are_free = False
        self.invariants: Invariants = flattened
        self.media = "image"
        self.device = str(choose_device(device))
        choice = f"g{config.guidance_scale:g}-{config.precision}" + ("-compiled" if config.compiled else "")
        self.fingerprint = f"image-{weights.fingerprint}-ddim1-k{config.steps}-{choice}"
        self.guidance_scale = config.guidance_scale
        self.training_progress = dict(weights.progress)
        self.denoiser = build_network(weights).eval().requires_grad_(False).to(self.device)
        self.picture = self.denoiser.picture
        self.latent_shape: tuple[int, ...] = self.picture.latent_shape
        self._class_weights = _class_weights(config.classes, self.picture.class_names)
        self._schedule = image_schedule(config.steps)
        self._precision = config.precision
        self._chunk = _CHUNK
        self._compiled: Compiled | None = None
        if config.compiled:
            check_compiler(self.device)
            self._chunk = CHUNKS[torch.device(self.device).type]
            self._compiled = Compiled(self.denoiser)

    def draw_noise(self, draws: Sequence[Draw]) -> Tensor:
        """Draws noise of shape (steps + 1, batch, channels, side, side), each sample from its own seed."""
        return draw_noise_sequence(draws, self.steps, self.latent_shape)

    def draw_conditions(self, draws: Sequence[Draw]) -> Tensor:
        """Draws classes of shape (batch, 1), each from its own seed."""
        return draw_categories(draws, self._class_weights, purpose="image class")[:, None]

    @torch.no_grad()
    def sample(
        self,
        noise_sequence: Tensor,
        conditions: Tensor,
        hook: StepHook | None = None,
        noise_hook: NoiseHook | None = None,
    ) -> Tensor:
        """Runs DDIM from noise to finished latents of shape (batch, channels, side, side).

        Raises:
            ValueError: A shape is wrong, or a condition is not a class.
        """
        batch = noise_sequence.shape[1]
        if noise_sequence.shape != (self.steps + 1, batch, *self.latent_shape):
            expected = (self.steps + 1, "batch", *self.latent_shape)
            raise ValueError(f"expected a noise sequence of shape {expected}, got {tuple(noise_sequence.shape)}")
        labels = self._labels(conditions, batch).to(self.device)

        def denoise(noisy: Tensor, step: SamplerStep) -> Tensor:
            return self._predict_clean(self._compiled or self.denoiser, noisy, step, labels)

        noise = noise_sequence.to(self.device, torch.float32)
        return run_sampler(denoise, noise, self._schedule, hook, noise_hook).cpu()

    def predict_clean(
        self, noisy: Tensor, step_index: int, conditions: Tensor, denoiser: nn.Module | None = None
    ) -> Tensor:
        """See :meth:`pilotwave.protocols.AdaptableBackbone.predict_clean`; pixels from -1 to 1."""
        labels = self._labels(conditions, len(noisy)).to(self.device)
        network = self.denoiser if denoiser is None else denoiser
        return self._predict_clean(network, noisy, self._schedule.steps[step_index], labels)

    def decode(self, latents: Tensor, conditions: Tensor) -> list[Sample | Invalid]:
        """Rounds latents of shape (batch, channels, side, side) to pictures of 256 levels."""
        labels = self._labels(conditions, len(latents)).tolist()
        finite = torch.isfinite(latents).flatten(1).all(1).tolist()
        greys = ((latents.nan_to_num().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        pixels = greys.permute(0, 2, 3, 1).contiguous().numpy()
        return [
            ImageSample(pixels[i], self.picture.class_names[label])
            if finite[i]
            else Invalid("the latent is not finite")
            for i, label in enumerate(labels)
        ]

    def align(self, moving: Tensor, fixed: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Returns ``moving``: pictures have a fixed frame."""
        return moving

    def _predict_clean(
        self, network: Callable[..., Tensor], noisy: Tensor, step: SamplerStep, labels: Tensor
    ) -> Tensor:
        time = (step.timestep + 1) / self.steps
        parts = zip(torch.split(noisy, self._chunk), torch.split(labels, self._chunk), strict=True)
        velocity = torch.cat([self._velocity(network, part, time, classes) for part, classes in parts])
        return predicted_clean_from(velocity, noisy, step, "v_prediction").clamp(-1.0, 1.0)

    def _velocity(self, network: Callable[..., Tensor], sample: Tensor, time: float, labels: Tensor) -> Tensor:
        """Predicts velocities, pushed away from the unconditional ones (Ho and Salimans, 2022)."""
        if isinstance(network, Compiled) and len(sample) < self._chunk:
            whole = padded(sample, self._chunk), time, padded(labels, self._chunk)
            return self._velocity(network, *whole)[: len(sample)]
        guided = self.guidance_scale != 1.0
        if guided:
            sample = sample.repeat(2, 1, 1, 1)
            labels = torch.cat([labels, torch.full_like(labels, self.denoiser.no_class)])
        times = torch.full((len(sample),), time, device=sample.device)
        reduced = torch.autocast(torch.device(self.device).type, torch.bfloat16)
        with reduced if self._precision == "bfloat16" else contextlib.nullcontext():
            velocity: Tensor = network(sample, times, labels).float()
        if not guided:
            return velocity
        conditional, unconditional = velocity.chunk(2)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def _labels(self, conditions: Tensor, batch: int) -> Tensor:
        if conditions.shape != (batch, 1):
            raise ValueError(f"expected conditions of shape ({batch}, 1), got {tuple(conditions.shape)}")
        last = len(self.picture.class_names) - 1
        if batch and (int(conditions.min()) < 0 or int(conditions.max()) > last):
            raise ValueError(f"expected classes from 0 to {last}, got {conditions.flatten().tolist()}")
        return conditions[:, 0].long()


def class_index(name: int | str, class_names: Sequence[str]) -> int:
    """Returns the number of a class given by name or number.

    Raises:
        ValueError: There is no such class; the message names the nearest one.
    """
    if isinstance(name, int):
        if not 0 <= name < len(class_names):
            raise ValueError(f"expected a class from 0 to {len(class_names) - 1}, got {name}")
        return name
    if name not in class_names:
        nearest = difflib.get_close_matches(name, class_names, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"one of: {', '.join(class_names)}"
        raise ValueError(f"there is no class {name!r}; {hint}")
    return list(class_names).index(name)


def _class_weights(classes: Sequence[int | str] | None, class_names: Sequence[str]) -> list[float]:
    """Returns how often each class is drawn, relative to the others."""
    weights = [0.0 if classes else 1.0] * len(class_names)
    try:
        for name in classes or ():
            weights[class_index(name, class_names)] += 1.0
    except ValueError as error:
        raise ConfigError(f"backbone.classes: {error}") from error
    return weights


def image_schedule(steps: int) -> Schedule:
    """Returns DDIM's table for the cosine schedule the model was trained on, steps equal in angle.

    The model knows every time between 0 and 1, so the table holds exactly the times used, t = 1, ..., 1/steps.
    """
    signal_levels, _ = levels(torch.arange(1, steps + 1, dtype=torch.float64) / steps)
    alphas_cumprod = signal_levels.square()
    alphas_cumprod[-1] = 0.0  # cos(π/2) is 6e-17 in floating point; the first step must see noise alone
    return ddim_schedule(alphas_cumprod, steps)


__all__ = [
    "BUILTIN_WEIGHTS",
    "MODEL",
    "ImageBackbone",
    "ImageBackboneConfig",
    "class_index",
    "image_schedule",
]
