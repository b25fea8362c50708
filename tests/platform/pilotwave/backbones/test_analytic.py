"""The analytic backbone: contract, samples that follow the data, data from files, and what is refused."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pilotwave.backbones.analytic import AnalyticBackbone, AnalyticBackboneConfig, synthetic_clusters
from pilotwave.errors import InputError
from pilotwave.testing.backbone_contract import BackboneContract
from pilotwave.types import Draw


class TestAnalytic(BackboneContract):
    def make_backbone(self):
        return AnalyticBackboneConfig(kind="analytic", dim=6, steps=5).build()


class TestAnalyticWithCondition(BackboneContract):
    def make_backbone(self):
        return AnalyticBackboneConfig(kind="analytic", dim=4, components=3, conditional=True).build()


class TestAnalyticImages(BackboneContract):
    def make_backbone(self):
        pixels = np.random.default_rng(0).integers(0, 256, (60, 4, 5, 3), dtype=np.uint8)
        return AnalyticBackbone.fit(pixels, components=2, rank=3, decode="image")


def many(backbone, count=3000):
    draws = [Draw.of(1, 0, slot) for slot in range(count)]
    conditions = backbone.draw_conditions(draws)
    return backbone.sample(backbone.draw_noise(draws), conditions), conditions


def test_samples_follow_the_data():
    data = synthetic_clusters(6, 3, 2, seed=5, count=3000) * 4 + 10
    backbone = AnalyticBackbone.fit(data, components=3, rank=2, steps=60)
    latents, conditions = many(backbone)
    decoded = np.stack([item.array for item in backbone.decode(latents, conditions)])
    spread = data.std(axis=0).mean()
    np.testing.assert_allclose(decoded.mean(axis=0), data.mean(axis=0), atol=0.12 * spread)
    np.testing.assert_allclose(np.cov(decoded.T), np.cov(data.T), atol=0.15 * spread**2)


def test_a_condition_chooses_the_cluster():
    data = synthetic_clusters(6, 3, 1, seed=5, count=900)
    backbone = AnalyticBackbone.fit(data, components=3, rank=1, conditional=True)
    latents, conditions = many(backbone, 600)
    assert set(conditions[:, 0].tolist()) == {0, 1, 2}
    distances = torch.cdist(latents.double(), backbone.mixture.means)
    assert (distances.argmin(dim=1) == conditions[:, 0]).float().mean() > 0.95


def test_the_fingerprint_names_data_and_settings():
    data = synthetic_clusters(4, 2, 1, seed=0, count=50)
    prints = {
        AnalyticBackbone.fit(data, 2, 1).fingerprint,
        AnalyticBackbone.fit(data.copy(), 2, 1).fingerprint,
        AnalyticBackbone.fit(data + 1, 2, 1).fingerprint,
        AnalyticBackbone.fit(data, 3, 1).fingerprint,
        AnalyticBackbone.fit(data, 2, 2).fingerprint,
        AnalyticBackbone.fit(data, 2, 1, steps=9).fingerprint,
        AnalyticBackbone.fit(data, 2, 1, seed=9).fingerprint,
        AnalyticBackbone.fit(data, 2, 1, conditional=True).fingerprint,
    }
    assert len(prints) == 7


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_data_come_from_a_file(tmp_path, suffix):
    data = synthetic_clusters(6, 2, 2, seed=3, count=80).reshape(-1, 2, 3)
    path = tmp_path / f"data{suffix}"
    np.save(path, data) if suffix == ".npy" else np.savez(path, first=data)
    backbone = AnalyticBackboneConfig(kind="analytic", data=path, components=2).build()
    assert backbone.latent_shape == (2, 3)
    assert backbone.fingerprint == AnalyticBackbone.fit(data, 2, 4).fingerprint


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_come_back_as_pixels(dtype):
    pixels = np.random.default_rng(0).integers(100, 150, (300, 3, 3))
    data = pixels.astype(np.uint8) if dtype is np.uint8 else (pixels / 255).astype(np.float32)
    backbone = AnalyticBackbone.fit(data, components=1, rank=8, steps=40, decode="image")
    assert backbone.media == "image"
    latents, conditions = many(backbone, 200)
    images = np.stack([item.pixels for item in backbone.decode(latents, conditions)])
    assert images.shape == (200, 3, 3, 1)
    assert abs(images.mean() - pixels.mean()) < 3
    assert abs(images.std() - pixels.std()) < 3


def test_media_is_what_the_user_chose():
    assert AnalyticBackboneConfig(kind="analytic").media == "array"
    assert AnalyticBackboneConfig(kind="analytic", decode="image").media == "image"


BROKEN = {
    "text": b"hello",
    "empty": b"",
    "a truncated archive": b"PK\x03\x04 and no more",
    "a truncated array": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_one_line(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"backbone\.data: expected") as caught:
        AnalyticBackboneConfig(kind="analytic", data=path).build()
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_unfit_data_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no"):
        AnalyticBackboneConfig(kind="analytic", data=tmp_path / "none.npy").build()
    with pytest.raises(InputError, match="finite numbers"):
        AnalyticBackbone.fit(np.full((20, 3), np.nan))
    with pytest.raises(InputError, match="finite numbers"):
        AnalyticBackbone.fit(np.array([["a", "b"]] * 20))
    with pytest.raises(InputError, match="finite numbers"):
        AnalyticBackbone.fit(np.zeros(20))
    with pytest.raises(InputError, match="at most as many"):
        AnalyticBackbone.fit(np.zeros((5, 3)), components=6)
    with pytest.raises(InputError, match="use decode: array"):
        AnalyticBackbone.fit(np.zeros((20, 3)), components=2, decode="image")
    with pytest.raises(ValidationError, match="steps"):
        AnalyticBackboneConfig(kind="analytic", steps=0)
