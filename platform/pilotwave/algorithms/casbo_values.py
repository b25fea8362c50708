"""The value model of CASBO: what the clean sample that a sampler predicts at a step is worth.

A Gaussian process is conditioned on the finished latents and their losses; the worth of the clean latent predicted
at step j is its posterior mean there. The prediction at the last step is the finished latent itself, for which the
oracle's own answer is taken. Both are in units of the standard deviation of the known losses.

Predictions are seen by a hook while the sampler runs. What runs next to the model returns no more than noise and
latents, so the noise of every answer is sent through the sampler once more when the answer is told, by a copy of
the model beside the algorithm: a second generator pass per answer, and no query.

May import: torch, pilotwave's types, protocols, the surrogates and the standardisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pilotwave.algorithms.answers import standardise
from pilotwave.protocols import Backbone, StepState
from pilotwave.surrogates.gaussian_process import GaussianProcess
from pilotwave.types import Candidate


class PredictedValues:
    """Keeps the predicted clean latents of every answer and values them.

    Args:
        build_backbone: Loads the copy of the model, when the first answer comes.
        noise: Variance of the process's observation noise, in standardised losses squared.
    """

    def __init__(self, build_backbone: Callable[[], Backbone], noise: float) -> None:
        self._build_backbone = build_backbone
        self._noise = noise
        self._backbone: Backbone | None = None
        self._predictions: dict[str, Tensor] = {}

    @property
    def backbone(self) -> Backbone:
        """The copy of the model."""
        if self._backbone is None:
            self._backbone = self._build_backbone()
        return self._backbone

    def keep(self, candidates: Sequence[Candidate]) -> None:
        """Runs the sampler on the noise of candidates and keeps what it predicts at all steps but the last."""
        if not candidates:
            return
        seen: list[Tensor] = []

        def watch(state: StepState, clean: Tensor) -> Tensor:
            if state.index < state.steps - 1:
                seen.append(clean.detach().to("cpu", torch.float32))
            return clean

        noise = torch.stack([candidate.noise_sequence for candidate in candidates], dim=1)
        finished = self.backbone.sample(
            noise, torch.stack([candidate.condition for candidate in candidates]), watch
        )
        for place, candidate in enumerate(candidates):
            rows = [step[place] for step in seen]
            self._predictions[candidate.query_id] = torch.stack(rows) if rows else finished[:0]

    def costs(self, names: Sequence[str], latents: Tensor, losses: Tensor, asked: Sequence[int]) -> Tensor:
        """Values the steps of some answers.

        Latents and predictions are laid over the first known latent before they are compared, by the model's own
        symmetry.

        Args:
            names: Of all answers that the process is to know.
            latents: Theirs, (N, *latent_shape).
            losses: Theirs, (N,).
            asked: Places of those that are to be valued.

        Returns:
            float64 of shape (steps, len(asked)).
        """
        scores = standardise(losses)
        last = scores[list(asked)][None]
        predictions = torch.stack([self._predictions[names[place]] for place in asked], dim=1)
        if not len(predictions):
            return last
        process = GaussianProcess(latents[0].numel(), noise=self._noise)
        process.append(self._in_frame(latents, latents[:1]).flatten(1), scores)
        flat = self._in_frame(predictions.flatten(0, 1), latents[:1]).flatten(1)
        means = process.mean(flat.nan_to_num()).double().reshape(len(predictions), len(asked))
        return torch.cat([means, last])

    def packed(self, names: Sequence[str]) -> Tensor:
        """Returns the predictions for a state, float32 of shape (len(names), steps - 1, *latent_shape)."""
        rows = [self._predictions[name] for name in names]
        return torch.stack(rows) if rows else torch.zeros(0)

    def restore(self, names: Sequence[str], packed: Tensor) -> None:
        """Takes back what :meth:`packed` returned."""
        self._predictions = {name: row.clone() for name, row in zip(names, packed, strict=True)}

    def _in_frame(self, latents: Tensor, reference: Tensor) -> Tensor:
        return self.backbone.align(latents, reference.expand_as(latents))


__all__ = ["PredictedValues"]
