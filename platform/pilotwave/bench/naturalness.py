"""How unnatural a small picture looks, with no reference: the distance of its local statistics from real ones'.

A. Mittal, R. Soundararajan, A. C. Bovik, "Making a 'completely blind' image quality analyzer", IEEE Signal
Processing Letters 20, 209 (2013), in our own words: pixels are normalised by local mean and contrast (equation 1),
their distribution and those of products of neighbours are described by a few shape parameters, and a picture's
parameters are compared with the Gaussian that fits real pictures'. The usual BRISQUE models are trained on
photographs of 512 pixels and mean nothing for 28; this is fitted to the pictures at hand.

| here | in the paper |
|---|---|
| Mahalanobis distance of one picture, patch size = picture | distance of two Gaussians over many patches |
| moments of absolute value, square and sign (generalised Gaussian shapes follow from these) | fitted shapes |
| two scales, as there | two scales |

May import numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
WINDOW = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
"""Binomial, close to a Gaussian of one pixel: the paper's 7 pixels would be a quarter of such a picture."""
STABILISER = 1.0 / 255.0
"""C of equation 1, one grey level."""
RIDGE = 1e-3
"""Added to the variances, as a share of their mean."""


@dataclass(frozen=True, eq=False)
class Naturalness:
    """The Gaussian of real pictures' statistics.

    Attributes:
        mean: (statistics,).
        inverse: Of the covariance, (statistics, statistics).
    """

    mean: Floats
    inverse: Floats

    @classmethod
    def fit(cls, pictures: npt.NDArray[Any]) -> Naturalness:
        """Fits it to pictures, (count, height, width) from 0 to 1, several hundred at least."""
        found = statistics_of(pictures)
        covariance = np.cov(found.T)
        ridge = RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        return cls(found.mean(axis=0), np.linalg.inv(covariance + ridge))

    def distance(self, pictures: npt.NDArray[Any]) -> Floats:
        """Returns how far pictures (count, height, width) are from natural, (count,); about 1 for real ones."""
        away = statistics_of(pictures) - self.mean
        return np.asarray(np.sqrt(np.einsum("ni,ij,nj->n", away, self.inverse, away) / away.shape[1]))


def statistics_of(pictures: npt.NDArray[Any]) -> Floats:
    """Returns what describes pictures (count, height, width) from 0 to 1: (count, statistics)."""
    pictures = np.asarray(pictures, dtype=np.float64)
    half = pictures[:, : pictures.shape[1] // 2 * 2, : pictures.shape[2] // 2 * 2]
    half = half.reshape(len(half), half.shape[1] // 2, 2, half.shape[2] // 2, 2).mean(axis=(2, 4))
    return np.concatenate([_at_one_scale(pictures), _at_one_scale(half)], axis=1)


def _at_one_scale(pictures: Floats) -> Floats:
    mean = _blur(pictures)
    contrast = np.sqrt(np.maximum(_blur(pictures**2) - mean**2, 0.0))
    normal = (pictures - mean) / (contrast + STABILISER)
    products = [
        normal[:, :, 1:] * normal[:, :, :-1],
        normal[:, 1:, :] * normal[:, :-1, :],
        normal[:, 1:, 1:] * normal[:, :-1, :-1],
        normal[:, 1:, :-1] * normal[:, :-1, 1:],
    ]
    described = [normal, *products]
    columns = [contrast.mean(axis=(1, 2)), contrast.std(axis=(1, 2))]
    for values in described:
        size = np.abs(values)
        columns += [size.mean(axis=(1, 2)), values.std(axis=(1, 2)), values.mean(axis=(1, 2))]
    return np.stack(columns, axis=1)


def _blur(pictures: Floats) -> Floats:
    reach = len(WINDOW) // 2
    for axis in (1, 2):
        padding = [(0, 0)] * 3
        padding[axis] = (reach, reach)
        padded = np.pad(pictures, padding, mode="reflect")
        length = pictures.shape[axis]
        taken = [np.take(padded, range(start, start + length), axis=axis) for start in range(len(WINDOW))]
        pictures = np.tensordot(WINDOW, np.stack(taken), axes=1)
    return pictures


__all__ = ["Naturalness", "statistics_of"]
