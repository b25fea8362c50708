"""Scored samples as a guidance field: how the rewards tilt the average clean sample behind a noisy one.

With x_t = signal_t x_0 + sigma_t eps and archive samples X_i of reward r_i (``flow-direct`` and ``lidar`` differ in
the sharpness b, the rewards' scale and the noise xi_i, see there):

    L_i = -b |x_t - (signal_t X_i + sigma_t xi_i)|^2 / (2 sigma_t^2)
    p = softmax(L),  q = softmax(L + r)
    tilt = sum_i q_i X_i - sum_i p_i X_i

p is the posterior over the archive given x_t, q the same under the tilted prior. Nothing of shape (batch, N, dim)
is made: latents in a fixed frame cost two matrix products by blocks of the archive; latents that have to be turned
onto each sample first are handled sample by sample.

May import: torch, pilotwave's protocols, and the blocked products of the surrogates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pilotwave.protocols import Backbone, StepState
from pilotwave.surrogates.posterior_mean import EXACT_DIM, ROW_BLOCK, inner_products, squared_norms

PathNoise = Callable[[int, int, StepState], Tensor]
"""``path_noise(first, last, state) -> xi`` of archive samples first <= i < last, (last - first, dim), float32."""


@dataclass(frozen=True)
class ScoredArchive:
    """Samples with rewards, best compared as they are or in each sample's own frame.

    Attributes:
        latents: (N, *latent_shape), float32.
        rewards: r, float64 of shape (N,), to be maximised.
        conditions: (N, condition_size).
        aligned: Whether the model has symmetries and its conditions are sizes (molecules): archive samples are then
            turned onto the predicted clean latent, and only those of its own condition are compared with it.
        field_size: Split in their order into as many even fields of at least so many samples as there can be,
            whose tilts are added; None is one field.
    """

    latents: Tensor
    rewards: Tensor
    conditions: Tensor
    aligned: bool
    field_size: int | None = None

    def tilt(
        self,
        backbone: Backbone,
        state: StepState,
        predicted_clean: Tensor,
        conditions: Tensor,
        sharpness: float,
        path_noise: PathNoise | None = None,
    ) -> Tensor:
        """Returns the tilt at each sample, float32 of shape (batch, *latent_shape); zero where none is comparable.

        Args:
            backbone: Aligns.
            state: Of the step; ``noisy`` is x_t.
            predicted_clean: What archive samples are aligned to, (batch, *latent_shape).
            conditions: Of the batch.
            sharpness: b.
            path_noise: xi; None is zero.
        """
        scale = -sharpness / (2 * state.noise_level**2)
        if not self.aligned:
            squares = self._squares(state, path_noise)
            return self._mean(self._weights(scale * squares, slice(None))).reshape(predicted_clean.shape)
        tilts = torch.zeros_like(predicted_clean)
        drawn = None if path_noise is None else path_noise(0, len(self.latents), state)
        for place, condition in enumerate(conditions):
            alike = torch.nonzero((self.conditions == condition).all(dim=1))[:, 0]
            if len(alike):
                fixed = predicted_clean[place].expand(len(alike), *predicted_clean.shape[1:])
                turned = backbone.align(self.latents[alike], fixed, condition.expand(len(alike), -1)).flatten(1)
                squares = _squares_of_one(state, place, turned, None if drawn is None else drawn[alike])
                weights = self._weights(scale * squares[None], alike)[0]
                tilts[place] = (weights @ turned.double()).reshape(predicted_clean.shape[1:])
        return tilts

    def _squares(self, state: StepState, path_noise: PathNoise | None) -> Tensor:
        """|x_t - (signal_t X_i + sigma_t xi_i)|^2, float64 of shape (batch, N)."""
        noisy = state.noisy.flatten(1)
        columns = []
        for first, rows in self._row_blocks():
            at_step = state.signal_level * rows
            if path_noise is not None:
                at_step = at_step + state.noise_level * path_noise(first, first + len(rows), state)
            columns.append(squared_norms(at_step) - 2 * inner_products(noisy, at_step))
        # They lack |x_t|^2, the same for all N: no softmax sees it.
        return torch.cat(columns, dim=1)

    def _weights(self, logits: Tensor, members: Tensor | slice) -> Tensor:
        """Returns q - p, float64 of shape (batch, members)."""
        rewards = self.rewards[members]
        weights = torch.zeros_like(logits)
        for field in self._fields(logits.shape[1]):
            tilted = torch.softmax(logits[:, field] + rewards[field], dim=1)
            weights[:, field] = tilted - torch.softmax(logits[:, field], dim=1)
        return weights

    def _fields(self, members: int) -> list[slice]:
        """Splits members evenly into as many fields of at least ``field_size`` as there can be, at least one."""
        count = 1 if self.field_size is None else max(1, members // self.field_size)
        bounds = [members * place // count for place in range(count + 1)]
        return [slice(first, last) for first, last in itertools.pairwise(bounds)]

    def _mean(self, weights: Tensor) -> Tensor:
        """Returns weights @ latents, float32 of shape (batch, dim)."""
        dim = self.latents[0].numel()
        working = torch.float64 if dim <= EXACT_DIM else torch.float32
        total = torch.zeros(len(weights), dim, dtype=working)
        for first, rows in self._row_blocks():
            total.addmm_(weights[:, first : first + len(rows)].to(working), rows.to(working))
        return total.float()

    def _row_blocks(self) -> Iterator[tuple[int, Tensor]]:
        for first in range(0, len(self.latents), ROW_BLOCK):
            yield first, self.latents[first : first + ROW_BLOCK].flatten(1)


def _squares_of_one(state: StepState, place: int, turned: Tensor, drawn: Tensor | None) -> Tensor:
    """|x_t - (signal_t X_i + sigma_t xi_i)|^2 of one sample, float64 of shape (members,)."""
    noisy = state.noisy[place].flatten()
    offsets = noisy - state.signal_level * turned
    if drawn is not None:
        offsets = offsets - state.noise_level * drawn.where(noisy != 0, torch.zeros(()))  # none in the padding
    return offsets.double().square().sum(dim=1)


__all__ = ["PathNoise", "ScoredArchive"]
