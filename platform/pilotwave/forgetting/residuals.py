"""How far answers lie from what all others make one expect: studentised residuals of a Gaussian process.

The process is the one that the optimiser itself fits (:mod:`pilotwave.surrogates.fitted_process`). With C its
covariance and a = C^-1 (y - mu), the residual of an answer left out is a_i / (C^-1)_ii and its variance is
1 / (C^-1)_ii (Rasmussen and Williams, 2006, equations 5.10 to 5.12). May import numpy, torch and
:mod:`pilotwave.surrogates`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pilotwave.surrogates.fitted_process import fit_process

FloatArray = npt.NDArray[np.float64]

FEWEST = 6
"""Answers below which a fit says nothing."""
MOST = 1000
"""Answers that are fitted at most, an even part of more; the cost grows with their cube."""
_LEAST_SPREAD = 1e-12


@dataclass(frozen=True)
class FittedAnswers:
    """A process fitted to answers.

    Attributes:
        residuals: Of each answer fitted, studentised: about standard normal if all is well; float64 of shape (N,).
        spread: The robust standard deviation of these residuals, at least 1.
    """

    residuals: FloatArray
    spread: float
    _points: FloatArray
    _weights: FloatArray
    _inverse: FloatArray
    _lengthscale: float
    _noise: float
    _variance: float
    _constant: float
    _shift: float
    _unit: float

    def residuals_of(self, latents: FloatArray, values: FloatArray) -> FloatArray:
        """Returns the studentised residuals of other answers, of shape (M,).

        Args:
            latents: (M, dim).
            values: (M,).
        """
        cross = _kernel(latents, self._points, self._lengthscale)
        mean = self._constant + cross @ self._weights
        explained = np.einsum("mn,nk,mk->m", cross, self._inverse, cross)
        variance = self._variance * np.maximum(1.0 + self._noise - explained, _LEAST_SPREAD)
        scaled = (values - self._shift) / self._unit
        residuals: FloatArray = (scaled - mean) / np.sqrt(variance)
        return residuals


def fit_answers(latents: FloatArray, values: FloatArray) -> FittedAnswers | None:
    """Fits a process to answers.

    Args:
        latents: (N, dim), finite.
        values: (N,), finite.

    Returns:
        The fit, or None where there is nothing to learn: too few answers, equal values, or equal latents.
    """
    if len(values) < FEWEST:
        return None
    shift, unit = float(np.mean(values)), float(np.std(values))
    if unit <= _LEAST_SPREAD * max(1.0, float(np.abs(values).max())):
        return None
    scaled = (values - shift) / unit
    process = fit_process(torch.from_numpy(latents.astype(np.float32)), torch.from_numpy(scaled))
    if process is None:
        return None
    covariance = _kernel(latents, latents, process.lengthscale) + process.noise * np.eye(len(values))
    inverse = np.linalg.inv(covariance).astype(np.float64)
    variance = max(process.scale**2, _LEAST_SPREAD)
    diagonal = np.maximum(np.diag(inverse), _LEAST_SPREAD)
    weights = inverse @ (scaled - process.constant)
    residuals = weights / diagonal / np.sqrt(variance / diagonal)
    return FittedAnswers(
        residuals=residuals,
        spread=max(1.0, robust_spread(residuals)),
        _points=latents,
        _weights=weights,
        _inverse=inverse,
        _lengthscale=process.lengthscale,
        _noise=process.noise,
        _variance=variance,
        _constant=process.constant,
        _shift=shift,
        _unit=unit,
    )


def robust_spread(numbers: FloatArray) -> float:
    """Returns the median absolute deviation, scaled to be the standard deviation of a normal sample."""
    return float(1.4826 * np.median(np.abs(numbers - np.median(numbers)))) if len(numbers) else 0.0


def _kernel(left: FloatArray, right: FloatArray, lengthscale: float) -> FloatArray:
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2.0 * left @ right.T
    kernel: FloatArray = np.exp(np.maximum(squares, 0.0) / (-2.0 * lengthscale**2))
    return kernel


__all__ = ["FEWEST", "MOST", "FittedAnswers", "fit_answers", "robust_spread"]
