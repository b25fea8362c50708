"""The built-in molecule model as a backbone: united atoms, sampled by Euler ancestral steps with eta = 1.

A latent has nine slots of 3 + 10 channels: a position in units of 1.2 Å, and a scaled one-hot of the class (an
element with its hydrogens), see `representation`. The number of heavy atoms is a *condition*: it is drawn per
sample from the sizes of QM9 by the sample's own seed, and stays what it is under guidance. Slots beyond it are
padding: their noise is zero, the denoiser ignores whatever an optimiser writes there, and they are zero in a
finished latent. The same holds for a molecule's centre of mass, so latents and noise are kept centred.

May import torch, the modules beside it, the samplers and :mod:`pilotwave.training.weights`; RDKit is imported
when a latent is decoded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from pilotwave.backbones.molecule.alignment import align_latents
from pilotwave.backbones.molecule.decoding import DecodedMolecule, decode_latent
from pilotwave.backbones.molecule.network import MoleculeNetwork, NetworkConfig
from pilotwave.backbones.molecule.preconditioning import centre_and_mask
from pilotwave.backbones.molecule.representation import CHANNELS, FEWEST_ATOMS, SLOTS
from pilotwave.backbones.noise import draw_categories, draw_noise_sequence
from pilotwave.backbones.samplers.euler_ancestral import euler_ancestral, karras_sigmas
from pilotwave.backbones.samplers.schedule import SamplerStep
from pilotwave.config.components import BackboneConfig, path_in_campaign
from pilotwave.errors import CheckpointError
from pilotwave.protocols import StepHook
from pilotwave.samples import Invalid, MoleculeSample, Sample
from pilotwave.training.weights import Weights, read_weights
from pilotwave.types import Draw

if TYPE_CHECKING:
    from pilotwave.protocols import Backbone

MODEL = "molecule"
BUILTIN_WEIGHTS = Path(__file__).parent / "weights" / "molecule.safetensors"
SIGMA_MAX, SIGMA_MIN, RHO = 8.0, 0.015, 3.0
_CHUNK = 16
"""Molecules that go through the network together, padded to exactly this many: a product of another shape may
round otherwise, and a sample must not depend on the batch it was drawn in."""

Precision = Literal["float32", "bfloat16"]


class MoleculeBackboneConfig(BackboneConfig):
    """``backbone: {kind: molecule}`` of a campaign file."""

    packages: ClassVar[tuple[str, ...]] = ("rdkit",)
    extra: ClassVar[str | None] = "molecules"
    summary: ClassVar[str] = "small molecules in 3D, up to 9 heavy atoms of C, N, O, F (QM9); built in"
    media: ClassVar[str] = "molecule"

    kind: Literal["molecule"]
    checkpoint: str = Field(
        default="builtin",
        description="builtin, or the path of a .safetensors file from `pilotwave train molecule`.",
    )
    steps: int = Field(default=50, ge=1, le=1000, description="Sampler steps K; each is a pass of the network.")
    atoms: int | None = Field(
        default=None,
        ge=FEWEST_ATOMS,
        le=SLOTS,
        description="Heavy atoms of every molecule; drawn from the sizes of the training data if left out.",
    )
    precision: Precision = Field(
        default="float32", description="Of the network's products; bfloat16 is faster where the CPU or GPU has it."
    )

    @field_validator("checkpoint")
    @classmethod
    def _absolute(cls, checkpoint: str, info: ValidationInfo) -> str:
        return checkpoint if checkpoint == "builtin" else str(path_in_campaign(checkpoint, info))

    def build(self, device: str = "auto") -> Backbone:
        """Loads the model; see :meth:`BackboneConfig.build`."""
        self.check_dependencies()
        path = BUILTIN_WEIGHTS if self.checkpoint == "builtin" else Path(self.checkpoint)
        weights = read_weights(path, model=MODEL)
        network, atom_counts = build_network(weights)
        if self.atoms is not None:
            atom_counts = tuple(float(count == self.atoms) for count in range(SLOTS + 1))
        choice = "" if self.atoms is None else f"-n{self.atoms}"
        return MoleculeBackbone(
            network,
            atom_counts,
            steps=self.steps,
            precision=self.precision,
            device=device,
            fingerprint=f"molecule-{weights.fingerprint}-ancestral-k{self.steps}-{self.precision}{choice}",
        )


class MoleculeBackbone:
    """A molecule network with its sampler and decoder; implements :class:`pilotwave.protocols.Backbone`.

    Args:
        network: Trained.
        atom_counts: Relative frequency of each number of heavy atoms; index = atoms, length slots + 1.
        steps: Sampler steps K.
        precision: Of the network's products.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        fingerprint: Names weights and settings.
    """

    def __init__(
        self,
        network: MoleculeNetwork,
        atom_counts: Sequence[float],
        *,
        steps: int = 50,
        precision: Precision = "float32",
        device: str = "auto",
        fingerprint: str = "molecule-unsaved",
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.name = MODEL
        self.fingerprint = fingerprint
        self.steps = steps
        self.latent_shape: tuple[int, ...] = (SLOTS, CHANNELS)
        self.condition_size = 1
        self.media = "molecule"
        self.device = device
        self.length_unit = network.config.length_unit
        self.atom_counts = tuple(atom_counts)
        self._network = network.to(device).eval()
        self._precision = precision
        self._sigmas = karras_sigmas(steps, SIGMA_MIN, SIGMA_MAX, RHO)

    def draw_noise(self, draws: Sequence[Draw]) -> Tensor:
        """Draws noise of shape (steps + 1, batch, slots, channels), each sample from its own seed.

        It is zero in the padding of each sample and its positions are centred: the model uses nothing else.
        """
        noise = draw_noise_sequence(draws, self.steps, self.latent_shape)
        present = _present(self._atoms(self.draw_conditions(draws), len(draws)))
        return torch.stack([centre_and_mask(step, present) for step in noise])

    def draw_conditions(self, draws: Sequence[Draw]) -> Tensor:
        """Draws the numbers of heavy atoms, shape (batch, 1), each from its own seed."""
        return draw_categories(draws, self.atom_counts, purpose="atom count")[:, None]

    @torch.no_grad()
    def sample(self, noise_sequence: Tensor, conditions: Tensor, hook: StepHook | None = None) -> Tensor:
        """Runs the sampler from noise to finished latents of shape (batch, slots, channels).

        A sample's latent is the same, bit for bit, in whatever batch it is drawn (on one machine).

        Raises:
            ValueError: A shape is wrong, or a condition is not a number of atoms.
        """
        batch = noise_sequence.shape[1]
        if noise_sequence.shape != (self.steps + 1, batch, *self.latent_shape):
            expected = (self.steps + 1, "batch", *self.latent_shape)
            raise ValueError(f"expected a noise sequence of shape {expected}, got {tuple(noise_sequence.shape)}")
        atoms = self._atoms(conditions, batch).to(self.device)
        if not batch:
            return torch.zeros(0, *self.latent_shape)

        def denoise(noisy: Tensor, step: SamplerStep) -> Tensor:
            parts = zip(torch.split(noisy, _CHUNK), torch.split(atoms, _CHUNK), strict=True)
            return torch.cat([self._denoise(*part, step.noise_level) for part in parts])

        noise = noise_sequence.to(self.device, torch.float32)
        finished = euler_ancestral(denoise, noise, self._sigmas, hook)
        return centre_and_mask(finished, _present(atoms)).cpu()

    def decode(self, latents: Tensor, conditions: Tensor) -> list[Sample | Invalid]:
        """Decodes latents of shape (batch, slots, channels) to molecules with hydrogens, or says why not."""
        atoms = self._atoms(conditions, len(latents)).tolist()
        arrays = latents.detach().cpu().numpy()
        decoded = [
            decode_latent(array, count, self.length_unit) for array, count in zip(arrays, atoms, strict=True)
        ]
        return [to_sample(molecule) for molecule in decoded]

    def align(self, moving: Tensor, fixed: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Turns or reflects each latent onto another one (Kabsch over slots); see `alignment`."""
        atoms = None if conditions is None else self._atoms(conditions, len(fixed)).to(fixed.device)
        return align_latents(moving, fixed, atoms)

    def _denoise(self, noisy: Tensor, atoms: Tensor, sigma: float) -> Tensor:
        """Denoises up to `_CHUNK` molecules, in a batch of exactly `_CHUNK`."""
        missing = _CHUNK - len(noisy)
        if missing:
            noisy = torch.cat([noisy, noisy.new_zeros(missing, *self.latent_shape)])
            atoms = torch.cat([atoms, atoms.new_full((missing,), SLOTS)])
        levels = torch.full((_CHUNK,), sigma, device=noisy.device)
        reduced = torch.autocast(torch.device(self.device).type, torch.bfloat16)
        with reduced if self._precision == "bfloat16" else contextlib.nullcontext():
            clean = self._network.denoise(noisy, levels, atoms)
        return clean[: _CHUNK - missing]

    def _atoms(self, conditions: Tensor, batch: int) -> Tensor:
        """Returns the checked numbers of atoms, shape (batch,)."""
        if conditions.shape != (batch, 1):
            raise ValueError(f"expected conditions of shape ({batch}, 1), got {tuple(conditions.shape)}")
        if batch and not (int(conditions.min()) >= FEWEST_ATOMS and int(conditions.max()) <= SLOTS):
            raise ValueError(f"expected {FEWEST_ATOMS} to {SLOTS} heavy atoms, got {conditions.flatten().tolist()}")
        return conditions[:, 0].long()


def to_sample(decoded: DecodedMolecule) -> Sample | Invalid:
    """Turns a decoded molecule into the platform's sample, or its reason into `Invalid`."""
    if decoded.molecule is None:
        return Invalid(decoded.reason)
    from rdkit import Chem

    return MoleculeSample(
        Chem.MolToMolBlock(decoded.molecule),
        decoded.smiles,
        decoded.strictly_valid,
        decoded.repaired_hydrogens,
    )


def build_network(weights: Weights) -> tuple[MoleculeNetwork, tuple[float, ...]]:
    """Builds the network of a weight file; returns it with the frequencies of the atom counts.

    Raises:
        CheckpointError: The weights do not fit the network that their header describes.
    """
    config: dict[str, Any] = dict(weights.config)
    try:
        network = MoleculeNetwork(NetworkConfig.model_validate(config["network"]))
        network.load_state_dict(dict(weights.tensors))
        atom_counts = tuple(float(value) for value in config["atom_counts"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"the weights do not fit the molecule network ({reason}); train them again"
        ) from error
    if len(atom_counts) != SLOTS + 1:
        raise CheckpointError(f"expected frequencies of 0 to {SLOTS} atoms, got {len(atom_counts)} of them")
    return network.eval().requires_grad_(False), atom_counts


def _present(atoms: Tensor) -> Tensor:
    return torch.arange(SLOTS, device=atoms.device) < atoms[:, None]


__all__ = ["BUILTIN_WEIGHTS", "MODEL", "MoleculeBackbone", "MoleculeBackboneConfig", "build_network", "to_sample"]
