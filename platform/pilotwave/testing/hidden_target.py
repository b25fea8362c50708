"""A small problem on which an algorithm shows that it optimises: to find a sample that the model could draw.

    score = distance_to_hidden_sample(backbone, seed=0)
    guided = batch_means(my_algorithm, backbone, score)
    unguided = batch_means(RandomSearch(), backbone, score)
    assert min(guided) < min(unguided) - 1

May import: torch, pilotwave's types and protocols, and the algorithm contract beside it.
"""

from __future__ import annotations

from torch import Tensor

from pilotwave.protocols import Algorithm, Backbone
from pilotwave.testing.algorithm_contract import Score, observed
from pilotwave.types import Draw

UNGUIDED = 300


def distance_to_hidden_sample(backbone: Backbone, seed: int) -> Score:
    """Returns the squared distance to a sample of the model, in standard deviations of its unguided samples.

    Args:
        backbone: Any; its latents are compared as they are.
        seed: Of the hidden sample.
    """
    draws = [Draw.of(77 + seed, 0, slot) for slot in range(UNGUIDED)]
    latents = backbone.sample(backbone.draw_noise(draws), backbone.draw_conditions(draws))
    target, others = latents[0], latents[1:]

    def distance(samples: Tensor) -> Tensor:
        return (samples - target).flatten(1).double().square().mean(dim=1)

    mean, spread = distance(others).mean(), distance(others).std()
    return lambda samples: (distance(samples) - mean) / spread


def batch_means(
    algorithm: Algorithm, backbone: Backbone, score: Score, rounds: int = 12, batch: int = 16
) -> list[float]:
    """Runs an algorithm, batch after batch, and returns the mean score of each."""
    means = []
    for _ in range(rounds):
        observations = observed(backbone, algorithm.ask(batch), score)
        means.append(sum(item.loss for item in observations if item.loss is not None) / batch)
        algorithm.tell(observations)
    return means


__all__ = ["batch_means", "distance_to_hidden_sample"]
