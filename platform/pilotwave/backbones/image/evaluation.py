"""Looks at a model while it trains: held-out loss, samples, their diversity and the judge's opinion.

May import torch, numpy, the modules beside it and pilotwave's samples.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pilotwave.backbones.image.backbone import ImageBackbone, ImageBackboneConfig
from pilotwave.backbones.image.dataset import LabelledImages, to_latents
from pilotwave.backbones.image.judge import Judge, read_judge
from pilotwave.backbones.image.network import ImageNetwork, velocity_loss
from pilotwave.backbones.image.quality import Pixels, diversity, draw_in_turns
from pilotwave.backbones.image.stored import header_of
from pilotwave.samples import ImageSample
from pilotwave.training.weights import Weights

HELD_OUT_PICTURES = 1000
SAMPLER_STEPS = 10
"""Fewer than a campaign takes: these samples are looked at often and only compared with each other."""
DRAWS_SEED = 20_250
PIXEL_DISTANCE = "pixel_distance"
"""Mean root mean square distance of two pictures, pixels from 0 to 1."""


@dataclass(frozen=True, eq=False)
class Look:
    """One look at a model.

    Attributes:
        asked: The class that each sample was asked to show, (n,).
        pixels: The samples, classes in turn, uint8 (n, side, side, channels).
        class_names: What the classes are called.
        diversity: Of the samples, by the names of :attr:`Evaluation.data_diversity`.
        measures: ``relative_diversity`` of the samples to the data, and ``judge_agreement`` if there is a judge of
            such pictures.
    """

    asked: npt.NDArray[np.int64]
    pixels: Pixels
    class_names: tuple[str, ...]
    diversity: dict[str, float]
    measures: dict[str, float]

    def samples(self, count: int) -> tuple[ImageSample, ...]:
        """Returns the first few samples."""
        return tuple(
            ImageSample(picture, self.class_names[label])
            for picture, label in zip(self.pixels[:count], self.asked[:count], strict=True)
        )


class Evaluation:
    """Measures averaged weights, always with the same held-out pictures, the same noise and the same draws.

    Args:
        network: The one in training; a copy of it is used.
        held_out: Pictures that training never sees.
        trained_on: Some pictures as training sees them; the samples' diversity is compared with theirs.
        samples: How many to draw at a look.
        precision: ``"bfloat16"`` or ``"float32"``.
        device: Where the network is.
    """

    def __init__(
        self,
        network: ImageNetwork,
        held_out: LabelledImages,
        trained_on: LabelledImages,
        samples: int,
        precision: str,
        device: torch.device,
    ) -> None:
        self.network, self.held_out, self.samples = copy.deepcopy(network), held_out, samples
        self.reduced, self.device = precision == "bfloat16", device
        self.judge = _fitting_judge(held_out)
        self.data_diversity = self._diversity(trained_on.images, trained_on.labels)
        count = min(HELD_OUT_PICTURES, len(held_out))
        generator = torch.Generator().manual_seed(0)
        clean = to_latents(held_out.images[:count])
        noise = torch.randn(clean.shape, generator=generator)
        time = (torch.randperm(count, generator=generator) + 0.5) / count
        labels = torch.from_numpy(held_out.labels[:count])
        self.batches = list(
            zip(*(torch.split(part.to(device), 250) for part in (clean, noise, time, labels)), strict=True)
        )

    @torch.no_grad()
    def loss(self, average: dict[str, torch.Tensor]) -> float:
        """Returns the mean loss of averaged weights on held-out pictures."""
        self.network.load_state_dict(average)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.reduced):
            losses = [velocity_loss(self.network, *batch) for batch in self.batches]
        return float(torch.cat(losses).mean())

    def look(self, average: dict[str, torch.Tensor], *, again: bool = False) -> Look:
        """Draws samples with averaged weights and measures them; other ones if asked again."""
        precision = "bfloat16" if self.reduced else "float32"
        config = ImageBackboneConfig(kind="image", steps=SAMPLER_STEPS, precision=precision)
        weights = Weights(average, header_of(self.network), {}, "in-training")
        backbone = ImageBackbone(config, weights, str(self.device))
        asked, pixels = draw_in_turns(backbone, self.samples, DRAWS_SEED + again)
        diversity = self._diversity(pixels, asked)
        whole = max(self.data_diversity[PIXEL_DISTANCE], 1e-9)
        measures = {"relative_diversity": diversity[PIXEL_DISTANCE] / whole}
        if self.judge is not None:
            measures["judge_agreement"] = float(np.mean(self.judge(pixels).labels == asked))
        return Look(asked, pixels, self.held_out.class_names, diversity, measures)

    def _diversity(self, pixels: Pixels, labels: npt.NDArray[np.int64]) -> dict[str, float]:
        """Returns the diversity within classes; over all where there are too many classes for pairs."""
        by_class = self.samples >= 2 * len(self.held_out.class_names)
        return {PIXEL_DISTANCE: diversity(pixels, labels if by_class else np.zeros_like(labels))}


def _fitting_judge(pictures: LabelledImages) -> Judge | None:
    """Returns the shipped judge if it judges such pictures."""
    judge = read_judge()
    return judge if judge.picture == pictures.picture else None


__all__ = ["PIXEL_DISTANCE", "SAMPLER_STEPS", "Evaluation", "Look"]
