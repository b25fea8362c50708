"""Kabsch over slots: finds the turn that was made, is never beaten by another, and only turns."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pilotwave.backbones.molecule.alignment import align_latents
from pilotwave.backbones.molecule.preconditioning import centre_and_mask
from pilotwave.backbones.molecule.representation import QM9
from pilotwave.backbones.molecule.training_loss import random_orthogonal

seeds = st.integers(0, 2**31 - 1)
BATCH = 4


def latents(generator: torch.Generator, atoms: Tensor) -> Tensor:
    present = torch.arange(QM9.slots) < atoms[:, None]
    return centre_and_mask(torch.randn(len(atoms), QM9.slots, QM9.channels, generator=generator), present)


def draw(seed: int) -> tuple[torch.Generator, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return generator, torch.randint(4, QM9.slots + 1, (BATCH,), generator=generator)


def turned(values: Tensor, turns: Tensor) -> Tensor:
    return torch.cat([values[..., :3] @ turns, values[..., 3:]], dim=-1)


@settings(deadline=None, max_examples=50)
@given(seed=seeds, reflections=st.booleans())
def test_a_turn_is_undone(seed: int, reflections: bool) -> None:
    generator, atoms = draw(seed)
    fixed = latents(generator, atoms)
    turns = random_orthogonal(BATCH, generator)
    if not reflections:
        turns = turns * torch.linalg.det(turns)[:, None, None]
    torch.testing.assert_close(
        align_latents(turned(fixed, turns), fixed, atoms, reflections=reflections), fixed, atol=1e-5, rtol=0
    )


@settings(deadline=None, max_examples=50)
@given(seed=seeds)
def test_no_other_turn_is_nearer(seed: int) -> None:
    generator, atoms = draw(seed)
    moving, fixed = latents(generator, atoms), latents(generator, atoms)
    best = (align_latents(moving, fixed, atoms) - fixed).square().sum((1, 2))
    for _ in range(20):
        other = (turned(moving, random_orthogonal(BATCH, generator)) - fixed).square().sum((1, 2))
        assert (best <= other + 1e-4).all()


@settings(deadline=None, max_examples=50)
@given(seed=seeds, reflections=st.booleans())
def test_only_a_turn_is_made(seed: int, reflections: bool) -> None:
    generator, atoms = draw(seed)
    moving, fixed = latents(generator, atoms), latents(generator, atoms)
    aligned = align_latents(moving, fixed, atoms, reflections=reflections)
    assert torch.equal(aligned[..., 3:], moving[..., 3:])
    gram, before = aligned[..., :3] @ aligned[..., :3].mT, moving[..., :3] @ moving[..., :3].mT
    torch.testing.assert_close(gram, before, atol=1e-4, rtol=0)
    if not reflections:
        volumes = [torch.linalg.det(item[:, :3, :3]).sign() for item in (aligned, moving)]
        torch.testing.assert_close(*volumes)


def test_noise_in_the_padding_does_not_pull() -> None:
    generator, atoms = draw(3)
    atoms = atoms.clamp(max=QM9.slots - 1)
    fixed = latents(generator, atoms)
    moving = latents(generator, torch.full((BATCH,), QM9.slots))
    noisy = fixed.clone()
    noisy[:, -1] = 100.0
    assert torch.equal(align_latents(moving, noisy, atoms), align_latents(moving, fixed, atoms))


def test_flat_and_linear_molecules_align() -> None:
    generator, atoms = draw(5)
    for rank in (1, 2):
        flat = latents(generator, atoms)
        flat[..., rank:3] = 0
        moved = turned(flat, random_orthogonal(BATCH, generator))
        torch.testing.assert_close(align_latents(moved, flat, atoms), flat, atol=1e-5, rtol=0)


def test_a_diverged_latent_disturbs_no_other() -> None:
    generator, atoms = draw(6)
    moving, fixed = latents(generator, atoms), latents(generator, atoms)
    expected = align_latents(moving, fixed, atoms)
    fixed[0] = torch.inf
    aligned = align_latents(moving, fixed, atoms)
    torch.testing.assert_close(aligned[0], moving[0])
    torch.testing.assert_close(aligned[1:], expected[1:])
