"""Gaussians over the noise of each sampler step: drawing from them next to the model, and finding draws again.

Shared by the methods that search the noise with one distribution for all samples. A draw's standard noise xi comes
from its own seed (:mod:`pilotwave.algorithms.variation`), not from ``Backbone.draw_noise``: so whoever knows the
distribution and which components are used can find the draw z = mean + scale xi again exactly, although the
sampler was given z rescaled to the norm of xi. The backbone's own noise only says which components are used.

May import: numpy, torch, pilotwave's types, protocols and the shared handling of noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pilotwave.algorithms.variation import draw_fresh_noise, generator_for, onto_shell
from pilotwave.protocols import Backbone
from pilotwave.types import Draw, GeneratedBatch


@dataclass(frozen=True)
class NoiseGaussians:
    """One Gaussian for the noise of each step; dim is the number of components of a latent.

    Attributes:
        mean: (steps, dim).
        scale: (steps, dim) standard deviations, or (steps, dim, dim) symmetric square roots of the covariances.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def standard(cls, steps: int, dim: int, full: bool = False) -> NoiseGaussians:
        """Returns mean zero and the identity as covariance, float64; ``full`` for whole matrices."""
        one = torch.eye(dim) if full else torch.ones(dim)
        return cls(torch.zeros(steps, dim).double(), one.double().expand(steps, *one.shape).clone())

    def float(self) -> NoiseGaussians:
        """Returns it in float32, as it is sent."""
        return NoiseGaussians(self.mean.float(), self.scale.float())

    def of_standard(self, xi: Tensor) -> Tensor:
        """Returns z = mean + scale xi for standard noise (steps, batch, dim); no component is masked."""
        if self.scale.ndim == 2:
            return self.mean[:, None] + self.scale[:, None] * xi
        return self.mean[:, None] + xi @ self.scale

    def draws_of(self, seeds: Sequence[int], used: Tensor, purpose: str) -> tuple[Tensor, Tensor]:
        """Draws again what a plan drew.

        Args:
            seeds: Of the draws.
            used: Which components the sampler uses, bool of shape (steps, batch, *latent_shape).
            purpose: Of the plan.

        Returns:
            z and xi, both of the shape of ``used``, zero where it is false.
        """
        xi = draw_fresh_noise([Draw("", seed) for seed in seeds], used, purpose)
        z = self.of_standard(xi.flatten(2).to(self.mean.dtype)).reshape(used.shape)
        return z.where(used, 0.0), xi


@dataclass(frozen=True)
class GaussianNoisePlan:
    """Samples whose noise is drawn from Gaussians, each step rescaled to the norm of its standard noise.

    Attributes:
        gaussians: float32.
        purpose: Of the random numbers, the algorithm's name.
        completions: If true, each draw keeps its noise up to a step that its seed deals out, see
            :func:`completion_steps`, and takes the mean noise after it.
        passes: What is reported, see :class:`GeneratedBatch`.
    """

    gaussians: NoiseGaussians
    purpose: str
    completions: bool = False
    passes: int = 1

    def generate(self, backbone: Backbone, draws: Sequence[Draw]) -> GeneratedBatch:
        own, conditions = backbone.draw_noise(draws), backbone.draw_conditions(draws)
        used = own[:-1] != 0
        z, xi = self.gaussians.draws_of([draw.seed for draw in draws], used, self.purpose)
        noise = onto_shell(z, xi)
        if self.completions:
            steps = torch.tensor(completion_steps([draw.seed for draw in draws], len(used)))
            after = torch.arange(len(used))[:, None] > steps
            mean = self.gaussians.mean.reshape(len(used), 1, *used.shape[2:]).where(used, 0.0)
            noise = torch.where(after.reshape(*after.shape, *[1] * (noise.ndim - 2)), mean, noise)
        noise_sequence = torch.cat([noise, own[-1:]])
        latents = backbone.sample(noise_sequence, conditions)
        return GeneratedBatch(noise_sequence, latents, conditions, passes=self.passes)


def completion_steps(seeds: Sequence[int], steps: int) -> list[int]:
    """Returns the step up to which each draw keeps its own noise, 0 <= step < steps, from its seed alone."""
    return [int(generator_for(seed, "completion step").integers(steps)) for seed in seeds]


class UsedComponents:
    """Which components of its noise each answer used, by query id, in one bit each.

    Args:
        steps: K.
        latent_shape: Of the backbone.
    """

    def __init__(self, steps: int, latent_shape: Sequence[int]) -> None:
        self._shape = (steps, *latent_shape)
        self._packed: dict[str, Tensor] = {}

    def keep(self, name: str, noise_sequence: Tensor) -> None:
        """Remembers the components of a noise sequence (steps + 1, *latent_shape) that are not zero."""
        used = (noise_sequence[:-1] != 0).numpy()
        self._packed[name] = torch.from_numpy(np.packbits(used))

    def of(self, names: Sequence[str]) -> Tensor:
        """Returns bool of shape (steps, len(names), *latent_shape)."""
        size = int(np.prod(self._shape))
        rows = [np.unpackbits(self._packed[name].numpy(), count=size).astype(bool) for name in names]
        return torch.from_numpy(np.stack(rows, axis=0)).reshape(len(names), *self._shape).transpose(0, 1)

    def packed(self, names: Sequence[str]) -> Tensor:
        """Returns the bits of these answers for a state, uint8 of shape (len(names), bytes)."""
        rows = [self._packed[name] for name in names]
        return torch.stack(rows) if rows else torch.zeros(0, 0, dtype=torch.uint8)

    def restore(self, names: Sequence[str], packed: Tensor) -> None:
        """Takes back what :meth:`packed` returned."""
        self._packed = {name: row.clone() for name, row in zip(names, packed, strict=True)}


class AskedGaussians:
    """What each proposal was drawn from, by its number; proposals are numbered here.

    Args:
        steps: K.
        dim: Numbers a latent.
        full: Whether scales are matrices.
    """

    def __init__(self, steps: int, dim: int, full: bool = False) -> None:
        self._empty = NoiseGaussians.standard(steps, dim, full).float()
        self._asked: list[NoiseGaussians] = []

    def __contains__(self, number: object) -> bool:
        """Says whether there was a proposal of this number."""
        return isinstance(number, int) and 0 <= number < len(self._asked)

    def add(self, gaussians: NoiseGaussians) -> int:
        """Remembers the Gaussians of the next proposal (float32) and returns its number."""
        again = bool(self._asked) and self.equals(len(self._asked) - 1, gaussians)
        self._asked.append(self._asked[-1] if again else gaussians)
        return len(self._asked) - 1

    def equals(self, number: int, gaussians: NoiseGaussians) -> bool:
        """Says whether a proposal was drawn from these (float32)."""
        asked = self._asked[number]
        return torch.equal(asked.mean, gaussians.mean) and torch.equal(asked.scale, gaussians.scale)

    def draws_of(self, seeds: Sequence[int], proposals: Sequence[int], used: Tensor, purpose: str) -> Tensor:
        """Draws again what plans drew, see :meth:`NoiseGaussians.draws_of`.

        Args:
            seeds: Of the draws.
            proposals: The number of each draw's proposal.
            used: bool of shape (steps, len(seeds), *latent_shape).
            purpose: Of the plans.

        Returns:
            z, float32 of the shape of ``used``.
        """
        z = torch.zeros(used.shape)
        for number in sorted(set(proposals)):
            chosen = [place for place, proposal in enumerate(proposals) if proposal == number]
            own_seeds = [seeds[place] for place in chosen]
            z[:, chosen] = self._asked[number].draws_of(own_seeds, used[:, chosen], purpose)[0]
        return z

    def state_dict(self) -> dict[str, Any]:
        """Returns a flat dict; its keys begin with ``asked_``."""
        different = list({id(gaussians): gaussians for gaussians in self._asked}.values())
        places = {id(gaussians): place for place, gaussians in enumerate(different)}
        return {
            "asked_places": [places[id(gaussians)] for gaussians in self._asked],
            "asked_means": torch.stack([self._empty.mean, *(gaussians.mean for gaussians in different)])[1:],
            "asked_scales": torch.stack([self._empty.scale, *(gaussians.scale for gaussians in different)])[1:],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned.

        Raises:
            ValueError: The state is of another number of steps or of latents of another size.
        """
        means, scales = state["asked_means"], state["asked_scales"]
        if means.shape[1:] != self._empty.mean.shape or scales.shape[1:] != self._empty.scale.shape:
            raise ValueError(
                f"expected a state of Gaussians of shape {tuple(self._empty.scale.shape)}, "
                f"got {tuple(scales.shape[1:])}"
            )
        different = [NoiseGaussians(*pair) for pair in zip(means.clone(), scales.clone(), strict=True)]
        self._asked = [different[int(place)] for place in state["asked_places"]]


def rounds_of(proposals: Sequence[int], least: int) -> list[list[int]]:
    """Groups answers for one update each: by proposal, small ones together with those that follow.

    A function of the set of answers, whatever the order in which they came.

    Args:
        proposals: The proposal's number of each answer.
        least: Answers in a group; what is left over at the end waits.

    Returns:
        The places of the answers of each group, by proposal and then as given.
    """
    ordered = sorted(range(len(proposals)), key=lambda place: (proposals[place], place))
    groups: list[list[int]] = [[]]
    for _, places in itertools.groupby(ordered, key=lambda place: proposals[place]):
        groups[-1].extend(places)
        if len(groups[-1]) >= least:
            groups.append([])
    return groups[:-1]


__all__ = [
    "AskedGaussians",
    "GaussianNoisePlan",
    "NoiseGaussians",
    "UsedComponents",
    "completion_steps",
    "rounds_of",
]
