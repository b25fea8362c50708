"""Weight files: what was written is read, and every wrong file is refused in one line."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pilotwave.errors import CheckpointError
from pilotwave.training.weights import FORMAT_VERSION, read_weights, write_weights

CONFIG = {"channels": [16, 32], "classes": 10}
PROGRESS = {"images_seen": 640, "held_out_loss": 0.25}


def some_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "layer.weight": torch.randn(5, 3, generator=generator),
        "layer.bias": torch.randn(5, generator=generator),
        "scale": torch.randn((), generator=generator),
        "counts": torch.arange(4),
    }


def write(path: Path, tensors: dict[str, torch.Tensor] | None = None, model: str = "image") -> Path:
    write_weights(path, tensors or some_tensors(), model=model, config=CONFIG, progress=PROGRESS)
    return path


def refusal(path: Path, model: str = "image") -> str:
    with pytest.raises(CheckpointError) as caught:
        read_weights(path, model=model)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_what_was_written_is_read_in_half_precision(tmp_path: Path) -> None:
    weights = read_weights(write(tmp_path / "new" / "m.safetensors"), model="image")
    assert weights.config == CONFIG
    assert weights.progress == PROGRESS
    for name, tensor in some_tensors().items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(weights.tensors[name], expected)
        assert weights.tensors[name].dtype == expected.dtype


def test_the_fingerprint_follows_tensors_and_config_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    first = read_weights(write(path), model="image").fingerprint
    assert read_weights(write(tmp_path / "copy"), model="image").fingerprint == first
    write_weights(path, some_tensors(), model="image", config=CONFIG, progress={"images_seen": 1})
    assert read_weights(path, model="image").fingerprint == first
    write_weights(path, some_tensors(), model="image", config={"channels": [16]}, progress=PROGRESS)
    assert read_weights(path, model="image").fingerprint != first
    for name in some_tensors():
        changed = some_tensors()
        changed[name] = changed[name] + 1
        assert read_weights(write(path, changed), model="image").fingerprint != first


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nothing.safetensors")
    assert "no such file" in refusal(tmp_path)


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    path = write(tmp_path_factory.mktemp("cut") / "m.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "truncated or of another kind" in refusal(path)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
def test_foreign_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("foreign") / "m.safetensors"
    path.write_bytes(data)
    refusal(path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "m.safetensors", model="molecule"))
    assert "'molecule'" in message
    assert "'image'" in message


def test_somebody_elses_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for metadata in (None, {"format": "pt"}, {"kind": "stable-diffusion"}):
        save_file(some_tensors(), path, metadata)
        assert "names no pilotwave model" in refusal(path)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("format_version", str(FORMAT_VERSION + 1), "expected format"),
        ("format_version", None, "expected format"),
        ("config", "{", "damaged"),
        ("config", "[]", "damaged"),
        ("config", None, "damaged"),
        ("training", "nonsense", "damaged"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    tmp_path: Path, field: str, value: str | None, expected: str
) -> None:
    path = write(tmp_path / "m.safetensors")
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    metadata = header["__metadata__"]
    if value is None:
        del metadata[field]
    else:
        metadata[field] = value
    changed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + data[8 + length :])
    assert expected in refusal(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_a_diverged_model_is_not_written(tmp_path: Path, value: float) -> None:
    path = write(tmp_path / "m.safetensors")
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"'layer.bias' is not finite"):
        write(path, some_tensors() | {"layer.bias": torch.tensor([1.0, value])})
    assert path.read_bytes() == before
