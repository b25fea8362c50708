"""Guided sampling: edited noise does what shifted predictions do, and the plain sampler gives it back."""

import pytest
import torch

from pilotwave.algorithms.guided_sampling import GuidedPlan, edit_noise, sample_guided, seeded_normals
from pilotwave.testing.algorithm_contract import small_backbone
from pilotwave.types import Draw

DRAWS = [Draw.of(5, 0, slot) for slot in range(6)]


def drawn(backbone):
    return backbone.draw_noise(DRAWS), backbone.draw_conditions(DRAWS)


def towards(target, step_size=0.3):
    return lambda state, predicted_clean, conditions: step_size * (target - predicted_clean)


@pytest.mark.parametrize("conditional", [False, True])
def test_edited_noise_does_what_a_shifted_prediction_does(conditional):
    """Compared with a step hook that shifts the prediction itself at all steps but the noiseless last one."""
    backbone = small_backbone(conditional)
    noise, conditions = drawn(backbone)
    before = noise.clone()
    shift = towards(torch.ones(3, 4))

    def step_hook(state, predicted_clean):
        return predicted_clean + (shift(state, predicted_clean, conditions) if state.noise_weight else 0.0)

    expected = backbone.sample(noise, conditions, hook=step_hook)
    batch = sample_guided(backbone, noise, conditions, shift)
    torch.testing.assert_close(batch.latents, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(batch.latents, backbone.sample(noise, conditions), atol=1e-2)
    assert torch.equal(noise, before)
    assert batch.passes == 1


def test_the_plain_sampler_gives_the_guided_latents_again():
    backbone = small_backbone()
    noise, conditions = drawn(backbone)
    batch = sample_guided(backbone, noise, conditions, towards(torch.ones(3, 4)))
    assert torch.equal(backbone.sample(batch.noise_sequence, conditions), batch.latents)
    assert torch.equal(batch.noise_sequence[0], noise[0])
    assert (batch.noise_sequence[-1] == 0).all()
    assert all(not torch.equal(batch.noise_sequence[k], noise[k]) for k in range(1, 4))


def test_a_guide_sees_every_step_that_injects_noise():
    backbone = small_backbone()
    noise, conditions = drawn(backbone)
    seen = []

    def shift(state, predicted_clean, conditions):
        seen.append((state.index, state.steps, state.noisy.shape == predicted_clean.shape))
        return torch.zeros_like(predicted_clean)

    batch = sample_guided(backbone, noise, conditions, shift)
    assert seen == [(0, 4, True), (1, 4, True), (2, 4, True)]
    assert torch.equal(batch.noise_sequence, noise)


def test_a_shift_that_is_not_finite_shifts_nothing_of_its_sample():
    backbone = small_backbone()
    noise, conditions = drawn(backbone)

    def shift(state, predicted_clean, conditions):
        shifts = torch.ones_like(predicted_clean)
        shifts[1, 0, 0], shifts[2] = torch.nan, torch.inf
        return shifts

    batch = sample_guided(backbone, noise, conditions, shift)
    assert batch.noise_sequence.isfinite().all()
    assert torch.equal(batch.noise_sequence[:, 1:3], noise[:, 1:3])
    for place in (0, 3, 4, 5):
        assert not torch.equal(batch.noise_sequence[1:4, place], noise[1:4, place])


def test_components_drawn_as_zero_stay_zero():
    noise = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    noise[1, 4:] = 0.0
    edited = edit_noise(noise, torch.ones(3, 6))
    assert (edited[1, 4:] == 0).all()
    torch.testing.assert_close(edited[1, :4], noise[1, :4] + 1)
    torch.testing.assert_close(edited[0], noise[0] + 1)
    assert (edit_noise(torch.zeros(2, 6), torch.ones(2, 6), limit=1.5) == 0).all()


def test_the_limit_bounds_the_norm_and_keeps_the_direction():
    noise = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    edit = torch.zeros(4, 3, 5)
    edit[1:] = 7.0
    edited = edit_noise(noise, edit, limit=1.2)
    assert torch.equal(edited[0], noise[0])
    lengths, radii = edited.flatten(1).norm(dim=1), noise.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths[1:], 1.2 * radii[1:])
    free = (noise + edit)[1:].flatten(1)
    alignment = torch.nn.functional.cosine_similarity(free, edited[1:].flatten(1))
    torch.testing.assert_close(alignment, torch.ones(3))
    assert edit_noise(noise, edit).flatten(1).norm(dim=1)[1] > 2 * radii[1]


def test_huge_edits_are_held_by_the_limit_or_dropped():
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(2))
    edit = torch.full((2, 8), 1e300, dtype=torch.float64)
    assert torch.equal(edit_noise(noise, edit), noise)
    limited = edit_noise(noise, torch.full((2, 8), 1e30), limit=1.0)
    torch.testing.assert_close(limited.norm(dim=1), noise.norm(dim=1))


def test_without_a_guide_samples_are_the_backbone_s_own():
    backbone = small_backbone(conditional=True)
    noise, conditions = drawn(backbone)
    batch = GuidedPlan(None).generate(backbone, DRAWS)
    assert torch.equal(batch.noise_sequence, noise)
    assert torch.equal(batch.latents, backbone.sample(noise, conditions))
    assert batch.passes == 1


def test_seeded_normals_depend_on_seed_purpose_and_step_alone():
    first = seeded_normals(2**63 - 1, "a", 0, (4000,))
    assert torch.equal(first, seeded_normals(2**63 - 1, "a", 0, (4000,)))
    others = [seeded_normals(1, "a", 0, (4000,)), seeded_normals(2**63 - 1, "b", 0, (4000,))]
    others.append(seeded_normals(2**63 - 1, "a", 1, (4000,)))
    for other in others:
        assert abs(float((first * other).mean())) < 0.06
    assert abs(float(first.mean())) < 0.06
    assert abs(float(first.std()) - 1) < 0.05
