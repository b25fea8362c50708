"""The compressibility of an image: its size as a JPEG (kind ``jpeg``).

The toy objective of K. Black et al., "Training Diffusion Models with Reinforcement Learning", ICLR 2024,
arXiv:2305.13301: minimise it for compressible images, maximise it for incompressible ones. May import pilotwave
and numpy; Pillow when the oracle is built.
"""

from __future__ import annotations

import io
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from pilotwave.config.components import OracleConfig
from pilotwave.errors import OracleFailure
from pilotwave.protocols import KnownAnswer, Oracle, QueryContext
from pilotwave.samples import ImageSample, Sample
from pilotwave.types import Answer

BYTES_PER_UNIT = {"kilobytes": 1000, "bytes": 1}


class JpegOracleConfig(OracleConfig):
    """Asks for the size of an image as a JPEG file."""

    media: ClassVar[frozenset[str]] = frozenset({"image"})
    packages: ClassVar[tuple[str, ...]] = ("PIL",)
    extra: ClassVar[str | None] = "images"
    summary: ClassVar[str] = "Size of the image as a JPEG: minimise for compressible, maximise for incompressible."

    kind: Literal["jpeg"] = "jpeg"
    quality: int = Field(95, ge=1, le=95, description="JPEG quality, 1 (small) to 95 (faithful).")
    unit: Literal["kilobytes", "bytes"] = Field(
        "kilobytes", description="Unit of the value; 1 kilobyte = 1000 bytes."
    )

    def build(self) -> Oracle:
        """Imports Pillow and returns the oracle."""
        self.check_dependencies()
        return JpegOracle(self)


class JpegOracle:
    """See :class:`JpegOracleConfig` and :class:`pilotwave.protocols.Oracle`.

    Grey and RGB images of any size; RGBA is laid on white, since JPEG knows no transparency.
    """

    media = frozenset({"image"})
    deterministic = True

    def __init__(self, config: JpegOracleConfig) -> None:
        import PIL
        from PIL import features

        self._config = config
        self.name = "jpeg"
        self.unit: str = config.unit
        library = features.version("libjpeg_turbo") or features.version("jpg")
        self.version = f"pillow {PIL.__version__}, jpeg {library}, quality {config.quality}, {config.unit}"

    def evaluate(self, sample: Sample, context: QueryContext) -> Answer:
        """Encodes the image.

        Raises:
            OracleFailure: Stage ``"media"``: not an image; ``"encode"``: JPEG cannot hold it.
        """
        if not isinstance(sample, ImageSample):
            raise OracleFailure(f"expected an image sample, got {sample.media}", stage="media")
        height, width = sample.pixels.shape[:2]
        if min(height, width) < 1 or max(height, width) > 65_500:
            raise OracleFailure(f"expected sides of 1 to 65500 pixels, got {width}x{height}", stage="encode")
        stream = io.BytesIO()
        image = _as_opaque(sample.pixels)
        try:
            image.save(stream, format="JPEG", quality=self._config.quality)
        except (OSError, ValueError) as error:
            raise OracleFailure(f"expected an image that JPEG can hold: {error}", stage="encode") from error
        size = stream.tell()
        return Answer(size / BYTES_PER_UNIT[self._config.unit], {"bytes_per_pixel": size / (height * width)})

    def known_answer(self) -> KnownAnswer:
        """Asks about a grey 16x16 gradient: 338 to 389 bytes with Pillow 13.0, depending on the quality.

        Most of it is the header. Encoders differ by some bytes, so the tolerance is wide.
        """
        gradient = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8)[:, :, None] * np.uint8(8)
        scale = BYTES_PER_UNIT[self._config.unit]
        return KnownAnswer(ImageSample(gradient), 360 / scale, tolerance=100 / scale)


def _as_opaque(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
    from PIL import Image

    if pixels.shape[2] == 1:
        return Image.fromarray(pixels[:, :, 0])
    image = Image.fromarray(pixels)
    if pixels.shape[2] == 3:
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


__all__ = ["JpegOracle", "JpegOracleConfig"]
