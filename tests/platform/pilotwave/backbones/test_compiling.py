"""Compiled networks: the same samples in whatever batch, and a word at once about what is missing here."""

from __future__ import annotations

import copy
import functools
import pickle

import pytest
import torch

from pilotwave.backbones import compiling
from pilotwave.backbones.compiling import check_compiler, padded
from pilotwave.backbones.image.backbone import ImageBackboneConfig
from pilotwave.backbones.molecule.backbone import MoleculeBackboneConfig
from pilotwave.errors import InputError
from pilotwave.protocols import Backbone
from pilotwave.testing.backbone_contract import BackboneContract
from pilotwave.testing.small_networks import small_image_backbone, small_molecule_backbone
from pilotwave.types import Draw

DRAWS = [Draw.of(3, 0, slot) for slot in range(19)]


@pytest.fixture
def captured_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles without generating code, which would take a minute: capture, guards and shapes are the real ones."""
    quick = functools.partial(torch.compile, backend="eager", fullgraph=True)
    monkeypatch.setattr(compiling.torch, "compile", quick)


def pairs() -> list[tuple[Backbone, Backbone]]:
    return [
        (small_image_backbone(), small_image_backbone(compiled=True)),
        (small_image_backbone(guidance_scale=2.0), small_image_backbone(compiled=True, guidance_scale=2.0)),
        (small_molecule_backbone(), small_molecule_backbone(compiled=True)),
    ]


@pytest.mark.usefixtures("captured_only")
@pytest.mark.parametrize("place", range(3))
def test_compiled_it_makes_the_same_samples_in_whatever_batch(place: int) -> None:
    plain, compiled = pairs()[place]
    noise, conditions = plain.draw_noise(DRAWS), plain.draw_conditions(DRAWS)
    torch._dynamo.reset()
    latents = compiled.sample(noise, conditions)
    torch.testing.assert_close(latents, plain.sample(noise, conditions), rtol=1e-4, atol=1e-4)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for size in (1, 5, 16):
        assert torch.equal(compiled.sample(noise[:, :size], conditions[:size]), latents[:size])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before  # no size is compiled anew


@pytest.mark.usefixtures("captured_only")
def test_what_is_compiled_does_not_travel() -> None:
    backbone = small_image_backbone(compiled=True)
    noise, conditions = backbone.draw_noise(DRAWS[:2]), backbone.draw_conditions(DRAWS[:2])
    latents = backbone.sample(noise, conditions)
    for other in (pickle.loads(pickle.dumps(backbone)), copy.deepcopy(backbone)):
        assert torch.equal(other.sample(noise, conditions), latents)


@pytest.mark.slow
class TestACompiledModel(BackboneContract):
    """With the code that is really generated."""

    def make_backbone(self) -> Backbone:
        return _compiled()


@functools.cache
def _compiled() -> Backbone:
    torch._dynamo.reset()
    return small_image_backbone(compiled=True)


def test_compiled_it_is_another_model() -> None:
    for kind, config in (("image", ImageBackboneConfig), ("molecule", MoleculeBackboneConfig)):
        plain, compiled = (config(kind=kind, compiled=choice).build("cpu").fingerprint for choice in (False, True))
        assert compiled == f"{plain}-compiled"


def test_a_machine_without_a_compiler_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    with pytest.raises(
        InputError, match=r"backbone.compiled: torch.compile needs a C\+\+ compiler .*leave compiled"
    ):
        small_image_backbone(compiled=True)
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs triton"):
        check_compiler("cuda:1")


def test_padding_repeats_the_last_row() -> None:
    rows = torch.tensor([[1.0], [2.0]])
    assert padded(rows, 4).tolist() == [[1.0], [2.0], [2.0], [2.0]]
    assert padded(rows, 2) is rows
