"""What every backbone must do, as tests: subclass :class:`BackboneContract` in a test file and give a factory.

    class TestMyBackbone(BackboneContract):
        def make_backbone(self):
            return MyBackbone(...)

May import: pytest, torch, pilotwave's types, samples and protocols.
"""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from torch import Tensor

from pilotwave.protocols import Backbone, StepState
from pilotwave.samples import SAMPLE_TYPES, Invalid, Sample
from pilotwave.types import Draw


def assert_near(left: Tensor, right: Tensor, tolerance: float) -> None:
    """Fails unless the tensors agree to this absolute and relative tolerance."""
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


class BackboneContract:
    """Tests of :class:`pilotwave.protocols.Backbone`.

    Attributes:
        batch: How many samples most tests make.
        tolerance: How far a sample may move with the batch it is in (products of other shapes round otherwise).
    """

    batch = 4
    tolerance = 1e-4

    def make_backbone(self) -> Backbone:
        """Returns the backbone under test; may return the same one each time."""
        raise NotImplementedError

    def draws(self, count: int | None = None) -> list[Draw]:
        """Returns draws with seeds spread over the whole range."""
        return [Draw.of(20_250, 0, slot) for slot in range(count or self.batch)]

    def draws_of_one_condition(self, backbone: Backbone) -> list[Draw]:
        """Returns draws that share their condition, so that their latents may be aligned to each other."""
        groups: dict[tuple[int, ...], list[Draw]] = defaultdict(list)
        draws = self.draws(64)
        for draw, condition in zip(draws, backbone.draw_conditions(draws).tolist(), strict=True):
            groups[tuple(condition)].append(draw)
        return max(groups.values(), key=len)[: self.batch]

    def sampled(self, backbone: Backbone) -> tuple[Tensor, Tensor, Tensor]:
        """Returns noise sequences, conditions and finished latents of one batch."""
        draws = self.draws()
        noise, conditions = backbone.draw_noise(draws), backbone.draw_conditions(draws)
        return noise, conditions, backbone.sample(noise, conditions)

    def test_it_describes_itself(self) -> None:
        backbone, again = self.make_backbone(), self.make_backbone()
        assert isinstance(backbone, Backbone)
        assert backbone.steps >= 1
        assert backbone.condition_size >= 0
        assert all(size >= 1 for size in backbone.latent_shape)
        assert backbone.media in SAMPLE_TYPES
        assert backbone.name
        assert backbone.fingerprint
        assert backbone.fingerprint == again.fingerprint

    def test_noise_has_the_contract_s_shape_and_is_each_draw_s_own(self) -> None:
        backbone, draws = self.make_backbone(), self.draws()
        noise = backbone.draw_noise(draws)
        assert noise.shape == (backbone.steps + 1, len(draws), *backbone.latent_shape)
        assert noise.dtype == torch.float32
        assert noise.device.type == "cpu"
        assert noise.isfinite().all()
        for place, draw in enumerate(draws):
            renamed = Draw("another-name", draw.seed)
            assert torch.equal(backbone.draw_noise([renamed])[:, 0], noise[:, place])
        assert torch.equal(backbone.draw_noise(draws[::-1]).flip(1), noise)
        for place in range(1, len(draws)):
            assert not torch.equal(noise[:, 0], noise[:, place])

    def test_conditions_are_each_draw_s_own(self) -> None:
        backbone, draws = self.make_backbone(), self.draws(16)
        conditions = backbone.draw_conditions(draws)
        assert conditions.shape == (16, backbone.condition_size)
        assert conditions.dtype == torch.int64
        assert torch.equal(backbone.draw_conditions(draws[::-1]).flip(0), conditions)
        assert torch.equal(backbone.draw_conditions(draws[3:4])[0], conditions[3])

    def test_sampling_is_deterministic_and_leaves_its_inputs_alone(self) -> None:
        backbone = self.make_backbone()
        noise, conditions, latents = self.sampled(backbone)
        kept = noise.clone(), conditions.clone()
        assert latents.shape == (self.batch, *backbone.latent_shape)
        assert latents.dtype == torch.float32
        assert latents.device.type == "cpu"
        assert not latents.requires_grad
        assert latents.isfinite().all()
        assert torch.equal(backbone.sample(noise, conditions), latents)
        assert torch.equal(noise, kept[0])
        assert torch.equal(conditions, kept[1])

    def test_a_sample_does_not_depend_on_its_batch(self) -> None:
        backbone = self.make_backbone()
        noise, conditions, latents = self.sampled(backbone)
        alone = [backbone.sample(noise[:, [i]], conditions[[i]])[0] for i in range(self.batch)]
        assert_near(torch.stack(alone), latents, self.tolerance)

    def test_the_noise_decides_the_sample(self) -> None:
        backbone = self.make_backbone()
        noise, conditions, latents = self.sampled(backbone)
        other = noise.clone()
        other[0] = -other[0]
        assert not torch.allclose(backbone.sample(other, conditions), latents)

    def test_the_hook_is_called_at_every_step(self) -> None:
        backbone = self.make_backbone()
        noise, conditions, latents = self.sampled(backbone)
        states: list[StepState] = []

        def watch(state: StepState, predicted_clean: Tensor) -> Tensor:
            assert state.noisy.shape == predicted_clean.shape == latents.shape
            states.append(state)
            return predicted_clean

        assert_near(backbone.sample(noise, conditions, watch), latents, self.tolerance)
        assert [state.index for state in states] == list(range(backbone.steps))
        assert {state.steps for state in states} == {backbone.steps}
        levels = [state.noise_level / max(state.signal_level, 1e-9) for state in states]
        assert levels == sorted(levels, reverse=True)

    def test_the_hook_can_steer(self) -> None:
        backbone = self.make_backbone()
        noise, conditions, latents = self.sampled(backbone)
        steered = backbone.sample(noise, conditions, lambda state, clean: 0.5 * clean)
        assert steered.shape == latents.shape
        assert not torch.allclose(steered, latents, atol=1e-3)

    def test_edited_noise_gives_the_same_latents_again(self) -> None:
        backbone = self.make_backbone()
        noise, conditions, latents = self.sampled(backbone)
        edited = noise.clone()
        seen: list[StepState] = []

        def turned(state: StepState, predicted_clean: Tensor, injected: Tensor) -> Tensor:
            assert_near(injected.cpu(), noise[state.index + 1], self.tolerance)
            assert predicted_clean.shape == injected.shape
            assert state.noise_weight > 0
            seen.append(state)
            edited[state.index + 1] = -injected.cpu()
            return -injected

        steered = backbone.sample(noise, conditions, noise_hook=turned)
        assert [state.index for state in seen] == list(range(len(seen)))
        if seen:  # a sampler of one step injects nothing
            assert not torch.allclose(steered, latents, atol=1e-3)
        assert_near(backbone.sample(edited, conditions), steered, self.tolerance)

    def test_every_latent_decodes_to_a_sample_or_a_reason(self) -> None:
        backbone = self.make_backbone()
        _, conditions, latents = self.sampled(backbone)
        decoded = backbone.decode(latents, conditions)
        assert len(decoded) == self.batch
        for item in decoded:
            if isinstance(item, Invalid):
                assert item.reason
                continue
            assert isinstance(item, Sample)
            assert item.media == backbone.media
            fields, blob = item.payload()
            assert type(item).from_payload(fields, blob).identity() == item.identity()
        assert [_identity(item) for item in backbone.decode(latents, conditions)] == [
            _identity(item) for item in decoded
        ]

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
    def test_a_hopeless_latent_is_no_exception(self, value: float) -> None:
        backbone = self.make_backbone()
        _, conditions, latents = self.sampled(backbone)
        hopeless = torch.full_like(latents, value)
        decoded = backbone.decode(hopeless, conditions)
        assert len(decoded) == self.batch
        if value != 1e30:
            assert all(isinstance(item, Invalid) for item in decoded)

    def test_alignment_moves_rigidly_and_never_farther(self) -> None:
        backbone = self.make_backbone()
        draws = self.draws_of_one_condition(backbone)
        conditions = backbone.draw_conditions(draws)
        fixed = backbone.sample(backbone.draw_noise(draws), conditions)
        moving = fixed.flip(0).contiguous()
        kept = moving.clone(), fixed.clone()
        aligned = backbone.align(moving, fixed, conditions)
        assert torch.equal(moving, kept[0])
        assert torch.equal(fixed, kept[1])
        assert aligned.shape == moving.shape
        assert_near(backbone.align(fixed, fixed, conditions), fixed, 1e-3)
        assert_near(aligned.flatten(1).norm(dim=1), moving.flatten(1).norm(dim=1), 1e-3)
        before = (moving - fixed).flatten(1).norm(dim=1)
        assert ((aligned - fixed).flatten(1).norm(dim=1) <= before * (1 + 1e-3) + 1e-3).all()
        assert_near(backbone.align(aligned, fixed, conditions), aligned, 1e-2)
        described = backbone.invariants(moving, conditions)
        assert described.shape == (len(moving), described[0].numel())
        assert_near(backbone.invariants(aligned, conditions), described, 1e-2)

    def test_invariants_tell_samples_apart_and_can_be_differentiated(self) -> None:
        backbone = self.make_backbone()
        _, conditions, latents = self.sampled(backbone)
        leaf = latents.clone().requires_grad_(True)
        described = backbone.invariants(leaf, conditions)
        assert described.isfinite().all()
        assert float(torch.pdist(described.detach().double()).min()) > 0
        (gradient,) = torch.autograd.grad(described.square().sum(), leaf)
        assert gradient.shape == latents.shape
        assert gradient.isfinite().all()
        assert (gradient.flatten(1).norm(dim=1) > 0).all()


def _identity(item: Sample | Invalid) -> str:
    return item.reason if isinstance(item, Invalid) else item.identity()


__all__ = ["BackboneContract", "assert_near"]
