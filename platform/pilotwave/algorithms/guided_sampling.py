"""Guidance while the sampler runs, written down as edited noise: what ``flow-direct``, ``lidar`` and ``tfg`` share.

A guide says at each step by how much the predicted clean latent should be shifted. The shift is not applied to the
prediction but to the noise that the step is about to inject: a step computes

    x_next = clean_weight * predicted_clean + ... + noise_weight * noise

so noise + (clean_weight / noise_weight) * shift does to x_next what predicted_clean + shift would do. The edited
sequence is kept, and the plain sampler turns it into the same latents again. Two things follow. The noiseless last
step is not guided. And a multistep sampler, which remembers its last prediction, remembers the unshifted one.

A sampler runs once per sample, so ``passes`` is 1. May import: numpy, torch, pilotwave's types and protocols, and
:mod:`pilotwave.algorithms.answers`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pilotwave.algorithms.answers import Answers
from pilotwave.protocols import Backbone, StepState
from pilotwave.types import Draw, GeneratedBatch, Observation, Proposal

Shift = Callable[[StepState, Tensor, Tensor], Tensor]
"""``shift(state, predicted_clean, conditions) -> shift`` of the predicted clean latent.

Latents and shift: (batch, *latent_shape), on the CPU; conditions: (batch, condition_size).
"""


class Guide(Protocol):
    """Where shifts come from; travels with a plan, so it can be pickled."""

    def bind(self, backbone: Backbone, draws: Sequence[Draw]) -> Shift:
        """Prepares for the samples of one batch."""
        ...


@dataclass(frozen=True)
class GuidedPlan:
    """One guided run of the sampler.

    Attributes:
        guide: None before there is anything to be guided by: then the samples are the backbone's own.
        noise_limit: See :func:`edit_noise`.
    """

    guide: Guide | None
    noise_limit: float | None = None

    def generate(self, backbone: Backbone, draws: Sequence[Draw]) -> GeneratedBatch:
        noise_sequence, conditions = backbone.draw_noise(draws), backbone.draw_conditions(draws)
        if self.guide is None:
            return GeneratedBatch(noise_sequence, backbone.sample(noise_sequence, conditions), conditions, passes=1)
        shift = self.guide.bind(backbone, draws)
        return sample_guided(backbone, noise_sequence, conditions, shift, self.noise_limit)


def sample_guided(
    backbone: Backbone,
    noise_sequence: Tensor,
    conditions: Tensor,
    shift: Shift,
    noise_limit: float | None = None,
) -> GeneratedBatch:
    """Runs the sampler under guidance and records the noise that was injected.

    Args:
        backbone: What is guided.
        noise_sequence: (steps + 1, batch, *latent_shape), as drawn; not changed.
        conditions: (batch, condition_size).
        shift: Called at every step that injects noise.
        noise_limit: See :func:`edit_noise`.

    Returns:
        The edited noise sequence and the latents that the plain sampler makes of it, too.
    """
    edited = noise_sequence.clone()

    def noise_hook(state: StepState, predicted_clean: Tensor, noise: Tensor) -> Tensor:
        at_hand = dataclasses.replace(state, noisy=state.noisy.cpu())
        wanted = shift(at_hand, predicted_clean.cpu(), conditions)
        drawn = edited[state.index + 1]
        edited[state.index + 1] = edit_noise(drawn, state.clean_weight / state.noise_weight * wanted, noise_limit)
        return edited[state.index + 1].to(noise)

    latents = backbone.sample(noise_sequence, conditions, noise_hook=noise_hook)
    return GeneratedBatch(edited, latents, conditions, passes=1)


def edit_noise(noise: Tensor, edit: Tensor, limit: float | None = None) -> Tensor:
    """Adds an edit to the noise of one step.

    Components drawn as exactly zero are not used by the sampler and stay zero. An edit that is not finite, or that
    float32 cannot hold, changes nothing of its sample.

    Args:
        noise: (batch, *latent_shape), float32, as drawn.
        edit: Of the same shape.
        limit: The edited noise is scaled down to this multiple of the drawn noise's norm where it is longer, sample
            by sample; None does not limit it.

    Returns:
        float32 of the shape of ``noise``.
    """
    drawn = noise.flatten(1)
    moved = (drawn.double() + edit.flatten(1).double()).where(drawn != 0, torch.zeros(()))
    if limit is not None:
        norm, radius = (torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in (moved, drawn))
        longest = limit * radius
        moved = moved * torch.where(norm > longest, longest / norm, 1.0)[:, None]
    moved = moved.to(noise.dtype)
    usable = moved.isfinite().all(dim=1) & edit.flatten(1).isfinite().all(dim=1)
    return moved.where(usable[:, None], drawn).reshape(noise.shape)


def seeded_normals(seed: int, purpose: str, step: int, shape: Sequence[int]) -> Tensor:
    """Draws standard normal numbers that depend on a draw's seed, what they are for, and the step alone.

    Returns:
        float32 of the given shape.
    """
    key = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "big")
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(key, step))))
    return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))


class GuidedAlgorithm:
    """Ask and tell of an algorithm whose plans guide while the sampler runs; a subclass forms the guide.

    Answers may come in any order, in part, and more than once; only those with a loss are learnt.

    Args:
        latent_shape: Of the backbone.
        noise_limit: See :func:`edit_noise`.
    """

    name: str

    def __init__(self, latent_shape: Sequence[int], noise_limit: float | None = None) -> None:
        self.noise_limit = noise_limit
        self._answers = Answers(latent_shape)
        self._rounds = 0

    def ask(self, count: int) -> Proposal:
        if count < 1:
            raise ValueError(f"expected to be asked for at least one sample, got {count}")
        self._rounds += 1
        return Proposal(self._rounds - 1, count, GuidedPlan(self._guide(), self.noise_limit))

    def tell(self, observations: Sequence[Observation]) -> None:
        self._answers.add(observations)

    def state_dict(self) -> dict[str, Any]:
        return {"algorithm": self.name, "rounds": self._rounds, **self._answers.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("algorithm") != self.name:
            raise ValueError(f"expected a state of algorithm {self.name!r}, got {state.get('algorithm')!r}")
        self._answers.load_state_dict(state)
        self._rounds = int(state["rounds"])

    def _guide(self) -> Guide | None:
        """Returns what guides the next proposal, or None if nothing can yet."""
        raise NotImplementedError


__all__ = [
    "Guide",
    "GuidedAlgorithm",
    "GuidedPlan",
    "Shift",
    "edit_noise",
    "sample_guided",
    "seeded_normals",
]
