"""JPEG sizes."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pydantic import ValidationError

from pilotwave.errors import OracleFailure
from pilotwave.protocols import QueryContext
from pilotwave.samples import ImageSample, Sample
from pilotwave.testing.oracle_contract import OracleContract
from pilotwave_oracles.jpeg import JpegOracleConfig

CONTEXT = QueryContext("q")
RANDOM = np.random.default_rng(0)


def noise(*shape: int) -> ImageSample:
    return ImageSample(RANDOM.integers(0, 256, shape).astype(np.uint8))


class TestJpegContract(OracleContract):
    def config(self) -> JpegOracleConfig:
        return JpegOracleConfig()

    def samples(self) -> list[Sample]:
        return [noise(28, 28, 1), noise(8, 9, 3), noise(8, 9, 4)]


class TestJpegBytesContract(OracleContract):
    def config(self) -> JpegOracleConfig:
        return JpegOracleConfig(quality=10, unit="bytes", isolation="thread")


images = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3])),
    elements=st.integers(0, 255),
)


@given(images, st.integers(1, 95))
def test_the_value_is_the_size_of_a_file_that_opens_again(pixels: np.ndarray, quality: int) -> None:
    answer = JpegOracleConfig(quality=quality, unit="bytes").build().evaluate(ImageSample(pixels), CONTEXT)
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(stream, "JPEG", quality=quality)
    assert answer.value == len(stream.getvalue())
    assert answer.properties["bytes_per_pixel"] == pytest.approx(answer.value / pixels[:, :, 0].size)


def test_noise_is_larger_than_a_plain_image_and_lower_quality_smaller() -> None:
    plain, rough = ImageSample(np.full((28, 28, 1), 7, dtype=np.uint8)), noise(28, 28, 1)
    best, worst = JpegOracleConfig().build(), JpegOracleConfig(quality=5).build()
    assert best.evaluate(plain, CONTEXT).value < 0.5 < 1.0 < best.evaluate(rough, CONTEXT).value
    assert worst.evaluate(rough, CONTEXT).value < best.evaluate(rough, CONTEXT).value


def test_kilobytes_are_thousands_of_bytes() -> None:
    sample = noise(16, 16, 3)
    in_bytes = JpegOracleConfig(unit="bytes").build().evaluate(sample, CONTEXT).value
    assert JpegOracleConfig().build().evaluate(sample, CONTEXT).value == in_bytes / 1000


def test_transparency_is_laid_on_white() -> None:
    clear = ImageSample(np.zeros((8, 8, 4), dtype=np.uint8))
    white = ImageSample(np.full((8, 8, 3), 255, dtype=np.uint8))
    oracle = JpegOracleConfig().build()
    assert oracle.evaluate(clear, CONTEXT) == oracle.evaluate(white, CONTEXT)


def test_an_image_without_pixels_fails() -> None:
    with pytest.raises(OracleFailure, match="sides of 1 to 65500 pixels, got 3x0") as caught:
        JpegOracleConfig().build().evaluate(ImageSample(np.zeros((0, 3, 1), dtype=np.uint8)), CONTEXT)
    assert caught.value.stage == "encode"


def test_the_version_names_what_the_size_depends_on() -> None:
    assert JpegOracleConfig().build().version != JpegOracleConfig(quality=50).build().version
    with pytest.raises(ValidationError, match="less than or equal to 95"):
        JpegOracleConfig(quality=100)
