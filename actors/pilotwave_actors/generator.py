"""The generator actor: loads the backbone once and runs plans next to it.

It has no state that matters: a proposal is made again, identically, by handing it over again. May import ray
and the core; torch and the model are imported in the actor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pilotwave.config.components import BackboneConfig, ConstraintConfig

if TYPE_CHECKING:
    from pilotwave.execution.workers import GenerationRequest, GenerationResult


@dataclass(frozen=True)
class BackboneFacts:
    """What the optimizer must know of the model; see :class:`pilotwave.protocols.Backbone`."""

    latent_shape: tuple[int, ...]
    steps: int
    media: str
    fingerprint: str


class Generator:
    """The model's host; made an actor by :mod:`pilotwave_actors.workers`.

    Building is done on construction, so that a restarted actor is ready again without being told.
    """

    def __init__(
        self, config: BackboneConfig, constraints: tuple[ConstraintConfig, ...], device: str, threads: int
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self._backbone = config.build(device)
        self._constraints = [constraint.build() for constraint in constraints]

    def facts(self) -> BackboneFacts:
        """Returns what the optimizer must know."""
        backbone = self._backbone
        return BackboneFacts(tuple(backbone.latent_shape), backbone.steps, backbone.media, backbone.fingerprint)

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """Makes a proposal's candidates."""
        from pilotwave.execution.generation import generate_candidates

        return generate_candidates(self._backbone, self._constraints, request)


__all__ = ["BackboneFacts", "Generator"]
