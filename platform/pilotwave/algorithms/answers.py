"""What an algorithm has been told: every answer once, in an order that does not depend on when it came.

May import: torch and pilotwave's types.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pilotwave.types import Candidate, Observation, ok_observations


class Answers:
    """Answers by query id; whatever is asked of them is in the order of the ids.

    Failures, answers told before, and latents that are not finite are left out.

    Args:
        latent_shape: Of the backbone.
        steps: K of the backbone if the noise sequences are to be kept as well, else None.
        noise_of_best: Of how many answers they are kept, those with the lowest losses; all by default.
    """

    def __init__(
        self, latent_shape: Sequence[int], steps: int | None = None, noise_of_best: int | None = None
    ) -> None:
        self._latent_shape = tuple(latent_shape)
        self._steps = steps
        self._noise_of_best = noise_of_best
        self._candidates: dict[str, tuple[Candidate, float]] = {}

    def __len__(self) -> int:
        """Returns N, how many answers there are."""
        return len(self._candidates)

    def add(self, observations: Sequence[Observation]) -> list[str]:
        """Takes answers in; returns the ids that are new, in order."""
        fresh = []
        for candidate, loss in ok_observations(observations):
            if candidate.query_id in self._candidates or not candidate.latent.isfinite().all():
                continue
            self._candidates[candidate.query_id] = (candidate, loss)
            fresh.append(candidate.query_id)
        if fresh:
            self._candidates = dict(sorted(self._candidates.items()))
            self._drop_noise()
        return sorted(fresh)

    def places_of(self, ids: Sequence[str]) -> list[int]:
        """Returns the places of answers in everything here, in the order given.

        Raises:
            KeyError: There is no answer of this id.
        """
        place = {name: number for number, name in enumerate(self._candidates)}
        return [place[name] for name in ids]

    @property
    def ids_with_noise(self) -> list[str]:
        """The query ids whose noise sequences are kept, in order."""
        return [name for name, (candidate, _) in self._candidates.items() if len(candidate.noise_sequence)]

    @property
    def ids(self) -> list[str]:
        """The query ids, in order."""
        return list(self._candidates)

    @property
    def proposals(self) -> Tensor:
        """The number of each answer's proposal, int64 of shape (N,)."""
        return torch.tensor([candidate.proposal for candidate, _ in self._candidates.values()], dtype=torch.int64)

    @property
    def seeds(self) -> Tensor:
        """The seed of each answer's draw, int64 of shape (N,)."""
        return torch.tensor([candidate.seed for candidate, _ in self._candidates.values()], dtype=torch.int64)

    @property
    def losses(self) -> Tensor:
        """To be minimised, float64 of shape (N,)."""
        return torch.tensor([loss for _, loss in self._candidates.values()], dtype=torch.float64)

    @property
    def latents(self) -> Tensor:
        """float32 of shape (N, *latent_shape)."""
        return self._stacked([candidate.latent for candidate, _ in self._candidates.values()], self._latent_shape)

    @property
    def noise_sequences(self) -> Tensor:
        """float32 of shape (number kept, steps + 1, *latent_shape), in the order of :attr:`ids_with_noise`.

        Raises:
            ValueError: They are not kept.
        """
        if self._steps is None:
            raise ValueError("expected answers that keep their noise sequences; give the number of steps")
        shape = (self._steps + 1, *self._latent_shape)
        kept = [self._candidates[name][0].noise_sequence for name in self.ids_with_noise]
        return self._stacked(kept, shape)

    @property
    def conditions(self) -> Tensor:
        """int64 of shape (N, condition_size)."""
        rows = [candidate.condition for candidate, _ in self._candidates.values()]
        return torch.stack(rows) if rows else torch.zeros(0, 0, dtype=torch.int64)

    def standardised_losses(self) -> Tensor:
        """See :func:`standardise`."""
        return standardise(self.losses)

    def state_dict(self) -> dict[str, Any]:
        """Returns a flat dict of tensors and JSON-compatible values; its keys begin with ``answers_``."""
        state = {
            "answers_ids": self.ids,
            "answers_seeds": self.seeds,
            "answers_proposals": self.proposals,
            "answers_losses": self.losses,
            "answers_latents": self.latents,
            "answers_conditions": self.conditions,
        }
        if self._steps is None:
            return state
        return {**state, "answers_noise": self.noise_sequences, "answers_ids_with_noise": self.ids_with_noise}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned.

        Raises:
            ValueError: The answers are of latents of another shape, or of another number of steps.
        """
        shape = tuple(state["answers_latents"].shape[1:])
        if shape != self._latent_shape:
            raise ValueError(f"expected a state of latents of shape {self._latent_shape}, got {shape}")
        noise = state.get("answers_noise")
        steps = None if noise is None else noise.shape[1] - 1
        if steps != self._steps:
            raise ValueError(f"expected a state of {self._steps} sampler steps, got {steps}")
        sequences = {} if noise is None else dict(zip(state["answers_ids_with_noise"], noise, strict=True))
        self._candidates = {}
        for place, name in enumerate(state["answers_ids"]):
            candidate = Candidate(
                query_id=name,
                seed=int(state["answers_seeds"][place]),
                proposal=int(state["answers_proposals"][place]),
                noise_sequence=sequences.get(name, torch.zeros(0)).clone(),
                latent=state["answers_latents"][place].clone(),
                condition=state["answers_conditions"][place].clone(),
                sample=None,
            )
            self._candidates[name] = (candidate, float(state["answers_losses"][place]))

    def _drop_noise(self) -> None:
        """Forgets the noise that is not wanted; which that is does not depend on the order of the answers."""
        if self._steps is None:
            wanted: set[str] = set()
        elif self._noise_of_best is None:
            return
        else:
            ranked = sorted((loss, name) for name, (_, loss) in self._candidates.items())
            wanted = {name for _, name in ranked[: self._noise_of_best]}
        for name, (candidate, loss) in self._candidates.items():
            if name not in wanted and len(candidate.noise_sequence):
                lighter = dataclasses.replace(candidate, noise_sequence=torch.zeros(0), sample=None)
                self._candidates[name] = (lighter, loss)

    def _stacked(self, rows: list[Tensor], shape: tuple[int, ...]) -> Tensor:
        return torch.stack(rows).float() if rows else torch.zeros(0, *shape)


def standardise(losses: Tensor) -> Tensor:
    """Returns (loss - mean) / standard deviation, float64 of shape (N,); zeros if all are equal.

    Scaled by powers of two first, so that no finite losses overflow; shift and scale of the losses make no
    difference beyond rounding.
    """
    losses = losses.double()
    if len(losses) == 0:
        return losses
    unit = losses / _power_of_two(losses)
    centred = unit - unit.mean()
    spread = centred.square().mean().sqrt()
    return centred / spread if spread > 1e-12 * unit.abs().max() else torch.zeros_like(losses)


def unstandardise(scores: Tensor, losses: Tensor) -> Tensor:
    """Returns scores on the scale of standardised losses in the losses' own unit, float64: inverts standardise.

    Args:
        scores: Of any shape.
        losses: Those that were standardised, (N,), N at least 1.
    """
    scale = _power_of_two(losses.double())
    unit = losses.double() / scale
    spread = (unit - unit.mean()).square().mean().sqrt()
    found: Tensor = (scores.double() * spread + unit.mean()) * scale
    return found


def _power_of_two(losses: Tensor) -> Tensor:
    """The power of two that brings losses (float64, at least one) to 1 at most; 1 if all are zero."""
    largest = losses.abs().max()
    exponent = torch.frexp(largest).exponent.clamp(-1000, 1000).double()
    return torch.as_tensor(2.0**exponent if largest > 0 else torch.ones_like(largest))


def best_first(losses: Tensor) -> Tensor:
    """Returns the places of losses from the lowest up; among equals the earlier first."""
    return torch.argsort(losses, stable=True)


__all__ = ["Answers", "best_first", "standardise", "unstandardise"]
