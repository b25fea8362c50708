"""Quality and diversity of a batch: how far its samples are from the model's own, and from each other.

May import numpy, torch, the backbones, and pilotwave's samples and types.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pilotwave.backbones.image.judge import Judge
from pilotwave.backbones.mixture import LowRankMixture
from pilotwave.backbones.molecule.diversity import diversity as molecule_diversity
from pilotwave.bench.task import Measure, Measured
from pilotwave.samples import ImageSample, MoleculeSample
from pilotwave.types import Candidate

REPEAT = "repeat"
"""The stage at which :mod:`pilotwave.execution.generation` refuses a sample whose answer is known."""


def latents_of(candidates: Sequence[Candidate]) -> Tensor:
    """Returns the latents as rows, float64 of shape (count, dim)."""
    return torch.stack([candidate.latent.flatten() for candidate in candidates]).double()


def spread(latents: Tensor) -> float | None:
    """Returns the mean distance of two latents over sqrt(2 dim): 1 for independent standard normal ones.

    Args:
        latents: (count, dim); None is returned for fewer than two.
    """
    if len(latents) < 2:
        return None
    return float(torch.pdist(latents).mean()) / math.sqrt(2 * latents.shape[1])


def nearest(latents: Tensor, data: Tensor) -> Tensor:
    """Returns each latent's (count, dim) root mean square distance to the nearest row of the data, (count,)."""
    return torch.cdist(latents.float(), data).amin(1).double() / math.sqrt(latents.shape[1])


def measure_by_mixture(mixture: LowRankMixture, data: Tensor) -> Measure:
    """Returns the measure of an analytic model.

    Quality: ``log_likelihood``, nats per dimension under the mixture itself; ``nearest_distance`` to its data.
    Diversity: ``spread``, see :func:`spread`.

    Args:
        mixture: The model.
        data: float32 of shape (count, dim), in the units of its latents.
    """

    def measure(drawn: Sequence[Candidate], asked: Sequence[Candidate]) -> Measured:
        if not asked:
            return Measured({}, {})
        latents = latents_of(asked)
        quality = {
            "log_likelihood": float(mixture.log_density(latents).mean()) / latents.shape[1],
            "nearest_distance": float(nearest(latents, data).mean()),
        }
        return Measured(quality, _present("spread", spread(latents)))

    return measure


def measure_by_judge(judge: Judge, data: npt.NDArray[np.uint8]) -> Measure:
    """Returns the measure of a class-conditional image model.

    Quality: ``judge_confidence``, the judge's mean probability of the class that was asked for;
    ``nearest_distance`` to real pictures (root mean square, pixels from -1 to 1). Diversity: ``spread``.

    Args:
        judge: Trained apart from the model.
        data: Real pictures, (count, side, side, channels).
    """
    points = torch.from_numpy(data).permute(0, 3, 1, 2).flatten(1).float() / 127.5 - 1

    def measure(drawn: Sequence[Candidate], asked: Sequence[Candidate]) -> Measured:
        pictures = [candidate.sample.pixels for candidate in asked if isinstance(candidate.sample, ImageSample)]
        if not pictures:
            return Measured({}, {})
        classes = [int(candidate.condition[0]) for candidate in asked]
        said = judge(np.stack(pictures)).probabilities
        latents = latents_of(asked)
        quality = {
            "judge_confidence": float(said[np.arange(len(classes)), classes].mean()),
            "nearest_distance": float(nearest(latents, points).mean()),
        }
        return Measured(quality, _present("spread", spread(latents)))

    return measure


def measure_molecules() -> Measure:
    """Returns the measure of a molecule model.

    Quality: ``valid``, the share of all draws that decode; ``feasible``, of those the share that passes the
    constraints; ``strictly_valid``, of those the share that needed no repair. Diversity: ``tanimoto_distance`` of
    the molecules asked about; ``fresh``, the share of feasible draws whose answer was not known already.
    """

    def measure(drawn: Sequence[Candidate], asked: Sequence[Candidate]) -> Measured:
        molecules = [item.sample for item in drawn if isinstance(item.sample, MoleculeSample)]
        repeats = sum((item.infeasible or "").startswith(REPEAT) for item in drawn)
        feasible = sum(item.infeasible is None for item in drawn) + repeats
        quality = {
            "valid": len(molecules) / max(len(drawn), 1),
            "feasible": feasible / max(len(molecules), 1),
            "strictly_valid": sum(item.strictly_valid for item in molecules) / max(len(molecules), 1),
        }
        found = molecule_diversity([item.sample.label() for item in asked if item.sample is not None])
        diversity = {} if found is None else {"tanimoto_distance": found["tanimoto_distance"]}
        return Measured(quality, {**diversity, "fresh": 1 - repeats / max(feasible, 1)})

    return measure


def _present(name: str, value: float | None) -> dict[str, float]:
    return {} if value is None else {name: value}


__all__ = [
    "latents_of",
    "measure_by_judge",
    "measure_by_mixture",
    "measure_molecules",
    "nearest",
    "spread",
]
