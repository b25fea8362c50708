"""How good unguided samples are, by what they are: molecules by chemistry, images by the judge.

May import :mod:`pilotwave.backbones` and :mod:`pilotwave.samples`, both inside functions where they are heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pilotwave.samples import ImageSample, Invalid, Sample


@dataclass(frozen=True)
class SampleQuality:
    """What was measured.

    Attributes:
        lines: For people.
        values: The same for programs, JSON-compatible.
    """

    lines: list[str]
    values: dict[str, Any]


def measure_samples(samples: Sequence[Sample | Invalid], media: str) -> SampleQuality:
    """Measures samples of one media, invalid ones included; one of them at least is valid."""
    if media == "molecule":
        from pilotwave.backbones.molecule.quality import measure_samples as measure_molecules

        molecules = measure_molecules(samples)
        return SampleQuality(molecules.lines(), asdict(molecules))
    valid = [each for each in samples if not isinstance(each, Invalid)]
    lines, values = [f"valid             {len(valid)} of {len(samples)}"], {"valid": len(valid)}
    if media != "image":
        return SampleQuality(lines, values)
    images = _measure_images([each for each in valid if isinstance(each, ImageSample)])
    return SampleQuality(lines + images.lines, values | images.values)


def _measure_images(images: Sequence[ImageSample]) -> SampleQuality:
    """Returns the diversity of pictures and, where the shipped judge knows such pictures, what it says of them."""
    from pilotwave.backbones.image.judge import BUILTIN_JUDGE, read_judge
    from pilotwave.backbones.image.quality import diversity
    from pilotwave.training.proportions import in_percent

    pixels = np.stack([image.pixels for image in images])
    names = [image.class_name or "" for image in images]
    spread = diversity(pixels, np.unique(names, return_inverse=True)[1])
    lines = [f"diversity         {spread:.3f}, mean distance of two pictures of a class (RMS, pixels 0 to 1)"]
    values: dict[str, Any] = {"diversity": spread}
    if not BUILTIN_JUDGE.exists():
        return SampleQuality(lines, values)
    judge = read_judge()
    known = judge.picture.class_names
    if pixels.shape[1:] != (judge.picture.side, judge.picture.side, judge.picture.channels):
        return SampleQuality(lines, values)
    if not set(names) <= set(known):
        return SampleQuality(lines, values)
    asked = np.array([known.index(name) for name in names])
    judged = judge(pixels)
    agreeing = int((judged.labels == asked).sum())
    sure = float(judged.probabilities[np.arange(len(asked)), asked].mean())
    lines.append(f"judge agrees      {in_percent(agreeing, len(asked))}, mean probability {sure:.2f}")
    values |= {"judge_agrees": agreeing, "judged": len(asked), "judge_probability": sure}
    return SampleQuality(lines, values)


__all__ = ["SampleQuality", "measure_samples"]
