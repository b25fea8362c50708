"""The emoji: names, split and fetching; what was fetched once is not fetched again."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave.backbones.image import emoji
from pilotwave.backbones.image.backbone import ImageBackboneConfig
from pilotwave.backbones.image.network import ImageNetworkConfig
from pilotwave.backbones.image.training import EmojiTrainingConfig, train
from pilotwave.errors import InputError, MissingDependencyError
from pilotwave.samples import ImageSample
from pilotwave.types import Draw

Image = pytest.importorskip("PIL.Image")
TONES = ["1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"]
WAVING = "1f44b"
HELD_OUT = next(f"{point:x}" for point in range(0x1F400, 0x1F4FF) if emoji.is_held_out(f"{point:x}"))


def pack(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def webp(colour: tuple[int, int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (256, 256), colour).save(buffer, format="WEBP", lossless=True)
    return buffer.getvalue()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The two packages as npm would have left them, with a handful of emoji."""
    pictures = {
        "assets/1f600.webp": webp((255, 255, 0, 255)),
        f"assets/{WAVING}.webp": webp((0, 0, 0, 0)),
        **{f"assets/{WAVING}-{tone}.webp": webp((9, 9, 9, 255)) for tone in TONES},
        "assets/0039-fe0f-20e3.webp": webp((0, 0, 255, 255)),
        f"assets/{HELD_OUT}.webp": webp((0, 255, 0, 255)),
        "assets/ffff.webp": webp((1, 1, 1, 255)),
        "README.md": b"",
    }
    table = {
        "😀": {"group": "Smileys & Emotion"},
        "👋": {"group": "People & Body"},
        "9️⃣": {"group": "Symbols"},
        chr(int(HELD_OUT, 16)): {"group": "Animals & Nature"},
    }
    pack(tmp_path / "lobehub-fluent-emoji-3d-1.1.0.tgz", pictures)
    pack(tmp_path / "unicode-emoji-json-0.9.0.tgz", {"data-by-emoji.json": json.dumps(table).encode()})
    return tmp_path


def test_packages_in_the_cache_become_classes_over_white(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    source = emoji.load_emoji(cache)
    images = np.concatenate([source.train.images, source.held_out.images])
    labels = np.concatenate([source.train.labels, source.held_out.labels])
    assert images.shape == (9, 64, 64, 3)
    names = [emoji.CLASS_NAMES[label] for label in labels]
    assert sorted(names) == ["animals"] + ["people"] * 6 + ["smileys", "symbols"]
    assert len(source.held_out) >= 1
    assert images[names.index("smileys"), 5, 5].tolist() == [255, 255, 0]
    assert any((image == 255).all() for image in images)
    for package in cache.glob("*.tgz"):
        package.unlink()
    again = emoji.load_emoji(cache)
    assert again.train.digest() == source.train.digest()


def test_without_npm_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependencyError, match="apt install npm") as caught:
        emoji.load_emoji(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_npm_says_is_passed_on_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho first >&2\necho 'no such package' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent))
    with pytest.raises(InputError, match=r"no such package") as caught:
        emoji.fetch(emoji.GROUPS, tmp_path)
    assert "\n" not in str(caught.value)


def test_skin_tones_of_one_emoji_are_on_one_side() -> None:
    sides = {emoji.is_held_out(f"{WAVING}-{tone}") for tone in TONES} | {emoji.is_held_out(WAVING)}
    assert len(sides) == 1


@given(points=st.lists(st.integers(0x23, 0x1FAFF).filter(lambda point: point != 0xFE0F), min_size=1, max_size=4))
def test_file_names_spell_code_points(points: list[int]) -> None:
    name = "-fe0f-".join(f"{point:x}" for point in points)
    assert [int(point, 16) for point in emoji.code_points(name)] == points


def test_about_a_tenth_is_held_out() -> None:
    held_out = [emoji.is_held_out(f"{point:x}") for point in range(0x1F300, 0x1FAFF)]
    assert 0.07 < np.mean(held_out) < 0.13


@pytest.mark.parametrize("side", [32, 64])
def test_a_model_of_emoji_trains_and_draws_in_colour(cache: Path, tmp_path: Path, side: int) -> None:
    network = ImageNetworkConfig(widths=(8, 16), blocks=(1, 2), head_width=8, embedding=16)
    config = EmojiTrainingConfig(
        output=tmp_path / "out", cache=cache, side=side, images=16, batch_size=8, samples=4, network=network
    )
    path = train(config, lambda progress: None)
    backbone = ImageBackboneConfig(kind="image", checkpoint=str(path), steps=2, classes=("food",)).build("cpu")
    draws = [Draw.of(0, 0, slot) for slot in range(2)]
    conditions = backbone.draw_conditions(draws)
    (first, _) = backbone.decode(backbone.sample(backbone.draw_noise(draws), conditions), conditions)
    assert isinstance(first, ImageSample)
    assert first.pixels.shape == (side, side, 3)
    assert first.class_name == "food"
    assert "Fluent emoji" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
