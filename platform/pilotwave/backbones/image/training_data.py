"""What every step of a training sees, from the seed and the number of the step alone.

May import torch, numpy and the modules beside it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pilotwave.backbones.image.dataset import LabelledImages, to_latents
from pilotwave.backbones.image.network import PictureFormat
from pilotwave.backbones.image.sources import Source, load_source
from pilotwave.backbones.image.training_config import ImageTrainingConfig
from pilotwave.errors import InputError

_BATCH, _ORDER, _REAL_ORDER = 1, 2, 3  # what a random stream is for
_LOOKED_AT = 500


class TrainingData:
    """Batches of a source, with a share of real pictures when a model is fine-tuned.

    Args:
        config: Of the training.
        source: Its pictures.
        picture: What the network draws; the classes of the source are some of its classes.

    Raises:
        InputError: Real pictures were named that do not fit.
    """

    def __init__(self, config: ImageTrainingConfig, source: Source, picture: PictureFormat) -> None:
        self.config, self.picture = config, picture
        self.own = in_classes_of(source.train, picture)
        self.held_out = in_classes_of(source.held_out, picture)
        self.real_source = _real_source(config, picture)
        self.real = None if self.real_source is None else in_classes_of(self.real_source.train, picture)
        self.real_per_batch = 0 if self.real is None else -int(-config.real_share * config.batch_size // 1)
        self._orders: dict[int, tuple[int, npt.NDArray[np.int64]]] = {}

    @property
    def real_share(self) -> float:
        """The share of mixed-in real pictures in every batch."""
        return self.real_per_batch / self.config.batch_size

    def digest(self) -> str:
        """Returns hexadecimal digits that change with any picture, of the user's or mixed in."""
        return self.own.digest() + ("" if self.real is None else self.real.digest())

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns clean pictures, noise, times and labels of a step."""
        size = self.config.batch_size
        images, known = self.pictures(step)
        random = np.random.default_rng((self.config.seed, _BATCH, step))
        clean = to_latents(images)
        if self.config.mirror:
            mirrored = torch.from_numpy(random.random(size) < 0.5)
            clean = torch.where(mirrored[:, None, None, None], clean.flip(-1), clean)
        noise = torch.from_numpy(random.standard_normal(clean.shape, dtype=np.float32))
        # one time in each of `size` equal strata: the same mean with far less spread between batches
        strata = torch.from_numpy(random.permutation(size))
        time = (strata + torch.from_numpy(random.random(size, dtype=np.float32))) / size
        hidden = torch.from_numpy(random.random(size) < self.config.class_dropout)
        labels = torch.from_numpy(known).masked_fill(hidden, len(self.picture.class_names))
        return clean, noise, time, labels

    def pictures(self, step: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Returns the pictures of a step and their labels; the last ones are the real ones mixed in."""
        rows = self._rows(step, self.config.batch_size - self.real_per_batch, len(self.own), _ORDER)
        images, labels = self.own.images[rows], self.own.labels[rows]
        if self.real is None or not self.real_per_batch:
            return images, labels
        rows = self._rows(step, self.real_per_batch, len(self.real), _REAL_ORDER)
        return (
            np.concatenate([images, self.real.images[rows]]),
            np.concatenate([labels, self.real.labels[rows]]),
        )

    def some(self) -> LabelledImages:
        """Returns a few hundred pictures as training sees them."""
        steps = range(-(-_LOOKED_AT // self.config.batch_size))
        parts = [self.pictures(step) for step in steps]
        images, labels = (np.concatenate(column)[:_LOOKED_AT] for column in zip(*parts, strict=True))
        return LabelledImages(images, labels, self.picture.class_names)

    def _rows(self, step: int, size: int, count: int, purpose: int) -> npt.NDArray[np.int64]:
        """Which pictures of a set a step sees: epochs without gaps, each in its own order."""
        positions = np.arange(step * size, (step + 1) * size)
        rows = np.empty(size, dtype=np.int64)
        for epoch in np.unique(positions // count):
            inside = positions // count == epoch
            rows[inside] = self._order(purpose, int(epoch), count)[positions[inside] % count]
        return rows

    def _order(self, purpose: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
        known = self._orders.get(purpose)
        if known is None or known[0] != epoch:
            known = (epoch, np.random.default_rng((self.config.seed, purpose, epoch)).permutation(count))
            self._orders[purpose] = known
        return known[1]


def in_classes_of(images: LabelledImages, picture: PictureFormat) -> LabelledImages:
    """Returns the pictures with the labels that their classes have in another format."""
    places = np.array([picture.class_names.index(name) for name in images.class_names], dtype=np.int64)
    return replace(images, labels=places[images.labels], class_names=picture.class_names)


def _real_source(config: ImageTrainingConfig, picture: PictureFormat) -> Source | None:
    """Returns real pictures to mix in, or None: only fine-tuning needs them, and only those that fit serve."""
    if not config.fine_tunes or config.real_share == 0:
        return None
    if config.real is None:
        source = config.package_source() if picture.latent_shape == config.package_shape else None
    else:
        source = load_source(config.real)
    if source is not None and fits(source.train.picture, picture):
        return source
    if config.real is not None:
        raise InputError(
            f"expected real pictures like the model's, {picture.side}x{picture.side} and of its classes, in "
            f"{config.real}; leave real out, or scale them and name the sub-folders like the classes"
        )
    return None


def fits(data: PictureFormat, model: PictureFormat) -> bool:
    """Says whether pictures are of a model's size and channels, and of its classes or some of them."""
    return data.latent_shape == model.latent_shape and set(data.class_names) <= set(model.class_names)


__all__ = ["TrainingData", "fits", "in_classes_of"]
