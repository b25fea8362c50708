"""The analytic backbone: a mixture of low-rank Gaussians sampled by DDIM with eta = 1; needs no weights.

Its denoiser is exact (see :mod:`pilotwave.backbones.mixture`), so tests and benchmarks of algorithms measure the
algorithm and not a network. It can be fitted to any array.

May import: numpy, torch, pydantic, the mixture, the samplers, noise, and pilotwave's types, samples and errors.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from pilotwave.backbones.mixture import LowRankMixture
from pilotwave.backbones.noise import draw_categories, draw_noise_sequence
from pilotwave.backbones.samplers.ddim import cosine_alphas_cumprod, ddim_schedule
from pilotwave.backbones.samplers.schedule import SamplerStep, run_sampler
from pilotwave.config.components import BackboneConfig, path_in_campaign
from pilotwave.errors import InputError
from pilotwave.protocols import Invariants, NoiseHook, StepHook, flattened
from pilotwave.samples import ArraySample, ImageSample, Invalid, Sample
from pilotwave.types import Draw

Decode = Literal["array", "image"]
SAMPLER_VERSION = "analytic/1"
"""Part of the fingerprint; to be raised when fitting or sampling changes its results."""


class AnalyticBackbone:
    """A mixture of low-rank Gaussians behind the backbone contract; always on the CPU, in float64 inside.

    Latents are the data shifted and scaled to mean zero and unit variance overall. Components of
    :class:`pilotwave.protocols.Backbone` are documented there.
    """

    name = "analytic"
    device = "cpu"
    conditions_are_free = False

    def __init__(
        self,
        mixture: LowRankMixture,
        latent_shape: tuple[int, ...],
        *,
        fingerprint: str,
        shift: float = 0.0,
        scale: float = 1.0,
        steps: int = 8,
        decode: Decode = "array",
        conditional: bool = False,
    ) -> None:
        self.mixture = mixture
        self.latent_shape = latent_shape
        self.fingerprint = fingerprint
        self.steps = steps
        self.media: str = decode
        self.condition_size = 1 if conditional else 0
        self.invariants: Invariants = flattened
        self._shift, self._scale = shift, scale
        self._schedule = ddim_schedule(cosine_alphas_cumprod(), steps)

    @classmethod
    def fit(
        cls,
        array: npt.NDArray[Any],
        components: int = 10,
        rank: int = 8,
        steps: int = 8,
        seed: int = 0,
        *,
        decode: Decode = "array",
        conditional: bool = False,
    ) -> Self:
        """Fits the mixture to data.

        Args:
            array: (count, *latent_shape), finite numbers. For images: (count, height, width) or with 1, 3 or 4
                channels behind, in 0..255 if integer and in 0..1 otherwise.
            components: How many Gaussians.
            rank: Principal axes of each.
            steps: K.
            seed: Of the fit.
            decode: What a latent becomes: an array in the data's own units, or an image.
            conditional: Whether a sample's condition is the component it comes from.

        Raises:
            InputError: The array does not fit; the message says why.
        """
        _check_data(array, components, rank, decode)
        data = array.astype(np.float64)
        if decode == "image" and np.issubdtype(array.dtype, np.integer):
            data /= 255.0
        shift, scale = float(data.mean()), float(data.std()) or 1.0
        points = ((data - shift) / scale).reshape(len(data), -1)
        settings = f"{SAMPLER_VERSION} {components} {rank} {steps} {seed} {decode} {conditional} {data.shape}"
        digest = hashlib.sha256(settings.encode() + np.ascontiguousarray(data).tobytes()).hexdigest()
        return cls(
            LowRankMixture.fit(points, components, rank, seed),
            array.shape[1:],
            fingerprint=f"analytic-{digest[:16]}",
            shift=shift,
            scale=scale,
            steps=steps,
            decode=decode,
            conditional=conditional,
        )

    def draw_noise(self, draws: Sequence[Draw]) -> Tensor:
        return draw_noise_sequence(draws, self.steps, self.latent_shape)

    def draw_conditions(self, draws: Sequence[Draw]) -> Tensor:
        if not self.condition_size:
            return torch.zeros(len(draws), 0, dtype=torch.int64)
        return draw_categories(draws, self.mixture.weights.tolist())[:, None]

    def sample(
        self,
        noise_sequence: Tensor,
        conditions: Tensor,
        hook: StepHook | None = None,
        noise_hook: NoiseHook | None = None,
    ) -> Tensor:
        component = conditions[:, 0] if self.condition_size else None

        def denoise(noisy: Tensor, step: SamplerStep) -> Tensor:
            mean = self.mixture.posterior_mean(noisy.flatten(1), step.signal_level, step.noise_level, component)
            return mean.float().reshape(noisy.shape)

        return run_sampler(denoise, noise_sequence, self._schedule, hook, noise_hook)

    def decode(self, latents: Tensor, conditions: Tensor) -> list[Sample | Invalid]:
        return [self._decode_one(latent) for latent in latents.numpy()]

    def align(self, moving: Tensor, fixed: Tensor, conditions: Tensor | None = None) -> Tensor:
        return moving

    def _decode_one(self, latent: npt.NDArray[np.float32]) -> Sample | Invalid:
        if not np.isfinite(latent).all():
            return Invalid("latent is not finite")
        values = latent.astype(np.float64) * self._scale + self._shift
        if self.media == "array":
            return ArraySample(values.astype(np.float32))
        pixels = np.rint(values.clip(0.0, 1.0) * 255.0).astype(np.uint8)
        return ImageSample(pixels if pixels.ndim == 3 else pixels[:, :, None])


class AnalyticBackboneConfig(BackboneConfig):
    """Choice ``analytic``: a model with an exact denoiser, fitted when the campaign starts."""

    summary: ClassVar[str] = "Mixture of low-rank Gaussians with an exact denoiser; for tests and benchmarks."

    kind: Literal["analytic"]
    data: Path | None = Field(
        None, description="A .npy or .npz file of shape (count, *shape) to fit; default: synthetic clusters."
    )
    dim: int = Field(16, ge=2, le=100_000, description="Dimension of the synthetic clusters, if there is no data.")
    components: int = Field(8, ge=1, le=1000, description="How many Gaussians are fitted.")
    rank: int = Field(4, ge=0, le=1000, description="Principal axes of each Gaussian.")
    steps: int = Field(8, ge=1, le=1000, description="Sampler steps K.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the synthetic clusters and of the fit.")
    decode: Decode = Field("array", description="What a latent becomes: an array, or an image if its shape fits.")
    conditional: bool = Field(False, description="Whether each sample is conditioned on its component.")

    @field_validator("data")
    @classmethod
    def _absolute(cls, data: Path | None, info: ValidationInfo) -> Path | None:
        return None if data is None else path_in_campaign(data, info)

    @property
    def media(self) -> str:  # type: ignore[override]  # here it depends on what the user chose
        """The kind of sample, see :class:`pilotwave.samples.Sample`."""
        return self.decode

    def build(self, device: str = "auto") -> AnalyticBackbone:
        """Fits the model; it runs on the CPU whatever the device.

        Raises:
            InputError: The data cannot be read or do not fit; the message says why.
        """
        if self.data is not None:
            array = load_array(self.data)
        else:
            array = synthetic_clusters(self.dim, self.components, self.rank, self.seed)
        return AnalyticBackbone.fit(
            array,
            self.components,
            self.rank,
            self.steps,
            self.seed,
            decode=self.decode,
            conditional=self.conditional,
        )


def synthetic_clusters(dim: int, clusters: int, rank: int, seed: int, count: int = 1000) -> npt.NDArray[np.float32]:
    """Returns points on flat low-rank clusters with a little thickness, float32 of shape (count, dim)."""
    random = np.random.default_rng(seed)
    count = max(count, clusters * (rank + 2))
    centres = random.standard_normal((clusters, dim))
    spans = random.standard_normal((clusters, rank, dim)) / max(rank, 1) ** 0.5
    labels = np.arange(count) % clusters
    inside = np.einsum("nr,nrd->nd", random.standard_normal((count, rank)), spans[labels])
    points: npt.NDArray[np.float64] = centres[labels] + 0.6 * inside + 0.1 * random.standard_normal((count, dim))
    return points.astype(np.float32)


def load_array(path: Path) -> npt.NDArray[Any]:
    """Reads the array of a .npy file, or the only (else the first) one of a .npz file.

    Raises:
        InputError: There is no such file, or it holds no plain array.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        return np.asarray(loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]])
    except FileNotFoundError:
        raise InputError(f"backbone.data: expected a .npy or .npz file, there is no {path}") from None
    except (OSError, ValueError, IndexError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"backbone.data: expected a .npy or .npz file of numbers, {path}: {reason}") from None


def _check_data(array: npt.NDArray[Any], components: int, rank: int, decode: Decode) -> None:
    if array.dtype.kind not in "fiub" or array.ndim < 2 or array[:1].size < 2 or not np.isfinite(array).all():
        raise InputError(
            "backbone.data: expected finite numbers of shape (count, *shape) with at least two numbers each, "
            f"got {array.dtype} of shape {array.shape}"
        )
    if len(array) < components:
        raise InputError(
            f"backbone.components: expected at most as many as there are data, got {components} for {len(array)}"
        )
    channels = array.shape[3] if array.ndim == 4 else 1
    if decode == "image" and (array.ndim not in (3, 4) or channels not in (1, 3, 4)):
        raise InputError(
            "backbone.decode: image needs data of shape (count, height, width) or (count, height, width, channels) "
            f"with 1, 3 or 4 channels, got {array.shape}; use decode: array"
        )


__all__ = ["AnalyticBackbone", "AnalyticBackboneConfig", "load_array", "synthetic_clusters"]
