"""What a model draws when nothing steers it: samples of any backbone, batch by batch, each from its own seed.

May import torch, :mod:`pilotwave.protocols`, :mod:`pilotwave.samples` and :mod:`pilotwave.types`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from pilotwave.protocols import Backbone, StepState
from pilotwave.samples import Invalid, Sample
from pilotwave.types import Draw


def unguided_draws(seed: int, count: int) -> list[Draw]:
    """Returns the draws of a seed: of two seeds none is the same, and fewer draws are the first of more."""
    return [Draw.of(seed, 0, slot) for slot in range(count)]


def sample_unguided(
    backbone: Backbone,
    draws: Sequence[Draw],
    batch_size: int = 64,
    progress: Callable[[float], None] | None = None,
) -> Iterator[list[Sample | Invalid]]:
    """Yields the samples of draws, a batch at a time, in the order of the draws.

    Args:
        backbone: Any.
        draws: One per sample.
        batch_size: Samples that are drawn together, 1 at least.
        progress: Called after every step of the sampler with the draws done so far, a fraction counted.
    """
    if batch_size < 1:
        raise ValueError(f"expected a batch size of 1 or more, got {batch_size}")
    for start in range(0, len(draws), batch_size):
        batch = draws[start : start + batch_size]

        def watch(state: StepState, clean: Tensor, start: int = start, size: int = len(batch)) -> Tensor:
            if progress is not None:
                progress(start + size * (state.index + 1) / state.steps)
            return clean

        conditions = backbone.draw_conditions(batch)
        latents = backbone.sample(backbone.draw_noise(batch), conditions, watch)
        yield backbone.decode(latents, conditions)


__all__ = ["sample_unguided", "unguided_draws"]
